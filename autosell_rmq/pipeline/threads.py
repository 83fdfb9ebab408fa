"""The bounded pool of threads that sync handlers run in.

Not `ThreadPoolExecutor`: its threads are joined when the interpreter exits, so one handler that hangs
would keep the process from leaving at its drain deadline. Ours are daemons.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any


class NotStarted(Exception):
    """The pool was stopped before a thread took the call up: nothing of it has run."""


class ThreadPool:
    """At most `size` threads, started when needed, kept until `stop`.

    Args:
        size: the most threads.
        name: of each, with a number.
        at_end: called in each thread when it ends: to close what belongs to it.
    """

    def __init__(
        self, size: int, *, name: str = "autosell-rmq-handler", at_end: Callable[[], None] | None = None
    ) -> None:
        self.size = size
        self._name = name
        self._at_end = at_end
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._stopped = False

    def submit[T](self, function: Callable[[], T]) -> Future[T]:
        """Run `function` in a thread, in the caller's context, as soon as one is free.

        The future can be cancelled until a thread has taken it up; afterwards ``cancel()`` returns False.
        """
        future: Future[T] = Future()
        if self._stopped:
            future.set_exception(NotStarted())
            return future
        context = contextvars.copy_context()
        self._work.put((future, lambda: context.run(function)))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self.size:
            thread = threading.Thread(
                target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return future

    def stop(self) -> Sequence[threading.Thread]:
        """Start nothing more: what no thread has taken up fails with `NotStarted`; returns at once.

        Returns:
            the threads, for who wants to wait: each ends when it has finished what it runs.
        """
        self._stopped = True
        with contextlib.suppress(Empty):
            while (work := self._work.get_nowait()) is not None:
                if work[0].set_running_or_notify_cancel():
                    work[0].set_exception(NotStarted())
        for _ in self._threads:
            self._work.put(None)
        ending, self._threads = self._threads, []
        return ending

    def _serve(self) -> None:
        try:
            self._work_off()
        finally:
            if self._at_end is not None:
                self._at_end()

    def _work_off(self) -> None:
        while (work := self._work.get()) is not None:
            future, function = work
            if future.set_running_or_notify_cancel():
                try:
                    result = function()
                except BaseException as error:  # noqa: BLE001  # it belongs to whoever awaits the future
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del work, future, function  # an idle thread must not keep the last message alive
            self._idle.release()


class _Waiting:
    """How threads wait for the event loop; one for the process.

    Attributes:
        serve: called first, with what is waited for; returns when that is done. By default there is none:
            only `autosell_rmq.testing.BorrowedThreads` sets it.
    """

    serve: Callable[[Future[Any]], object] | None = None


waiting = _Waiting()


def result_of[T](future: Future[T]) -> T:
    """Wait in a thread for what the event loop does; returns, or raises, what came of it."""
    if waiting.serve is not None:
        waiting.serve(future)
    return future.result()


async def finished[T](future: Future[T]) -> T:
    """Await a future of the pool; a cancellation reaches it only while no thread has taken it up."""
    return await asyncio.wrap_future(future)
