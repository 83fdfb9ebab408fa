"""Many messages on both brokers: each stored once, or refused with its reason."""

import asyncio
import json

from autosell_rmq import (
    BlockingProducer,
    Confirmed,
    PublishUnroutable,
    RabbitMQ,
    Refused,
    SyncRabbitMQProducer,
)
from autosell_rmq.topology import Exchange, QueueBinding, Topology
from tests.integration.app_fixtures import Stage
from tests.support.inbox import Inbox
from tests.support.names import unique


async def bodies(stage: Stage, queue: str, count: int) -> list[int]:
    inbox = await Inbox.of(stage.outside, queue, prefetch=count)
    return [json.loads(delivery.message.body) for delivery in await inbox.take(count)]


async def test_each_message_is_stored_once(stage: Stage) -> None:
    queue = await stage.declared()
    results = await stage.producer().send_many(queue, (n for n in range(500)), window=64)

    assert [type(result) for result in results] == [Confirmed] * 500
    assert sorted(await bodies(stage, queue, 500)) == list(range(500))
    await stage.has(queue, 0)


async def test_one_at_a_time_they_stay_in_order(stage: Stage) -> None:
    queue = await stage.declared()
    await stage.producer().send_many(queue, range(50), window=1)

    assert await bodies(stage, queue, 50) == list(range(50))


async def test_a_missing_queue_refuses_each(stage: Stage) -> None:
    results = await stage.producer().send_many(unique("missing"), range(20))

    assert len(results) == 20
    for result in results:
        assert isinstance(result, Refused)
        assert isinstance(result.error, PublishUnroutable)


async def test_events_nobody_is_bound_for_are_refused_and_the_others_stored(stage: Stage) -> None:
    queue, exchange = await stage.declared(), stage.exchange()
    bound = QueueBinding(exchange=exchange, routing_key="order.*", queue=queue)
    await stage.outside.declare(Topology(exchanges=(Exchange(name=exchange),), bindings=(bound,)))
    events = [("order.made" if n % 3 else "nobody.cares", n) for n in range(30)]

    results = await stage.producer().publish_many(exchange, events)

    assert [r.index for r in results if isinstance(r, Refused)] == list(range(0, 30, 3))
    assert sorted(await bodies(stage, queue, 20)) == [n for n in range(30) if n % 3]
    assert await stage.producer().publish_many(exchange, events, mandatory=False, only_failures=True) == []


async def test_the_sync_producer_has_both(stage: Stage) -> None:
    queue, exchange = await stage.declared(), stage.exchange()

    def send() -> list[type]:
        with SyncRabbitMQProducer(stage.url) as producer:
            sent = producer.send_many(queue, (n for n in range(300)), window=32)
            events = producer.publish_many(exchange, [("a", 1)], mandatory=False)
            return [type(result) for result in [*sent, *events]]

    assert await asyncio.to_thread(send) == [Confirmed] * 301
    assert sorted(await bodies(stage, queue, 300)) == list(range(300))


async def test_the_sync_producer_on_another_loop(stage: Stage) -> None:
    queue, exchange = await stage.declared(), stage.exchange()
    producer = SyncRabbitMQProducer(stage.url)
    try:
        sent = await producer.asend_many(queue, range(50), window=16)
        events = await producer.apublish_many(exchange, [("a", 1)], mandatory=False)
    finally:
        await asyncio.to_thread(producer.close)

    assert [type(result) for result in [*sent, *events]] == [Confirmed] * 51


async def test_a_sync_handler_sends_many(stage: Stage) -> None:
    source, target = stage.queue(), await stage.declared()
    app: RabbitMQ = stage.app()
    loop = asyncio.get_running_loop()

    @app.handler(source)
    def fan_out(data: int) -> int:
        return len(BlockingProducer(app.producer, loop).send_many(target, range(data)))

    await app.connect()
    await app.start_consuming()
    reply = await app.producer.send_message(source, 40)

    assert reply["data"] == 40
    await stage.has(target, 40)
