"""The whole way: a message, its handler's transaction, the outbox, the reply, the ack."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from autosell_rmq import PublishUnknown, RabbitMQ
from autosell_rmq.brokers import create_broker
from autosell_rmq.config import Settings
from autosell_rmq.testing import Faults, FaultyBroker, MemoryServer
from autosell_rmq_django.connections import in_handler_thread
from autosell_rmq_django.publishing import producer
from autosell_rmq_django.relay import OutboxFlush
from autosell_rmq_django.store import DatabaseStore
from tests.django.outbox_fixtures import (
    add_queue,
    connected,
    memory_setting,
    messages,
    quick,
    run,
    sent,
    unsent,
)
from tests.django.shop.models import Effect
from tests.support.waiting import PATIENCE, eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def server() -> Iterator[MemoryServer]:
    with memory_setting() as server:
        add_queue(server, "events")
        yield server


@asynccontextmanager
async def consuming(handler: Callable[[dict[str, Any]], object], faults: Faults) -> AsyncGenerator[RabbitMQ]:
    """An app as `build_app` makes it, with this handler for ``work``."""
    settings = quick()
    broker = FaultyBroker(create_broker(Settings.build(settings.url)), faults)
    await broker.open()
    store = DatabaseStore()
    app = RabbitMQ(
        broker=broker, store=store, thread_context=in_handler_thread, backoff=0.01, max_backoff=0.05
    )
    app.handler("work")(handler)
    store.outbox_flush = OutboxFlush(app.producer, settings)
    async with app:
        await app.start_consuming()
        yield app
    await broker.close()


async def ask(correlation_id: str = "request") -> object:
    async with connected(quick()) as requester:
        reply = await requester.send_message(
            "work", {"id": 1}, timeout=PATIENCE, correlation_id=correlation_id
        )
        return reply["data"]


def work(data: dict[str, Any]) -> str:
    Effect.objects.create(key=str(data["id"]))
    producer.send_on_commit("events", ["first", data["id"]])
    producer.send_on_commit("events", ["second", data["id"]])
    return "done"


def test_the_messages_of_a_handler_go_out_after_its_commit_and_before_its_reply(server: MemoryServer) -> None:
    faults = Faults()
    hold = faults.hold("publish")

    async def main() -> None:
        async with consuming(work, faults):
            asking = asyncio.create_task(ask())
            await hold.reached.wait()
            assert await sync_to_async(_state_seen_elsewhere)() == (1, 2), "committed, and not yet sent"
            assert sent(server, "events") == []
            assert not asking.done()
            assert server.queue("work").unacked == 1
            hold.released.set()
            assert await asking == "done"
            assert sent(server, "events") == [["first", 1], ["second", 1]]

    run(main())

    assert _state() == (1, 0)


def test_a_flush_that_fails_holds_the_reply_back_until_a_duplicate_has_sent(server: MemoryServer) -> None:
    faults = Faults()
    faults.on("publish", before=PublishUnknown, skip=1)

    async def main() -> None:
        async with consuming(work, faults):
            assert await ask() == "done"

    run(main())

    assert sent(server, "events") == [["first", 1], ["second", 1]]
    assert _state() == (1, 0)


def test_a_handler_that_fails_sends_nothing(server: MemoryServer) -> None:
    runs: list[int] = []

    def fails_once(data: dict[str, Any]) -> str:
        runs.append(1)
        work({"id": len(runs)})
        if len(runs) == 1:
            raise ValueError
        return "done"

    async def main() -> None:
        async with consuming(fails_once, Faults()):
            assert await ask() == "done"

    run(main())

    assert sent(server, "events") == [["first", 2], ["second", 2]]
    assert _state() == (1, 0)


def test_what_a_crash_left_behind_is_sent_with_the_next_duplicate(server: MemoryServer) -> None:
    async def without_flush() -> None:
        async with consuming(work, Faults()) as app:
            store = app.store
            assert isinstance(store, DatabaseStore)
            store.outbox_flush = None
            assert await ask() == "done"

    async def with_flush() -> None:
        async with consuming(work, Faults()):
            assert await ask() == "done"

    run(without_flush())
    assert sent(server, "events") == []
    ids = [row.message_id for row in unsent()]
    run(with_flush())

    assert [message.message_id for message in messages(server, "events")] == ids
    assert _state() == (1, 0)


def test_an_unroutable_message_does_not_hold_the_reply_up(server: MemoryServer) -> None:
    def sends_to_nobody(data: dict[str, Any]) -> str:
        producer.send_on_commit("nobody", data)
        return "done"

    async def main() -> None:
        async with consuming(sends_to_nobody, Faults()):
            assert await ask() == "done"
            await eventually(lambda: server.queue("work").unacked == 0)

    run(main())

    [row] = unsent()
    assert row.error.startswith("PublishUnroutable")


def test_duplicates_at_the_same_time_send_once(server: MemoryServer) -> None:
    async def main() -> None:
        async with consuming(work, Faults()), consuming(work, Faults()):
            assert await asyncio.gather(*(ask() for _ in range(6))) == ["done"] * 6

    run(main())

    assert sent(server, "events") == [["first", 1], ["second", 1]]


def _state() -> tuple[int, int]:
    """How many effects there are, and how many messages wait."""
    return Effect.objects.count(), len(unsent())


def _state_seen_elsewhere() -> tuple[int, int]:
    """The same from another thread, whose connection nobody else closes."""
    try:
        return _state()
    finally:
        connections.close_all()
