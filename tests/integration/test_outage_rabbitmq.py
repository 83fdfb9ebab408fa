"""Sending while RabbitMQ is away for real: alarms, a cut line, a killed node."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Literal, Unpack

import pytest

from autosell_rmq import BrokerUnavailable, Message, RabbitMQ, RabbitMQProducer, ReplyTimeout, SettingsKwargs
from tests.integration.stage_fixtures import RabbitStage
from tests.support.amqp_proxy import AlarmingProxy, alarming_proxy
from tests.support.inbox import Inbox
from tests.support.names import unique
from tests.support.private_broker import PrivateBroker, private_broker
from tests.support.waiting import PATIENCE, eventually

pytestmark = pytest.mark.rabbitmq

CALLS = 200


def a_producer_behind(between: AlarmingProxy, **settings: Unpack[SettingsKwargs]) -> RabbitMQProducer:
    """One that comes back at once."""
    quick: SettingsKwargs = {"backoff": 0.05, "max_backoff": 0.1, **settings}
    return RabbitMQProducer(between.url, **quick)


async def accepts(producer: RabbitMQProducer, queue: str) -> bool:
    """Whether it sends a message at once."""
    try:
        await producer.send_fire_and_forget(queue, 0, outage_timeout=0)
    except BrokerUnavailable:
        return False
    return True


async def blocked(producer: RabbitMQProducer, between: AlarmingProxy, queue: str) -> None:
    """Wait until it knows of an alarm; meanwhile one message and more may be stored."""
    between.block()

    async def refuses() -> bool:
        return not await accepts(producer, queue)

    await eventually(refuses)


async def test_an_alarm_is_told_at_once(rabbit: RabbitStage) -> None:
    queue = await rabbit.declared()
    async with alarming_proxy(rabbit.url) as between, a_producer_behind(between) as producer:
        with pytest.raises(ReplyTimeout):
            await producer.send_message(queue, 0, timeout=0.1)
        await blocked(producer, between, queue)
        async with asyncio.timeout(5):
            for call in (
                producer.send_fire_and_forget(queue, 1),
                producer.send_message(queue, 1),
                producer.publish_to_exchange(rabbit.exchange(), "key", 1),
            ):
                with pytest.raises(BrokerUnavailable, match="a memory or disk alarm"):
                    await call
        between.unblock()
        await eventually(lambda: accepts(producer, queue))


async def test_an_alarm_is_waited_out_by_setting(rabbit: RabbitStage) -> None:
    queue = await rabbit.declared()
    async with (
        alarming_proxy(rabbit.url) as between,
        a_producer_behind(between, when_blocked="wait", publish_timeout=0.2) as producer,
    ):
        await blocked(producer, between, queue)
        stored = await rabbit.depth(queue)
        with pytest.raises(BrokerUnavailable, match="a memory or disk alarm"):
            await producer.send_fire_and_forget(queue, 1, outage_timeout=0.5)
        calls = [
            asyncio.create_task(producer.send_fire_and_forget(queue, 2)),
            asyncio.create_task(producer.send_message(queue, 3, timeout=PATIENCE)),
        ]
        await asyncio.wait(calls, timeout=0.5)
        assert not any(call.done() for call in calls)
        between.unblock()
        await calls[0]
        await rabbit.has(queue, stored + 2)
        calls[1].cancel()


async def test_messages_in_an_outage_arrive_and_no_ids_are_new(rabbit: RabbitStage) -> None:
    queue = await rabbit.declared()
    async with alarming_proxy(rabbit.url) as between, a_producer_behind(between) as producer:
        await producer.connect()
        before = [asyncio.create_task(producer.send_fire_and_forget(queue, n)) for n in range(50)]
        between.cut()
        await between.stop()
        during = [asyncio.create_task(producer.send_fire_and_forget(queue, n)) for n in range(50, 100)]
        await between.start()
        sent = await asyncio.gather(*before, *during)

        messages: list[Message] = []
        inbox = await Inbox.of(rabbit.outside, queue, prefetch=1000)
        while {message.correlation_id for message in messages} != set(sent):
            messages.append((await inbox.next()).message)
        assert {int(message.body) for message in messages} == set(range(100))
        ids = {message.correlation_id: message.message_id for message in messages}
        assert all(ids[message.correlation_id] == message.message_id for message in messages)


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateBroker]:
    with private_broker() as node:
        yield node


@pytest.mark.timeout(180)
@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_calls_outlive_the_broker_that_is_killed(
    node: PrivateBroker, queue_type: Literal["quorum", "classic"]
) -> None:
    """Two hundred are in flight, and messages, events and further calls come while it is away."""
    queue = unique("orders")
    effects: Counter[int] = Counter()
    async with RabbitMQ(node.url, prefetch=20, queue_type=queue_type, startup_timeout=60) as app:

        @app.handler(queue)
        async def double(number: int) -> int:
            await asyncio.sleep(0.02)
            effects[number] += 1
            return number * 2

        await app.start_consuming()
        async with RabbitMQProducer(node.url) as producer:
            await producer.send_message(queue, -1)
            await asyncio.sleep(2)  # or RabbitMQ loses a quorum queue that is younger
            calls = [asyncio.create_task(producer.send_message(queue, n, timeout=90)) for n in range(CALLS)]
            await eventually(lambda: effects.total() > CALLS // 4)
            assert producer.requests_in_flight > CALLS // 4
            node.kill()
            later = [
                asyncio.create_task(producer.send_message(queue, CALLS + n, timeout=90, outage_timeout=90))
                for n in range(20)
            ]
            messages = [
                asyncio.create_task(producer.send_fire_and_forget(queue, 2 * CALLS + n, outage_timeout=90))
                for n in range(20)
            ]
            await asyncio.to_thread(node.start)
            replies = await asyncio.gather(*calls, *later)
            await asyncio.gather(*messages)

        assert [reply["data"] for reply in replies] == [n * 2 for n in range(CALLS + 20)]
        numbers = [-1, *range(CALLS + 20), *range(2 * CALLS, 2 * CALLS + 20)]
        await eventually(lambda: len(effects) == len(numbers))
        assert effects == Counter(numbers)
