"""A queue has its way home, whoever declared it and whoever sends a message through the delay line."""

import asyncio

import aio_pika
import pytest

from autosell_rmq import PublishUnroutable
from autosell_rmq.message import DUE, Properties
from autosell_rmq.topology import Queue, Topology
from tests.integration.app_fixtures import Stage
from tests.integration.homecoming_fixtures import Home, at_home
from tests.integration.stage_fixtures import MemoryStage, RabbitStage
from tests.support import services
from tests.support.homeless import homeless_of
from tests.support.inbox import Inbox
from tests.support.publications import send, to
from tests.support.waiting import PATIENCE, eventually


async def test_a_delayed_message_comes_to_a_queue_of_another_library(rabbit: RabbitStage) -> None:
    producer, queue = rabbit.producer(), rabbit.queue()
    connection = await aio_pika.connect(services.RABBITMQ_URL)
    async with connection:
        channel = await connection.channel()
        for body in (b"1", b"2"):  # the second queue of that name has no binding of the first one's
            theirs = await channel.declare_queue(queue, auto_delete=True)
            await producer.send_fire_and_forget(queue, int(body), delay=1)
            async with asyncio.timeout(PATIENCE), theirs.iterator() as messages:
                async for message in messages:
                    assert message.body == body
                    await message.ack()
                    break
            await channel.queue_delete(queue)


async def test_a_delayed_message_comes_to_a_queue_that_was_declared_anew(stage: Stage) -> None:
    producer, queue = stage.producer(), await stage.declared()
    for number in (b"1", b"2"):
        await producer.send_fire_and_forget(queue, int(number), delay=1)
        inbox = await Inbox.of(stage.outside, queue)
        await stage.until(lambda inbox=inbox: not inbox.deliveries.empty())
        delivery = await inbox.next()
        assert delivery.message.body == number
        await delivery.ack()
        await inbox.subscription.close()
        await stage.delete_queue(queue)
        await stage.outside.declare(Topology(queues=(Queue(name=queue),)))


async def test_what_is_not_due_comes_back_to_a_handler_without_retries(stage: Stage) -> None:
    queue = await stage.declared()
    app = stage.app(backoff=0.05, max_backoff=0.1)
    home = Home()
    app.handler(queue, declare=False, max_retries=0)(home)
    await app.start_consuming()
    for number in (1, 2):  # the second queue of that name has no binding of the first one's
        due = int(stage.outside.now() * 1000) + 1200
        await send(stage.outside, to(queue, b"%d" % number, Properties(headers={DUE: due})))
        await stage.until(lambda number=number: len(home.messages) == number)
        await stage.delete_queue(queue)
        await eventually(lambda: bool(app.problems))
        await stage.outside.declare(Topology(queues=(Queue(name=queue),)))
        await eventually(lambda: not app.problems)


async def test_a_retry_whose_queue_is_gone_holds_nothing_up(memory: MemoryStage) -> None:
    queue, other = await memory.declared(), memory.queue()
    app = memory.app(backoff=0.05, max_backoff=0.1)
    let_go = asyncio.Event()

    async def fail(payload: int) -> None:
        await let_go.wait()
        raise ValueError(payload)

    app.handler(queue, declare=False)(fail)
    home = await at_home(app, other)
    await send(memory.outside, to(queue, b"1"))
    await eventually(lambda: app.health.consumers[0].in_hand == 1)
    await memory.delete_queue(queue)
    let_go.set()
    await memory.pass_time(1)
    await homeless_of(memory.outside, queue, 1)
    await send(memory.outside, to(other, b"2"))
    await eventually(lambda: home.payloads == [2])


async def test_a_way_home_that_was_deleted_is_laid_again(memory: MemoryStage) -> None:
    producer, queue = memory.producer(), await memory.declared()
    await producer.send_fire_and_forget(queue, 1, delay=1)
    await memory.delete_exchange("autosell.home")
    await producer.send_fire_and_forget(queue, 2, delay=1)
    await memory.pass_time(1)
    await memory.has(queue, 2)

    await memory.delete_queue(queue)
    with pytest.raises(PublishUnroutable, match="no queue"):
        await producer.send_fire_and_forget(queue, 3, delay=1)


async def test_a_consumer_lays_the_way_home_for_what_waits_already(memory: MemoryStage) -> None:
    queue = memory.queue()
    await memory.outside.declare(Topology(queues=(Queue(name=queue),)))
    await memory.producer().send_fire_and_forget(queue, 1, delay=8)
    await memory.delete_queue(queue)
    home = await at_home(memory.app(), queue)
    await memory.pass_time(10)
    await eventually(lambda: home.payloads == [1])
