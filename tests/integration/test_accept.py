"""A message that is accepted here and handled elsewhere: sent under an id, and asked about by it."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from autosell_rmq import (
    Binding,
    ClosedError,
    ConfigError,
    EncodeError,
    IdConflict,
    MemoryStore,
    PublishNacked,
    PublishUnroutable,
    RabbitMQ,
    RedisStore,
    Reject,
    StoreUnavailable,
)
from autosell_rmq.testing import Crash, Faults, FaultyBroker, FaultyStore
from tests.contract.store_fixtures import REDIS_URL, redis_prefix
from tests.integration.app_fixtures import Gate, Stage
from tests.integration.stage_fixtures import MemoryStage
from tests.support.waiting import eventually


async def state(app: RabbitMQ, queue: str, sent: str) -> str | None:
    record = await app.lookup(queue, sent)
    return record.state if record is not None else None


def is_in_state(app: RabbitMQ, queue: str, sent: str, wanted: str) -> Callable[[], Any]:
    async def reached() -> bool:
        return await state(app, queue, sent) == wanted

    return reached


@pytest.mark.redis
async def test_gateway_and_consumer_share_a_store(stage: Stage) -> None:
    async with AsyncExitStack() as stack:
        prefix = stack.enter_context(redis_prefix())
        gateway, consumer = (stage.app(store=RedisStore(REDIS_URL, prefix=prefix)) for _ in range(2))
        queue = await stage.declared()
        gate, runs = Gate(), list[int]()

        @consumer.handler(queue, declare=False)
        async def handler(payload: int) -> int:
            runs.append(payload)
            await gate()
            if payload < 0:
                raise Reject("negative")
            return payload * 2

        await gateway.connect()
        assert await gateway.lookup(queue, "order-1") is None
        assert await gateway.accept(queue, 21, correlation_id="order-1") == "order-1"
        assert await state(gateway, queue, "order-1") == "accepted"
        await gateway.accept(queue, 21, correlation_id="order-1")
        await stage.has(queue, 2)  # the first may never have been sent

        await consumer.start_consuming()
        await eventually(is_in_state(gateway, queue, "order-1", "processing"))
        await gateway.accept(queue, 21, correlation_id="order-1")
        gate.open()
        await eventually(is_in_state(gateway, queue, "order-1", "done"))
        await gateway.accept(queue, 21, correlation_id="order-1")
        record = await gateway.lookup(queue, "order-1")
        assert record is not None
        assert record.data == b"42"

        await gateway.accept(queue, -1, correlation_id="order-2")
        await stage.until(is_in_state(gateway, queue, "order-2", "failed"))
        assert runs == [21, -1]
        await stage.has(f"{queue}_dlq", 1)


async def test_what_is_known_to_be_handled_is_not_sent_again(memory: MemoryStage) -> None:
    queue, gate = memory.queue(), Gate()
    app = memory.app()

    @app.handler(queue)
    async def handler(payload: int) -> int:
        await gate()
        return payload

    await app.start_consuming()
    sent = await app.accept(queue, 1)
    await gate.has(1)
    await app.accept(queue, 1, correlation_id=sent)
    gate.open()
    await memory.until(is_in_state(app, queue, sent, "done"))
    await app.accept(queue, 1, correlation_id=sent)
    await app.stop_consuming()

    assert (app.statistics.handled, app.statistics.duplicates, app.statistics.busy) == (1, 0, 0)
    assert await memory.depth(queue) == 0


async def test_what_failed_is_accepted_anew(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    gate, fixed = Gate(), list[bool]()

    @app.handler(queue)
    async def handler(payload: int) -> int:
        if not fixed:
            raise Reject("broken")
        await gate()
        return payload

    await app.start_consuming()
    sent = await app.accept(queue, 1)
    await stage.until(is_in_state(app, queue, sent, "failed"))
    await app.stop_consuming()
    fixed.append(True)

    await app.accept(queue, 1, correlation_id=sent)

    assert await state(app, queue, sent) == "accepted"
    await app.start_consuming()
    await gate.has(1)
    gate.open()
    await stage.until(is_in_state(app, queue, sent, "done"))


async def test_an_id_with_other_data_is_a_conflict(stage: Stage) -> None:
    queue = await stage.declared()
    app = stage.app()
    await app.connect()
    sent = await app.accept(queue, {"item": 1})

    with pytest.raises(IdConflict, match="used before with another body") as caught:
        await app.accept(queue, {"item": 2}, correlation_id=sent)

    assert (caught.value.queue, caught.value.correlation_id) == (queue, sent)
    await stage.has(queue, 1)
    await app.accept(queue, {"item": 1}, correlation_id=sent)


async def test_a_send_that_failed_is_made_good_by_the_next_call(stage: Stage) -> None:
    queue, faults = await stage.declared(), Faults()
    app = await stage.faulty_app(faults, outage_timeout=0)
    await app.connect()
    faults.on("publish", before=PublishNacked("full"))
    with pytest.raises(PublishNacked):
        await app.accept(queue, 1, correlation_id="id")
    assert await stage.depth(queue) == 0

    await app.accept(queue, 1, correlation_id="id")

    await stage.has(queue, 1)


async def test_a_note_comes_before_the_message(memory: MemoryStage) -> None:
    """Otherwise it could cover up that of a failure which was quicker."""
    queue, faults = await memory.declared(), Faults()
    held = faults.hold("note", "after")
    app = memory.app(store=FaultyStore(MemoryStore(), faults))
    await app.connect()
    task = asyncio.create_task(app.accept(queue, 1, correlation_id="id"))

    await held.reached.wait()

    assert await memory.depth(queue) == 0
    assert await state(app, queue, "id") == "accepted"
    held.released.set()
    await task
    assert await memory.depth(queue) == 1


async def test_a_gateway_that_dies_anywhere_loses_nothing_it_has_answered(memory: MemoryStage) -> None:
    async def attempt(queue: str, store: MemoryStore, faults: Faults) -> None:
        app = RabbitMQ(memory.url, store=FaultyStore(store, faults), broker=FaultyBroker(broker, faults))
        await app.connect()
        await app.accept(queue, 1, correlation_id="id")

    broker = await memory.connection()
    counting = Faults()
    await attempt(await memory.declared(), MemoryStore(), counting)
    assert "note:before" in counting.passed
    assert "publish:after" in counting.passed
    for n in range(1, counting.counter + 1):
        queue, store, faults = await memory.declared(), MemoryStore(), Faults(crash_at=n)
        with pytest.raises(Crash):
            await attempt(queue, store, faults)
        is_stored = "publish:after" in faults.passed
        assert await memory.depth(queue) == is_stored

        await attempt(queue, store, Faults())

        assert await memory.depth(queue) == 1 + is_stored


@pytest.mark.parametrize("point", ["lookup", "note"])
async def test_without_the_store_nothing_is_sent(stage: Stage, point: Any) -> None:  # noqa: ANN401
    queue, faults = await stage.declared(), Faults()
    app = stage.app(store=FaultyStore(MemoryStore(), faults))
    await app.connect()
    faults.on(point, before=StoreUnavailable("down"))

    with pytest.raises(StoreUnavailable):
        await app.accept(queue, 1, correlation_id="id")

    await app.accept(queue, 1, correlation_id="id")
    await stage.has(queue, 1)


async def test_what_cannot_be_sent_raises_as_a_send_does(stage: Stage) -> None:
    app = stage.app()
    await app.connect()

    with pytest.raises(EncodeError):
        await app.accept("nowhere", object(), correlation_id="id")
    assert await app.lookup("nowhere", "id") is None
    with pytest.raises(PublishUnroutable):
        await app.accept("nowhere", 1)


async def test_options_of_a_send_are_passed_on(memory: MemoryStage) -> None:
    queue = memory.queue()
    app = memory.app()

    @app.handler(queue)
    async def handler(payload: int) -> int:
        return payload

    await app.start_consuming()
    sent = await app.accept(queue, 1, delay=16.0)
    await memory.pass_time(15)
    assert await state(app, queue, sent) == "accepted"
    await memory.until(is_in_state(app, queue, sent, "done"))


async def test_a_handler_that_takes_another_id_is_named(memory: MemoryStage) -> None:
    app = memory.app()
    await app.connect()

    async def handler(payload: int) -> int:
        return payload

    app.handler("events", bind=Binding("events"))(handler)
    app.handler("unkeyed", idempotency_key=None)(handler)
    app.handler("own", idempotency_key=lambda message: message.correlation_id)(handler)

    for queue, named in (("events", "'message_id'"), ("unkeyed", "None")):
        with pytest.raises(ConfigError, match=f"{queue}.*idempotency_key={named}"):
            await app.accept(queue, 1)
        with pytest.raises(ConfigError, match=queue):
            await app.lookup(queue, "id")
    assert await app.lookup("own", "id") is None


async def test_an_app_that_is_not_connected_says_so(memory: MemoryStage) -> None:
    app = memory.app()
    for _ in range(2):
        with pytest.raises(ClosedError, match="connect"):
            await app.lookup("orders", "id")
        with pytest.raises(ClosedError, match="connect"):
            await app.accept("orders", 1)
        await app.connect()
        assert await app.lookup("orders", "id") is None
        await app.close()


async def test_a_store_in_memory_is_warned_of_where_no_handler_is(
    memory: MemoryStage, caplog: pytest.LogCaptureFixture
) -> None:
    queue = await memory.declared()
    app = memory.app()
    await app.connect()
    with caplog.at_level(logging.WARNING):
        await app.accept(queue, 1)
        await app.accept(queue, 1)
    assert caplog.text.count("this process's memory") == 1

    async def handler(payload: int) -> int:
        return payload

    caplog.clear()
    app = memory.app()
    app.handler(queue)(handler)
    await app.connect()
    await app.accept(queue, 1)
    assert caplog.text == ""
