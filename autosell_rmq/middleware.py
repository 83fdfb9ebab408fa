"""Middleware: a callable around every handler run, the first in the list outermost.

::

    async def timed(message: Message, call_next: Next) -> object:
        started = time.monotonic()
        try:
            return await call_next(message)
        finally:
            print(message.queue, time.monotonic() - started)

It runs for each attempt that runs the handler, inside the idempotency claim: not for a duplicate, and
what it raises is a failure of the attempt. It may pass another `Message` on, and return another result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from autosell_rmq.message import Message

type Next = Callable[[Message], Awaitable[object]]
type Middleware = Callable[[Message, Next], Awaitable[object]]


def compose(middleware: Sequence[Middleware], handler: Next) -> Next:
    """Nest the middleware around `handler`."""
    for layer in reversed(middleware):
        handler = _around(layer, handler)
    return handler


def _around(layer: Middleware, inner: Next) -> Next:
    async def call(message: Message) -> object:
        return await layer(message, inner)

    return call
