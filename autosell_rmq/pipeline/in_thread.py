"""A sync handler in a thread: its context, the report of its timeout, its middleware on the loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from queue import SimpleQueue
from typing import cast

from autosell_rmq.idempotency import Abandoned
from autosell_rmq.message import Message
from autosell_rmq.middleware import Middleware, compose
from autosell_rmq.pipeline.handler import Handler
from autosell_rmq.pipeline.threads import ThreadPool, finished

logger = logging.getLogger(__name__)

type ThreadContext = Callable[[], AbstractContextManager[None]]


class HandlerThreads:
    """Runs functions of one queue's handler in the app's pool.

    Args:
        threads: the pool.
        context: entered in the thread around each function.
        queue: for the report of a run that exceeds `timeout` seconds. A thread cannot be stopped, so more
            than a report is not possible.
    """

    def __init__(
        self, threads: ThreadPool, context: ThreadContext | None, *, queue: str, timeout: float
    ) -> None:
        self._threads = threads
        self._context = context
        self._queue = queue
        self._timeout = timeout

    async def __call__[T](self, function: Callable[[], T]) -> T:
        """Run it in a thread.

        Raises:
            NotStarted: the pool was stopped first.
            Abandoned: the caller was cancelled while the thread runs on.
        """
        running = self._threads.submit(partial(self._inside, function))
        report = asyncio.get_running_loop().call_later(
            self._timeout,
            logger.error,
            "queue %s: a sync handler runs for over %g s; its message is kept until it returns",
            self._queue,
            self._timeout,
        )
        try:
            return await finished(running)
        except asyncio.CancelledError:
            if running.running():
                raise Abandoned from None
            raise
        finally:
            report.cancel()

    def _inside[T](self, function: Callable[[], T]) -> T:
        if self._context is None:
            return function()
        with self._context():
            return function()


def call_here(
    handler: Handler,
    message: Message,
    arguments: Mapping[str, object],
    middleware: Sequence[Middleware],
    loop: asyncio.AbstractEventLoop,
) -> object:
    """Call a sync handler in this very thread, with its async middleware on the `loop` around it.

    The thread waits for the middleware and does what its innermost ``call_next`` asks for, so the handler
    stays in the transaction that the thread has opened.
    """
    if not middleware:
        return _resolved(handler.call(message, arguments), loop)
    work: SimpleQueue[tuple[Future[object], Callable[[], object]] | None] = SimpleQueue()

    async def hand_over(passed: Message) -> object:
        future: Future[object] = Future()
        work.put((future, partial(handler.call, passed, arguments)))
        return await asyncio.wrap_future(future)

    async def around() -> object:
        return await compose(middleware, hand_over)(message)

    chain = asyncio.run_coroutine_threadsafe(around(), loop)
    chain.add_done_callback(lambda _: work.put(None))
    while (item := work.get()) is not None:
        future, function = item
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(_resolved(function(), loop))
        except BaseException as error:  # noqa: BLE001 - the middleware sees it first
            future.set_exception(error)
    return chain.result()


def _resolved(result: object, loop: asyncio.AbstractEventLoop) -> object:
    """What a sync function returned; an awaitable is awaited on the loop."""
    if not inspect.isawaitable(result):
        return result

    async def awaited() -> object:
        return cast("object", await result)

    return asyncio.run_coroutine_threadsafe(awaited(), loop).result()
