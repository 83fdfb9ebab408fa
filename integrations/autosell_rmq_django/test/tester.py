"""The project under test: its own handlers, store and producer, on a broker in memory."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, override
from unittest import mock

from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.db import DEFAULT_DB_ALIAS
from django.test import override_settings

from autosell_rmq import RabbitMQ
from autosell_rmq.testing import PATIENCE, BaseTester, BorrowedThreads, memory_server
from autosell_rmq_django import conf, consuming, publishing, registry, signals
from autosell_rmq_django.relay import OutboxFlush
from autosell_rmq_django.sending import Sender, in_pool
from autosell_rmq_django.store import DatabaseStore
from autosell_rmq_django.test.parts import Beside, BorrowingProducer, store_for_tests


class RabbitMQTester(BaseTester):
    """Runs the handlers of the project for a test, and shows what its code sends.

    Handlers run in the test's own thread, in its transaction: what they write the test sees, and
    ``TestCase`` takes back. `deliver` handles one message, through everything that a real one goes through:
    validation, idempotency in the database, middleware, retries, dead letters. Delays pass at once.

    What the code under test sends is in `sent`. It goes no further until the test says `run`, but for
    requests (``send_message`` waits for its reply): those are handled at once, by the project's handler or
    by what the test has given to `answer`.

    ``transaction.on_commit`` of a handler, or of a view, does what it does in every ``TestCase``: nothing,
    unless it is inside of ``captureOnCommitCallbacks(execute=True)``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._threads = BorrowedThreads()
        self._beside = Beside(self._threads)
        self._open = ExitStack()
        self._app: RabbitMQ | None = None

    def relay(self, using: str = DEFAULT_DB_ALIAS) -> None:
        """Send what is due in the outbox of a database, as the relay of ``rmq_consume`` does."""
        self._beside.call(self._relay(using))

    # --- its life --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        setting = {**getattr(django_settings, conf.NAME, {}), "URL": self._server.url}
        setting.pop("PASSWORD", None)  # that of another URL
        with ExitStack() as opened:
            opened.enter_context(memory_server(server=self._server))
            opened.enter_context(self._threads)
            opened.enter_context(mock.patch.object(publishing, "DjangoProducer", BorrowingProducer))
            opened.enter_context(override_settings(**{conf.NAME: setting}))
            self._beside.start()
            opened.callback(self._beside.stop)
            self._beside.call(self._start())
            opened.callback(lambda: self._beside.call(self._stop()))
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    @override
    def _apps(self) -> Sequence[RabbitMQ]:
        return [self._app] if self._app is not None else []

    @override
    def _call[T](self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._beside.call(coroutine)

    @override
    async def _acall[T](self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await sync_to_async(self._beside.call)(coroutine)

    # --- on the event loop beside ----------------------------------------------------------------

    async def _start(self) -> None:
        await self._begin()
        if not registry.discover().claims:
            return
        settings = conf.get_settings()
        store = store_for_tests(settings, self._threads)
        self._app = app = consuming.build_app(
            store=store, observers=(self._observe,), thread_pool=self._threads
        )
        if isinstance(store, DatabaseStore):
            store.outbox_flush = OutboxFlush(app.producer, settings, in_thread=in_pool(self._threads))
        await app.start_consuming()

    async def _stop(self) -> None:
        await signals.finish(PATIENCE)
        await self._end()
        if self._app is not None:
            await self._app.close()

    @override
    async def _finish(self, timeout: float) -> None:
        await signals.finish(timeout)

    async def _relay(self, using: str) -> None:
        producer = self._app.producer if self._app is not None else self._producer
        sender = Sender(producer, conf.get_settings(), using=using, in_thread=in_pool(self._threads))
        await sender.send_due()
