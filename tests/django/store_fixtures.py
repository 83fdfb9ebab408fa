"""Stores on the database of the run, calls for them, and looks at what is in it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections

from autosell_rmq import Call, Stored, ThreadPool
from autosell_rmq.pipeline.in_thread import HandlerThreads
from autosell_rmq_django.connections import in_handler_thread
from autosell_rmq_django.models import IdempotencyRecord
from autosell_rmq_django.store import DatabaseStore
from autosell_rmq_django.store.exactly_once import ExactlyOnce
from autosell_rmq_django.store.table import Table
from tests.django import settings
from tests.django.shop.models import Effect
from tests.support.waiting import PATIENCE

KEY, OTHER_KEY = "0123456789abcdef" * 4, "f" * 64
FIRST, OTHER = "1" * 64, "2" * 64

type Connect = Callable[..., Awaitable[DatabaseStore]]


class Threads:
    """Threads of handlers, as an app has them."""

    def __init__(self, size: int = 8) -> None:
        self.pool = ThreadPool(size, name="handler-of-a-test", at_end=connections.close_all)
        self.run = HandlerThreads(self.pool, in_handler_thread, queue="orders", timeout=60)

    def call(
        self,
        function: Callable[[], bytes],
        *,
        queue: str = "orders",
        correlation_id: str | None = "id-1",
        attempt: int = 1,
    ) -> Call:
        """A sync handler, bound to its message."""

        async def run() -> bytes:
            return await self.run(function)

        return Call(
            run=run,
            run_sync=function,
            in_thread=self.run,
            cancellable=False,
            queue=queue,
            correlation_id=correlation_id,
            attempt=attempt,
        )

    def end(self) -> None:
        for thread in self.pool.stop():
            thread.join(PATIENCE)


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads()
    yield threads
    await asyncio.to_thread(threads.end)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens stores on the same table, as other processes would."""
    opened: list[DatabaseStore] = []

    async def connect(**options: Any) -> DatabaseStore:  # noqa: ANN401
        store = DatabaseStore(**{"lock_timeout": 1.0, **options})
        opened.append(store)
        await store.open()
        return store

    yield connect
    for store in opened:
        await store.close()


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite waits a second for its one writer, as the other databases do for a lock in these tests."""
    if settings.KIND == "sqlite":
        options = connections["default"].settings_dict["OPTIONS"]
        monkeypatch.setitem(options, "timeout", 1)


def exactly_once(database: str = "default") -> ExactlyOnce:
    """What a thread of a handler runs."""
    return ExactlyOnce(Table(database, lock_timeout=1.0), lease=60.0, ttl=60.0)


class Work:
    """A sync handler that writes an effect.

    Attributes:
        runs: how often it was begun.
        gate: it waits for this one, holding the transaction, when there is one.
        then: called after the effect.
        using: alias of the database that gets the effect.
    """

    def __init__(
        self,
        result: bytes = b'{"n":1}',
        *,
        key: str = "effect",
        gate: threading.Event | None = None,
        then: Callable[[], object] | None = None,
        using: str = "default",
    ) -> None:
        self.result = result
        self.key = key
        self.gate = gate
        self.then = then
        self.using = using
        self.runs = 0
        self.started = threading.Event()

    def __call__(self) -> bytes:
        self.runs += 1
        Effect.objects.using(self.using).create(key=self.key, note=str(self.runs))
        self.started.set()
        if self.gate is not None and not self.gate.wait(PATIENCE):
            raise TimeoutError("the test never opened the gate")
        if self.then is not None:
            self.then()
        return self.result


async def elsewhere[T](function: Callable[[], T]) -> T:
    """Run it in a thread, on a connection that is closed afterwards: the ORM is not for event loops."""

    def run() -> T:
        try:
            return function()
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)


def effects(key: str | None = None) -> list[str]:
    """The notes of the effects that are committed."""
    rows = Effect.objects.all() if key is None else Effect.objects.filter(key=key)
    return list(rows.order_by("id").values_list("note", flat=True))


def record() -> IdempotencyRecord:
    """The only one."""
    return IdempotencyRecord.objects.get()


def reply() -> bytes | None:
    """What the only record has stored."""
    stored = record().reply
    return None if stored is None else bytes(stored)


def records() -> int:
    return IdempotencyRecord.objects.count()


def states() -> list[str]:
    """Of all records."""
    return list(IdempotencyRecord.objects.values_list("state", flat=True))


async def started(work: Work) -> None:
    assert await asyncio.to_thread(work.started.wait, PATIENCE)


def needs(*kinds: str, why: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(settings.KIND not in kinds, reason=why)


def done(data: bytes, *, duplicate: bool, fingerprint: str = FIRST) -> Stored:
    return Stored(data=data, fingerprint=fingerprint, duplicate=duplicate)


@contextmanager
def other_way(**changes: Any) -> Generator[str]:  # noqa: ANN401
    """The alias ``other`` leads to the default database for a while: through a proxy, under other rules.

    It has to be among the databases of the test; only threads that are new then go the other way.
    """
    there = connections.settings["other"]
    before = dict(there)
    options = {**connections.settings["default"]["OPTIONS"], **changes.pop("OPTIONS", {})}
    there.update({**connections.settings["default"], **changes, "OPTIONS": options})
    try:
        yield "other"
    finally:
        there.clear()
        there.update(before)
