"""Odd ids, odd bodies, odd results, many duplicates: through a whole app with the store in the database."""

import asyncio
import itertools
import json
import threading
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from autosell_rmq import HandlerKwargs, Message, RabbitMQ, RabbitMQProducer
from autosell_rmq.testing import MemoryServer, memory_server
from autosell_rmq_django.connections import in_handler_thread
from autosell_rmq_django.models import IdempotencyRecord
from autosell_rmq_django.store import DatabaseStore
from tests.django import settings
from tests.django.shop.models import Effect
from tests.django.store_fixtures import effects, elsewhere, needs, records, states
from tests.support.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]

type Apps = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    with memory_server() as server:
        yield server


@pytest.fixture
async def consume(server: MemoryServer) -> AsyncIterator[Apps]:
    """Starts apps that consume, each as a process of its own would."""
    running: list[RabbitMQ] = []

    async def consume(
        *queues: str,
        handler: Callable[..., object],
        lock_timeout: float = 1.0,
        threads: int | None = None,
        **options: Any,  # noqa: ANN401
    ) -> RabbitMQ:
        store = DatabaseStore(lock_timeout=lock_timeout)
        app = RabbitMQ(
            server.url,
            store=store,
            thread_context=in_handler_thread,
            threads=threads,
            retry_delay=0.01,
            max_retry_delay=0.01,
        )
        given: HandlerKwargs = {**options}  # type: ignore[typeddict-item]
        for queue in queues:
            app.handler(queue, **given)(handler)
        await app.connect()
        await app.start_consuming()
        running.append(app)
        return app

    yield consume
    for app in running:
        await app.close()


def effect(data: Any, message: Message) -> dict[str, Any]:  # noqa: ANN401
    Effect.objects.create(key=message.queue, note=str(message.attempt))
    return {"got": data}


async def ask(server: MemoryServer, queue: str, data: object, identity: str) -> dict[str, Any]:
    async with RabbitMQProducer(server.url) as producer:
        return await producer.send_message(queue, data, timeout=PATIENCE, correlation_id=identity)


# --- ids ---------------------------------------------------------------------------------------------

NFC, NFD = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
FAMILY = ["AbC", "aBc", "abc", "abc ", " abc", "abc\t", NFC, NFD, "ß", "ss", "ı", "i", "I", "İ"]


async def test_ids_that_a_collation_would_merge_are_different(server: MemoryServer, consume: Apps) -> None:
    await consume("orders", handler=effect)

    for number, identity in enumerate(FAMILY):
        assert (await ask(server, "orders", number, identity))["data"] == {"got": number}
    for number, identity in enumerate(FAMILY):
        assert (await ask(server, "orders", "again", identity))["data"] == {"got": number}

    assert len(await elsewhere(effects)) == len(FAMILY)


@pytest.mark.parametrize(
    "identity",
    ["\x00", "a\x00b", "х" * 120, "x" * 255, "😀", "\r\n\x1b[31mred", "%s %(x)s {0}", "'; DROP TABLE x; --"],
    ids=repr,
)
async def test_an_odd_id_is_an_id(server: MemoryServer, consume: Apps, identity: str) -> None:
    await consume("orders", handler=effect)

    for data in (1, 2):
        assert (await ask(server, "orders", data, identity))["data"] == {"got": 1}

    assert len(await elsewhere(effects)) == 1
    shown = await elsewhere(lambda: IdempotencyRecord.objects.get().correlation_id)
    assert shown == identity.replace("\x00", "\\u0000")


async def test_one_id_in_two_queues_is_two_requests(server: MemoryServer, consume: Apps) -> None:
    await consume("orders", "returns", handler=effect)

    for queue in ("orders", "returns", "orders", "returns"):
        assert (await ask(server, queue, queue, "id"))["data"] == {"got": queue}

    assert await elsewhere(lambda: [len(effects(queue)) for queue in ("orders", "returns")]) == [1, 1]


async def test_without_an_id_nothing_is_recorded(server: MemoryServer, consume: Apps) -> None:
    """The seed's rule: it is handled without a claim, and counted."""
    app = await consume("orders", handler=effect, idempotency_key=None)

    for _ in range(2):
        await ask(server, "orders", 1, "id")

    assert (len(await elsewhere(effects)), await elsewhere(records)) == (2, 0)
    assert app.statistics.without_id == 2


# --- the same id, other data -------------------------------------------------------------------------


async def test_other_data_gets_the_first_result_and_a_flag(server: MemoryServer, consume: Apps) -> None:
    app = await consume("orders", handler=effect)
    first = await ask(server, "orders", "first", "id")

    second = await ask(server, "orders", "second", "id")

    assert second == first
    assert app.statistics.conflicts == 1
    assert len(await elsewhere(effects)) == 1


async def test_other_data_may_be_rejected(server: MemoryServer, consume: Apps) -> None:
    await consume("orders", handler=effect, on_conflict="reject")
    await ask(server, "orders", "first", "id")

    reply = await ask(server, "orders", "second", "id")

    assert reply["success"] is False
    assert reply["error_code"] == "rejected"
    assert server.queue("orders_dlq").depth == 1
    assert len(await elsewhere(effects)) == 1


