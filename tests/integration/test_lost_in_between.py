"""A connection that is lost at any moment of a call: what is raised is ours, so that it is tried again."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from autosell_rmq import BrokerError
from autosell_rmq.brokers import create_broker
from autosell_rmq.config import Settings
from autosell_rmq.message import NO_HEADERS
from autosell_rmq.topology import Queue, Topology
from tests.integration.stage_fixtures import RabbitStage
from tests.support.amqp_proxy import alarming_proxy

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(60)]

CALLS = 60  # of each; of so many, two dozen are hit at a moment that matters


async def test_whatever_a_lost_connection_raises_is_a_broker_error(rabbit: RabbitStage) -> None:
    queue = await rabbit.declared()
    there = Topology(queues=(Queue(name=queue, passive=True),))
    lost = 0

    async def again_and_again(call: Callable[[], Awaitable[object]]) -> None:
        nonlocal lost
        for _ in range(CALLS):
            try:
                await call()
            except BrokerError:  # any other one fails the test
                lost += 1

    async def consumed() -> None:
        subscription = await broker.consume(
            queue, lambda _: None, prefetch=1, on_lost=lambda _: None, arguments=NO_HEADERS
        )
        await subscription.cancel()
        await subscription.close()

    async with alarming_proxy(rabbit.url) as between:
        broker = create_broker(Settings(url=between.url, backoff=0.01, max_backoff=0.02))
        await broker.open()
        cutting = asyncio.create_task(_cut(between.cut))
        try:
            async with asyncio.TaskGroup() as calls:
                calls.create_task(again_and_again(lambda: broker.declare(there)))
                calls.create_task(again_and_again(lambda: broker.depth(queue)))
                calls.create_task(again_and_again(consumed))
            assert lost
            cutting.cancel()
            await asyncio.gather(cutting, return_exceptions=True)
            assert await broker.depth(queue) == 0  # it is still kept
        finally:
            cutting.cancel()
            await broker.close()


async def _cut(cut: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(random.uniform(0.0, 0.03))
        cut()
