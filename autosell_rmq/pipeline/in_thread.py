"""A sync handler in a thread: its context, the report of its timeout, its middleware on the loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from typing import cast

from autosell_rmq.idempotency import Abandoned
from autosell_rmq.message import Message
from autosell_rmq.middleware import Next
from autosell_rmq.pipeline.handler import Handler
from autosell_rmq.pipeline.threads import ThreadPool, finished, result_of

logger = logging.getLogger(__name__)

type _Item = tuple[Future[object], Callable[[], object]]
type HandOver = Callable[[Message, Mapping[str, object]], Awaitable[object]]
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
                raise Abandoned(cast("Future[object]", running)) from None
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
    layers: Callable[[HandOver], Next] | None,
    loop: asyncio.AbstractEventLoop,
) -> object:
    """Call a sync handler in this very thread, with what its `layers` do on the `loop` around it.

    The thread waits for them and does what the innermost one hands over, so the handler stays in the
    transaction that the thread has opened.
    """
    if layers is None:
        return _resolved(handler.call(message, arguments), loop)
    work = _Handover()

    async def hand_over(passed: Message, named: Mapping[str, object]) -> object:
        future: Future[object] = Future()
        work.put((future, partial(handler.call, passed, named)))
        return await asyncio.wrap_future(future)

    async def around() -> object:
        return await layers(hand_over)(message)

    chain = asyncio.run_coroutine_threadsafe(around(), loop)
    chain.add_done_callback(lambda _: work.put(None))
    while (item := result_of(work.take())) is not None:
        future, function = item
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(_resolved(function(), loop))
        except BaseException as error:  # noqa: BLE001 - the middleware sees it first
            future.set_exception(error)
    return result_of(chain)


def _resolved(result: object, loop: asyncio.AbstractEventLoop) -> object:
    """What a sync function returned; an awaitable is awaited on the loop."""
    if not inspect.isawaitable(result):
        return result

    async def awaited() -> object:
        return cast("object", await result)

    return result_of(asyncio.run_coroutine_threadsafe(awaited(), loop))


class _Handover:
    """What the loop puts, a thread takes: a queue whose next item is a future, for `result_of`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: deque[_Item | None] = deque()
        self._taker: Future[_Item | None] | None = None

    def put(self, item: _Item | None) -> None:
        with self._lock:
            taker, self._taker = self._taker, None
            if taker is None:
                self._items.append(item)
        if taker is not None:
            taker.set_result(item)

    def take(self) -> Future[_Item | None]:
        """The next item; only one may be waited for at a time."""
        future: Future[_Item | None] = Future()
        with self._lock:
            if not self._items:
                self._taker = future
                return future
            item = self._items.popleft()
        future.set_result(item)
        return future