# --- data and results --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["\x00", "a\x00b", "😀", 10**40, -1e308, [], {}, None, "\u2028", {"\x00": "\x00"}, "й" * 100_000],
    ids=lambda value: repr(value)[:20],
)
async def test_odd_data_comes_back_the_same(
    server: MemoryServer,
    consume: Apps,
    value: Any,  # noqa: ANN401
) -> None:
    """Results are bytes: PostgreSQL's JSON would refuse some of these."""
    await consume("orders", handler=lambda data: data)

    first = await ask(server, "orders", value, "id")
    again = await ask(server, "orders", value, "id")

    assert first["data"] == value
    assert first == again


async def test_a_lone_surrogate_in_a_result_is_a_failure_and_no_loop(
    server: MemoryServer, consume: Apps
) -> None:
    await consume("orders", handler=lambda data: "\ud800", max_retries=2)

    reply = await ask(server, "orders", 1, "id")

    assert reply["success"] is False
    assert server.queue("orders_dlq").depth == 1
    assert await elsewhere(states) == ["failed"]


async def test_a_result_over_the_limit_is_a_failure_and_no_loop(server: MemoryServer, consume: Apps) -> None:
    runs = itertools.count()

    def handler(data: Any) -> str:  # noqa: ANN401
        Effect.objects.create(key="effect")
        next(runs)
        return "x" * (17 * 1024 * 1024)

    await consume("orders", handler=handler, max_retries=2)

    reply = await ask(server, "orders", 1, "id")

    assert reply["success"] is False
    assert (next(runs), server.queue("orders_dlq").depth) == (1, 1)
    assert (await elsewhere(effects), await elsewhere(states)) == ([], ["failed"])


@needs("mariadb", why="only MySQL limits a statement, and closes the connection over it")
async def test_a_result_that_no_statement_carries_is_a_failure_and_no_loop(
    server: MemoryServer, consume: Apps
) -> None:
    runs = itertools.count()

    def handler(data: Any) -> str:  # noqa: ANN401
        Effect.objects.create(key="effect")
        next(runs)
        return "x" * (12 * 1024 * 1024)  # each takes two bytes in PyMySQL's statement

    await consume("orders", handler=handler, max_retries=2)

    reply = await ask(server, "orders", 1, "id")

    assert reply["success"] is False
    assert "max_allowed_packet" in reply["error"]
    assert (next(runs), server.queue("orders_dlq").depth) == (1, 1)
    assert (await elsewhere(effects), await elsewhere(states)) == ([], ["failed"])


async def test_a_large_result_is_kept(server: MemoryServer, consume: Apps) -> None:
    size = (7 if settings.KIND == "mariadb" else 15) * 1024 * 1024
    await consume("orders", handler=lambda data: "x" * size)

    first = await ask(server, "orders", 1, "id")
    again = await ask(server, "orders", 1, "id")

    assert len(first["data"]) == size
    assert first == again


async def test_a_failure_leaves_nothing_and_the_retry_succeeds(server: MemoryServer, consume: Apps) -> None:
    def handler(data: Any, message: Message) -> str:  # noqa: ANN401
        Effect.objects.create(key="effect", note=str(message.attempt))
        if message.attempt < 3:
            raise ValueError("not yet")
        return "done"

    await consume("orders", handler=handler, max_retries=5)

    assert (await ask(server, "orders", 1, "id"))["data"] == "done"
    assert await elsewhere(effects) == ["3"]
    assert await elsewhere(lambda: IdempotencyRecord.objects.get().attempt) == 3


# --- many duplicates ---------------------------------------------------------------------------------


@needs("postgres", "mariadb", why="on SQLite every handler waits for the one that writes")
async def test_many_duplicates_of_a_slow_handler_leave_threads_for_others(
    server: MemoryServer, consume: Apps
) -> None:
    """In its own process they wait without a thread; in another one at a time, for the lock timeout."""
    gate, begun = threading.Event(), threading.Event()

    def handler(data: Any) -> Any:  # noqa: ANN401
        Effect.objects.create(key=str(data))
        if data == "slow":
            begun.set()
            assert gate.wait(PATIENCE)
        return data

    apps = [await consume("orders", handler=handler, threads=2, prefetch=60) for _ in range(2)]
    slow = [asyncio.create_task(ask(server, "orders", "slow", "slow")) for _ in range(50)]
    await asyncio.to_thread(begun.wait, PATIENCE)

    for number in range(6):
        reply = await asyncio.wait_for(ask(server, "orders", number, f"quick-{number}"), 15)
        assert reply["data"] == number
    assert not any(task.done() for task in slow)
    gate.set()

    replies = await asyncio.gather(*slow)
    assert {json.dumps(reply) for reply in replies} == {json.dumps(replies[0])}
    assert len(await elsewhere(lambda: effects("slow"))) == 1
    assert sum(app.statistics.handled for app in apps) == 7


async def test_two_at_once_in_two_processes(server: MemoryServer, consume: Apps) -> None:
    first, second = [await consume("orders", handler=effect) for _ in range(2)]

    for number in range(20):
        replies = await asyncio.gather(*(ask(server, "orders", number, f"id-{number}") for _ in range(2)))
        assert replies[0] == replies[1]

    assert len(await elsewhere(effects)) == 20
    both = [first.statistics, second.statistics]
    assert sum(each.handled for each in both) == 20
    await eventually(lambda: sum(each.replies for each in both) == 40)
