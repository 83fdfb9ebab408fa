"""Sending while the broker is away: the same message again, within bounds, and in the end the truth."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from autosell_rmq import (
    BrokerUnavailable,
    ClosedError,
    ConfigError,
    EncodeError,
    PublishError,
    PublishNacked,
    PublishUnknown,
    PublishUnroutable,
    RabbitMQProducer,
    SettingsKwargs,
)
from autosell_rmq.message import Message
from autosell_rmq.testing import Faults, FaultyBroker, cancel_caller
from autosell_rmq.topology import Exchange, QueueBinding, Topology
from tests.integration.stage_fixtures import MemoryStage
from tests.support.inbox import Inbox
from tests.support.waiting import eventually

SHORT: SettingsKwargs = {"outage_timeout": 0.3, "publish_timeout": 0.1}

type Send = Callable[..., Coroutine[Any, Any, None]]


class World:
    """A queue, a producer whose broker can be made to fail, and three ways to send to the queue."""

    def __init__(self, stage: MemoryStage, queue: str, exchange: str) -> None:
        self.stage = stage
        self.queue = queue
        self.exchange = exchange
        self.faults = Faults()
        self.producer = RabbitMQProducer()

    async def connect(self, **settings: Any) -> None:  # noqa: ANN401 - those of a producer
        broker = FaultyBroker(await self.stage.connection(), self.faults)
        self.producer = RabbitMQProducer(self.stage.url, broker=broker, **settings)
        await self.producer.connect()
        self.stage.stack.push_async_callback(self.producer.close)

    async def message(self, data: object = 1, **options: Any) -> None:  # noqa: ANN401 - see SendOptions
        await self.producer.send_fire_and_forget(self.queue, data, **options)

    async def unanswered(self, data: object = 1, **options: Any) -> None:  # noqa: ANN401
        await self.producer.send_message(self.queue, data, wait_for_response=False, **options)

    async def event(self, data: object = 1, **options: Any) -> None:  # noqa: ANN401
        await self.producer.publish_to_exchange(self.exchange, "key", data, **options)

    @property
    def attempts(self) -> int:
        """How many there were to publish, or to declare what an event needs."""
        passed = self.faults.passed
        return passed.count("publish:before") + passed.count("declare:before") - passed.count("declare:after")

    async def stored(self, count: int) -> list[Message]:
        """What lies in the queue, which is so much."""
        await self.stage.has(self.queue, count)
        inbox = await Inbox.of(self.stage.outside, self.queue, prefetch=count)
        return [delivery.message for delivery in await inbox.take(count)]


@pytest.fixture
async def world(memory: MemoryStage) -> World:
    queue, exchange = await memory.declared(), memory.exchange()
    bound = QueueBinding(exchange=exchange, routing_key="key", queue=queue)
    await memory.outside.declare(Topology(exchanges=(Exchange(name=exchange),), bindings=(bound,)))
    world = World(memory, queue, exchange)
    await world.connect()
    return world


@pytest.fixture(params=["message", "unanswered", "event"])
def send(world: World, request: pytest.FixtureRequest) -> Send:
    send: Send = getattr(world, request.param)
    return send


# --- the same message again ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [BrokerUnavailable, PublishNacked, PublishUnknown])
async def test_what_failed_in_passing_is_sent_again(
    world: World, send: Send, error: type[PublishError]
) -> None:
    world.faults.on("publish", before=error, times=2)
    await send()
    [_] = await world.stored(1)
    assert world.attempts == 3


async def test_what_was_stored_without_a_confirm_is_sent_again_under_its_ids(
    world: World, send: Send
) -> None:
    world.faults.on("publish", after=PublishUnknown)
    await send(headers={"h": 1})
    first, second = await world.stored(2)
    assert first.message_id
    assert first.properties == second.properties
    assert first.body == second.body


async def test_an_outage_is_waited_out(world: World, send: Send, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="autosell_rmq.waiting")
    await world.connect()
    world.stage.server.stop()
    calls = [asyncio.create_task(send(n)) for n in range(20)]
    await eventually(lambda: world.attempts >= 40)
    assert not any(call.done() for call in calls)
    world.stage.server.start()
    await asyncio.gather(*calls)
    assert {message.body for message in await world.stored(20)} == {b"%d" % n for n in range(20)}
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in said] == [
        "messages wait to be sent",
        "no message waits to be sent any more",
    ]


async def test_an_event_is_declared_again_after_the_broker_came_back_empty(world: World) -> None:
    await world.event()
    await world.stage.delete_exchange(world.exchange)
    await world.event(mandatory=False)  # nobody is bound, and that is all right
    await world.stage.delete_exchange(world.exchange)
    with pytest.raises(PublishUnroutable, match="key"):
        await world.event()
    assert world.faults.passed.count("declare:before") == 3


async def test_what_an_event_or_a_delay_needs_is_waited_for_too(world: World) -> None:
    world.faults.on("declare", before=BrokerUnavailable, times=2)
    await world.event()
    world.faults.on("declare", before=BrokerUnavailable, times=2)
    await world.message(delay=4)
    assert world.attempts == 6


# --- how it ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [BrokerUnavailable, PublishNacked, PublishUnknown])
async def test_patience_ends_and_the_last_word_is_told(
    world: World, send: Send, error: type[PublishError]
) -> None:
    await world.connect(**SHORT)
    world.faults.on("publish", before=error, times=-1)
    async with asyncio.timeout(5):
        with pytest.raises(error, match="injected"):
            await send()
    assert world.attempts > 1


async def test_a_refusal_is_not_repeated_longer_than_a_confirm_may_take(world: World) -> None:
    await world.connect(outage_timeout=60, publish_timeout=0.2)
    world.faults.on("publish", before=PublishNacked, times=-1)
    async with asyncio.timeout(5):
        with pytest.raises(PublishNacked):
            await world.message()
    assert world.attempts > 1


@pytest.mark.parametrize("earlier", [0, 1])
@pytest.mark.parametrize("later", [BrokerUnavailable, PublishNacked, PublishUnroutable])
async def test_once_it_may_be_stored_nothing_later_makes_it_unstored(
    world: World, send: Send, earlier: int, later: type[PublishError]
) -> None:
    await world.connect(**SHORT)
    world.faults.on("publish", before=BrokerUnavailable, times=earlier)
    world.faults.on("publish", before=PublishUnknown)
    world.faults.on("publish", before=later, times=-1)
    with pytest.raises(PublishUnknown, match="may be stored; then: injected") as raised:
        await send()
    assert isinstance(raised.value.__cause__, later)


@pytest.mark.parametrize("error", [PublishUnroutable, EncodeError])
async def test_what_waiting_does_not_mend_is_told_at_once(world: World, error: type[Exception]) -> None:
    world.faults.on("publish", before=error, times=-1)
    with pytest.raises(error):
        await world.message()
    assert world.attempts == 1


@pytest.mark.parametrize("error", [BrokerUnavailable, PublishNacked, PublishUnknown])
async def test_without_patience_there_is_one_attempt(
    world: World, send: Send, error: type[PublishError]
) -> None:
    world.faults.on("publish", before=error, times=-1)
    with pytest.raises(error):
        await send(outage_timeout=0)
    assert world.attempts == 1


async def test_without_patience_an_outage_is_told_at_once(
    world: World, send: Send, caplog: pytest.LogCaptureFixture
) -> None:
    world.stage.server.stop()
    with pytest.raises(BrokerUnavailable):
        await send(outage_timeout=0)
    assert world.attempts == 1
    assert "wait" not in caplog.text


async def test_without_patience_a_lost_connection_is_still_opened_again(world: World, send: Send) -> None:
    await send()
    world.stage.server.close_connections()
    await send(outage_timeout=0)
    await world.stored(2)


@pytest.mark.parametrize("given", [-1, "1", True, float("nan")])
async def test_a_patience_that_is_none_is_refused(world: World, send: Send, given: object) -> None:
    with pytest.raises(ConfigError, match=r"outage_timeout=.*: expected a number of seconds >= 0"):
        await send(outage_timeout=given)
    with pytest.raises(ConfigError, match="outage_timeout="):
        RabbitMQProducer(outage_timeout=given)  # type: ignore[arg-type]
    assert world.attempts == 0


# --- bounds, cancellation, the end ----------------------------------------------------------------------


async def waits(world: World, *calls: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    """Calls that have begun to wait."""
    before = world.attempts
    tasks = [asyncio.create_task(call) for call in calls]
    await eventually(lambda: world.attempts >= before + len(calls))
    return tasks


async def test_so_many_wait_and_no_more(world: World, send: Send) -> None:
    await world.connect(max_waiting=2)
    world.stage.server.stop()
    first, second = await waits(world, send(), send())
    with pytest.raises(BrokerUnavailable, match=r"2 are waiting \(max_waiting=2\)"):
        await send()
    first.cancel()
    await asyncio.wait([first])
    [third] = await waits(world, send())
    world.stage.server.start()
    await asyncio.gather(second, third)
    assert first.cancelled()
    await world.stage.has(world.queue, 2)


async def test_so_many_bytes_wait_and_no_more(world: World, send: Send) -> None:
    await world.connect(max_waiting_bytes=100)
    world.stage.server.stop()
    [first] = await waits(world, send("x" * 60))
    with pytest.raises(BrokerUnavailable, match=r"67 bytes and 67 are waiting \(max_waiting_bytes=100\)"):
        await send("y" * 60)
    with pytest.raises(BrokerUnavailable, match="max_waiting_bytes=100"):
        await send("", headers={"long": "z" * 60})
    [second] = await waits(world, send("z" * 20))
    first.cancel()
    await asyncio.wait([first])
    [third] = await waits(world, send("x" * 60))
    world.stage.server.start()
    await asyncio.gather(second, third)


async def test_over_the_bounds_what_may_be_stored_is_said_to_be(world: World, send: Send) -> None:
    await world.connect(max_waiting=0)
    world.faults.on("publish", after=PublishUnknown)
    with pytest.raises(PublishUnknown, match=r"does not wait for it, since 0 are waiting \(max_waiting=0\)"):
        await send()
    await send()  # with the broker there, nothing waits
    await world.stored(2)


async def test_many_in_flight_are_not_many_that_wait(world: World, send: Send) -> None:
    await world.connect(max_waiting=1)
    hold = world.faults.hold("publish", times=-1)
    calls = [asyncio.create_task(send()) for _ in range(20)]
    await eventually(lambda: world.attempts == 20)
    hold.released.set()
    await asyncio.gather(*calls)
    await world.stored(20)


async def test_a_cancelled_attempt_gives_its_place_back(world: World, send: Send) -> None:
    await world.connect(max_waiting=1)
    await send()
    world.stage.server.stop()
    world.faults.on("publish", before=cancel_caller)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(send())
    [second] = await waits(world, send())
    second.cancel()


@pytest.mark.parametrize(
    ("fault", "told"), [(BrokerUnavailable, ClosedError), (PublishUnknown, PublishUnknown)]
)
async def test_close_ends_the_wait(
    world: World, send: Send, fault: type[PublishError], told: type[Exception]
) -> None:
    await world.connect()
    world.faults.on("publish", before=fault, times=-1)
    [call] = await waits(world, send())
    await world.producer.close()
    async with asyncio.timeout(1):
        with pytest.raises(told, match="closed"):
            await call
