"""A pool whose calls run in the threads that wait for them: a test's handlers run in its own thread."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, override

from autosell_rmq.pipeline import NotStarted, ThreadPool, waiting


class BorrowedThreads(ThreadPool):
    """Runs sync handlers in whichever thread waits for the event loop, which is another thread's.

    So a handler shares what belongs to the test's own thread, such as its database transaction::

        with BorrowedThreads() as threads:
            app = RabbitMQ(server.url, thread_pool=threads)
            ...  # the app runs on `loop`, in a thread beside
            reply = threads.wait(asyncio.run_coroutine_threadsafe(ask(), loop))

    Between enter and exit a thread that waits in a blocking call of a producer (`SyncRabbitMQProducer`,
    `Message.sync_producer`) is borrowed too, so a handler, or the test, may ask another handler. One for the
    process at a time. What nobody waits for does not run.
    """

    def __init__(self) -> None:
        super().__init__(1)
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()

    @override
    def submit[T](self, function: Callable[[], T]) -> Future[T]:
        """Run it, in the caller's context, in the next thread that waits."""
        future: Future[T] = Future()
        context = contextvars.copy_context()
        with self._changed:
            stopped = self._stopped
            if not stopped:
                self._calls.append((future, lambda: context.run(function)))
                self._changed.notify_all()
        if stopped:
            future.set_exception(NotStarted())
        return future

    @override
    def stop(self) -> Sequence[threading.Thread]:
        with self._changed:
            self._stopped = True
            calls, self._calls = self._calls, deque()
        for future, _ in calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(NotStarted())
        return ()

    def wait[T](self, future: Future[T]) -> T:
        """Lend this thread until `future` is done; returns, or raises, what came of it.

        A call that runs here may wait in its turn.
        """
        self._serve_until(future)
        return future.result()

    def __enter__(self) -> Self:
        if waiting.serve is not None:
            raise RuntimeError("threads are being borrowed already: one BorrowedThreads at a time")
        waiting.serve = self._serve_until
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        waiting.serve = None
        self.stop()

    def _serve_until(self, future: Future[Any]) -> None:
        future.add_done_callback(self._wake)
        while (call := self._next(future)) is not None:
            _run(*call)
            del call  # the message must not live on while this thread waits

    def _next(self, future: Future[Any]) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            self._changed.wait_for(lambda: future.done() or self._calls)
            return None if future.done() else self._calls.popleft()

    def _wake(self, _: Future[Any]) -> None:
        with self._changed:
            self._changed.notify_all()


def _run(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except (KeyboardInterrupt, SystemExit) as error:
        future.set_exception(error)
        raise  # it was meant for this thread
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever awaits the future
        future.set_exception(error)
    else:
        future.set_result(result)
