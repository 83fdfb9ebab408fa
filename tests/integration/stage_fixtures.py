"""The two stages: a server in memory on a clock of its own, and the real RabbitMQ."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import aio_pika
import pika  # type: ignore[import-untyped]

from autosell_rmq.broker import Broker
from autosell_rmq.brokers import create_broker
from autosell_rmq.brokers.memory import MemoryServer, VirtualClock
from autosell_rmq.config import Settings
from autosell_rmq.exceptions import QueueNotFound
from autosell_rmq.message import Publication
from autosell_rmq.testing import memory_server
from tests.integration.app_fixtures import Stage
from tests.support import services
from tests.support.publications import send
from tests.support.waiting import PATIENCE


class MemoryStage(Stage):
    """A server of its own, on a clock that stands still unless `until` or `pass_time` moves it."""

    def __init__(
        self, server: MemoryServer, clock: VirtualClock, outside: Broker, stack: AsyncExitStack
    ) -> None:
        super().__init__("memory", server.url, outside, stack)
        self.server = server
        self.clock = clock

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    async def depth(self, queue: str) -> int:
        try:
            return self.server.queue(queue).depth
        except QueueNotFound:
            return 0

    async def send_bare(self, queue: str, body: bytes) -> None:
        await send(self.outside, Publication(body=body, routing_key=queue))

    async def delete_queue(self, queue: str) -> None:
        self.server.delete_queue(queue)

    async def delete_exchange(self, exchange: str) -> None:
        self.server.delete_exchange(exchange)


class RabbitStage(Stage):
    """The real server, where time passes by itself."""

    def __init__(
        self, connection: aio_pika.abc.AbstractConnection, outside: Broker, stack: AsyncExitStack
    ) -> None:
        super().__init__("rabbitmq", services.RABBITMQ_URL, outside, stack)
        self._watching = connection

    async def depth(self, queue: str) -> int:
        channel = await self._watching.channel()
        try:
            declared = await channel.declare_queue(queue, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return 0
        else:
            return declared.declaration_result.message_count or 0
        finally:
            await channel.close()

    async def send_bare(self, queue: str, body: bytes) -> None:
        def publish() -> None:  # by another client: aio-pika stamps an id on everything
            with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
                connection.channel().basic_publish("", queue, body)

        await asyncio.to_thread(publish)

    async def delete_queue(self, queue: str) -> None:
        channel = await self._watching.channel()
        await channel.queue_delete(queue)
        await channel.close()

    async def delete_exchange(self, exchange: str) -> None:
        channel = await self._watching.channel()
        await channel.exchange_delete(exchange)
        await channel.close()


@asynccontextmanager
async def memory_stage() -> AsyncGenerator[MemoryStage]:
    clock = VirtualClock()
    with memory_server(clock=clock) as server:
        async with AsyncExitStack() as stack:
            outside = create_broker(Settings(url=server.url))
            await outside.open()
            stack.push_async_callback(outside.close)
            yield MemoryStage(server, clock, outside, stack)


@asynccontextmanager
async def rabbit_stage() -> AsyncGenerator[RabbitStage]:
    services.require("rabbitmq")
    connection = await aio_pika.connect(services.RABBITMQ_URL)
    async with connection:
        outside = create_broker(Settings(url=services.RABBITMQ_URL, startup_timeout=PATIENCE))
        await outside.open()
        stack = AsyncExitStack()
        stage = RabbitStage(connection, outside, stack)
        try:
            yield stage
        finally:
            await stack.aclose()
            await outside.close()
            channel = await connection.channel()
            for queue in stage.queues:
                await channel.queue_delete(queue)
            for exchange in stage.exchanges:
                await channel.exchange_delete(exchange)
