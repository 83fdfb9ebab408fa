"""Scheduled sends: by the delay line, not early and less than a second late, home to a queue that exists."""

import asyncio
import datetime as dt
from collections.abc import Callable

import pytest

from autosell_rmq import ConfigError, Message, PublishUnroutable, RabbitMQ
from tests.integration.app_fixtures import Stage
from tests.integration.stage_fixtures import MemoryStage

EARLY = 0.06  # seconds: what a broker's TTL may jitter


class Arrivals:
    """A handler that knows when each payload came."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.at: dict[object, float] = {}
        self.messages: list[Message] = []

    async def __call__(self, payload: int, message: Message) -> str:
        self.at[payload] = self._now()
        self.messages.append(message)
        return "handled"


async def consuming(app: RabbitMQ, stage: Stage) -> tuple[str, Arrivals]:
    queue = stage.queue()
    arrivals = Arrivals(stage.outside.now)
    app.handler(queue)(arrivals)
    await app.start_consuming()
    return queue, arrivals


async def test_a_delayed_message_comes_in_time(stage: Stage) -> None:
    app = stage.app()
    queue, arrivals = await consuming(app, stage)
    began = stage.outside.now()
    delays = {1: 1.0, 2: 1.5, 3: 3.0}
    for payload, delay in delays.items():
        await app.producer.send_fire_and_forget(queue, payload, delay=delay)
    at = dt.datetime.fromtimestamp(began + 2, dt.UTC).astimezone(dt.timezone(dt.timedelta(hours=5)))
    await app.producer.send_fire_and_forget(queue, 4, deliver_at=at)
    await app.producer.send_fire_and_forget(queue, 5)
    sent_within = stage.outside.now() - began

    await stage.until(lambda: len(arrivals.at) == 5)
    for payload, delay in (delays | {4: 2.0}).items():
        waited = arrivals.at[payload] - began
        assert delay - EARLY <= waited < delay + sent_within + 1, (payload, waited)
    assert arrivals.at[5] - began < 1
    assert app.statistics.retried == 0


@pytest.mark.parametrize(
    "delay", [0.2, 1, 1.04, 1.9, 2, 7.77, 59.5, 3600, 3 * 86400, 45 * 86400, 49.7 * 86400]
)
async def test_long_delays_take_several_hops_and_come_in_time(memory: MemoryStage, delay: float) -> None:
    app = memory.app()
    queue, arrivals = await consuming(app, memory)
    began = memory.clock.now()
    await app.producer.send_fire_and_forget(queue, 1, delay=delay)
    if delay > 2:
        await memory.pass_time(delay - 0.5)
        assert arrivals.at == {}
    await memory.pass_time(2)

    assert delay - EARLY <= arrivals.at[1] - began < delay + 1
    assert arrivals.messages[0].attempt == 1
    assert (arrivals.messages[0].first_exchange, arrivals.messages[0].first_routing_key) == ("", queue)


async def test_a_moment_weeks_ahead_survives_a_restart_of_the_consumer(memory: MemoryStage) -> None:
    app = memory.app()
    queue, arrivals = await consuming(app, memory)
    began = memory.clock.now()
    await app.producer.send_fire_and_forget(
        queue, 1, deliver_at=dt.datetime.fromtimestamp(began, dt.UTC) + dt.timedelta(weeks=2)
    )
    for _ in range(4):
        await app.stop_consuming()
        await memory.pass_time(dt.timedelta(days=3).total_seconds())
        await app.start_consuming()
    await memory.pass_time(dt.timedelta(days=3).total_seconds())
    # A hop that ended while nobody consumed goes on when somebody does: late then, but never early.
    assert list(arrivals.at) == [1]
    assert arrivals.at[1] - began >= dt.timedelta(weeks=2).total_seconds() - EARLY


@pytest.mark.parametrize("when", ["past", "zero"])
async def test_what_is_due_already_goes_at_once(stage: Stage, when: str) -> None:
    app = stage.app()
    queue, arrivals = await consuming(app, stage)
    past = dt.datetime.fromtimestamp(stage.outside.now() - 60, dt.UTC)
    if when == "past":
        await app.producer.send_fire_and_forget(queue, 1, deliver_at=past)
    else:
        await app.producer.send_fire_and_forget(queue, 1, delay=0)
    await stage.until(lambda: arrivals.at != {})
    assert arrivals.messages[0].due is None


async def test_a_delayed_send_to_a_missing_queue_is_unroutable(stage: Stage) -> None:
    producer = stage.producer()
    missing = stage.queue()
    for send in (
        producer.send_fire_and_forget(missing, 1, delay=5),
        producer.send_message(missing, 1, delay=5),
        producer.send_message(missing, 1, wait_for_response=False, delay=5),
    ):
        with pytest.raises(PublishUnroutable, match=missing):
            await send


async def test_a_delayed_request_gets_its_reply(stage: Stage) -> None:
    app = stage.app()
    queue, _ = await consuming(app, stage)
    began = stage.outside.now()
    asking = asyncio.create_task(app.producer.send_message(queue, 1, delay=1, timeout=10))
    await stage.until(asking.done)

    assert asking.result()["data"] == "handled"
    assert stage.outside.now() - began >= 1 - EARLY


async def test_a_delayed_duplicate_is_handled_once(stage: Stage) -> None:
    app = stage.app()
    queue, arrivals = await consuming(app, stage)
    for _ in range(3):
        await app.producer.send_fire_and_forget(queue, 1, delay=1, correlation_id="same")
    await stage.until(lambda: app.statistics.duplicates == 2)
    assert len(arrivals.messages) == 1


async def test_many_delayed_messages_keep_their_order_of_expiry(memory: MemoryStage) -> None:
    app = memory.app()
    queue, arrivals = await consuming(app, memory)
    began = memory.clock.now()
    for number in range(100):
        await app.producer.send_fire_and_forget(queue, number, delay=1 + (number * 37 % 100) / 10)
    await memory.pass_time(15)

    for number in range(100):
        delay = 1 + (number * 37 % 100) / 10
        assert delay - EARLY <= arrivals.at[number] - began < delay + 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"delay": -1}, "delay=-1"),
        ({"delay": "1"}, "delay='1'"),
        ({"delay": float("nan")}, "delay=nan"),
        ({"delay": 2**32}, f"delay={2**32}"),
        ({"deliver_at": dt.datetime(2030, 1, 1)}, "expected an aware datetime"),  # noqa: DTZ001
        ({"deliver_at": "2030-01-01"}, "deliver_at='2030-01-01'"),
        ({"delay": 1, "deliver_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)}, "twice"),
        ({"ttl": 0}, "ttl=0"),
        ({"deadline": dt.datetime(2030, 1, 1)}, "deadline="),  # noqa: DTZ001
        ({"headers": {"x-retry-count": 1}}, "'x-retry-count' is reserved"),
        ({"headers": {"x-autosell-due": 1}}, "'x-autosell-due' is reserved"),
    ],
)
async def test_an_option_that_makes_no_sense_is_named(
    memory: MemoryStage, options: dict[str, object], named: str
) -> None:
    queue = await memory.declared()
    with pytest.raises(ConfigError) as raised:
        await memory.producer().send_fire_and_forget(queue, 1, **options)  # type: ignore[arg-type]
    assert named in str(raised.value)
    assert await memory.depth(queue) == 0


async def test_an_event_cannot_be_delayed(memory: MemoryStage) -> None:
    with pytest.raises(ConfigError, match="delay= and deliver_at= lead to a queue"):
        await memory.producer().publish_to_exchange(memory.exchange(), "a", 1, delay=1)


async def test_a_deleted_hop_is_declared_again(memory: MemoryStage) -> None:
    app = memory.app()
    queue, arrivals = await consuming(app, memory)
    await app.producer.send_fire_and_forget(queue, 1, delay=8)
    await memory.delete_queue("autosell.delay.8s")
    await memory.delete_exchange("autosell.delay.8s")
    await app.producer.send_fire_and_forget(queue, 2, delay=8)
    await memory.delete_exchange("autosell.delay.8s")
    request = asyncio.create_task(app.producer.send_message(queue, 3, delay=8))
    await memory.has("autosell.delay.8s", 2)
    await memory.pass_time(10)
    assert (await request)["success"]
    assert list(arrivals.at) == [2, 3]
