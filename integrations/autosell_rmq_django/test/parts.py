"""What a test runs the project's app with: an event loop beside the test, a store and a producer for it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Unpack, override

from asgiref.sync import AsyncToSync, sync_to_async

from autosell_rmq import IdempotencyStore, MemoryStore, SendOptions
from autosell_rmq.testing import BorrowedThreads
from autosell_rmq_django.conf import AppSettings, Idempotency
from autosell_rmq_django.consuming import imported
from autosell_rmq_django.publishing import DjangoProducer
from autosell_rmq_django.store import DatabaseStore


class Beside:
    """An event loop in a thread of its own, whose thread-sensitive calls run in the borrowed threads.

    So an async handler's queries happen in the test's transaction, as those of a sync one do.
    """

    def __init__(self, threads: BorrowedThreads) -> None:
        self.loop = asyncio.new_event_loop()
        self._threads = threads
        self._thread = threading.Thread(target=self._run, name="autosell-rmq-test", daemon=True)

    def start(self) -> None:
        # asgiref looks here for the executor of a loop that no async_to_sync has made. It needs a `submit`.
        AsyncToSync.loop_thread_executors[self.loop] = self._threads  # type: ignore[assignment]
        self._thread.start()

    def call[T](self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop; this thread serves handlers meanwhile."""
        return self._threads.wait(self.submit(coroutine))

    def submit[T](self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        # In a context of its own: in an async test's there is an executor whose thread waits for us here.
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, coroutine, self.loop)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        AsyncToSync.loop_thread_executors.pop(self.loop, None)
        self.loop.close()

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.run_until_complete(self._end_tasks())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())

    @staticmethod
    async def _end_tasks() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class BorrowingStore(DatabaseStore):
    """The store of the project, whose own steps happen in the test's transaction too."""

    def __init__(self, settings: Idempotency, threads: BorrowedThreads) -> None:
        super().__init__(
            database=settings.database,
            ttl=settings.ttl,
            lease=settings.lease,
            lock_timeout=settings.lock_timeout,
        )
        self._threads = threads

    @override
    async def open(self) -> None:
        """Nothing is connected before it is needed: a test may have no database."""

    @override
    async def close(self) -> None: ...


def store_for_tests(settings: AppSettings, threads: BorrowedThreads) -> IdempotencyStore:
    """In the database where the project keeps it there, otherwise in memory: no test needs a Redis."""
    cls = imported(settings.idempotency.store)
    if isinstance(cls, type) and issubclass(cls, DatabaseStore):
        return BorrowingStore(settings.idempotency, threads)
    return MemoryStore()


class BorrowingProducer(DjangoProducer):
    """Requests of async code wait in a thread, which serves their handler."""

    @override
    async def asend_message(
        self,
        queue_name: str,
        message_data: object,
        wait_for_response: bool = True,
        timeout: float = 30.0,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> dict[str, Any]:
        """See `DjangoProducer.asend_message`."""
        return await sync_to_async(self.send_message)(
            queue_name, message_data, wait_for_response, timeout, correlation_id, **options
        )
