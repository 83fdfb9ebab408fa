"""A broker as acceptance tests need it: an address, names of their own, a look into queues."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aio_pika

from autosell_rmq.broker import Broker, Delivery
from autosell_rmq.brokers import create_broker
from autosell_rmq.config import Settings
from autosell_rmq.exceptions import QueueNotFound
from autosell_rmq.message import NO_HEADERS, Message, Properties, Publication
from autosell_rmq.testing import memory_server
from autosell_rmq.topology import Queue, Topology
from tests.support.names import unique
from tests.support.services import RABBITMQ_URL
from tests.support.waiting import eventually

PATIENCE = 15.0  # seconds


@dataclass(eq=False)
class Place:
    """One broker, seen beside the code under test; its queues and exchanges are deleted with it."""

    url: str
    broker: Broker
    queues: list[str] = field(default_factory=list)
    exchanges: list[str] = field(default_factory=list)

    @property
    def is_memory(self) -> bool:
        return self.url.startswith("memory:")

    def queue(self, purpose: str = "queue") -> str:
        """A name that nobody else uses; the queue and its ``…_dlq`` are deleted with the place."""
        name = unique(purpose)
        self.queues += [name, f"{name}_dlq"]
        return name

    async def declared(self, purpose: str = "queue") -> str:
        """A new queue that exists."""
        name = self.queue(purpose)
        await self.broker.declare(Topology(queues=(Queue(name=name),)))
        return name

    async def put(self, queue: str, body: bytes, properties: Properties | None = None) -> None:
        """Publish raw bytes."""
        publication = Publication(body=body, routing_key=queue, properties=properties or Properties())
        await self.broker.publish(publication, timeout=PATIENCE)

    async def take(self, queue: str) -> Message:
        """The next message of a queue, whenever it comes."""
        deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        await eventually(lambda: self.exists(queue))
        subscription = await self.broker.consume(
            queue, deliveries.put_nowait, prefetch=1, on_lost=print, arguments=NO_HEADERS
        )
        try:
            async with asyncio.timeout(PATIENCE):
                delivery = await deliveries.get()
                await delivery.ack()
        finally:
            await subscription.cancel()
        return delivery.message

    async def letter(self, dlq: str) -> dict[str, Any]:
        """The next dead letter's envelope."""
        envelope = json.loads((await self.take(dlq)).body)
        assert isinstance(envelope, dict)
        return envelope

    async def exists(self, queue: str) -> bool:
        try:
            await self.broker.declare(Topology(queues=(Queue(name=queue, passive=True),)))
        except QueueNotFound:
            return False
        return True


@dataclass(eq=False)
class RabbitPlace(Place):
    """RabbitMQ, with what only it can be asked from outside."""

    connection: aio_pika.abc.AbstractConnection | None = None

    async def consumers(self, queue: str) -> int:
        """How many consume it; 0 where it does not exist."""
        return (await self._count(queue))[1]

    async def depth(self, queue: str) -> int:
        """How many messages are ready."""
        return (await self._count(queue))[0]

    async def is_consumed(self, queue: str) -> None:
        """Wait until somebody consumes it."""

        async def consumed() -> bool:
            return await self.consumers(queue) > 0

        await eventually(consumed, within=30)

    async def has(self, queue: str, depth: int) -> None:
        """Wait until so many messages are ready."""

        async def reached() -> bool:
            return await self.depth(queue) == depth

        await eventually(reached)

    async def _count(self, queue: str) -> tuple[int, int]:
        assert self.connection is not None
        channel = await self.connection.channel()
        try:
            declared = await channel.declare_queue(queue, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return 0, 0
        finally:
            await channel.close()
        result = declared.declaration_result
        return result.message_count or 0, result.consumer_count or 0


@asynccontextmanager
async def memory_place() -> AsyncGenerator[Place]:
    with memory_server() as server:
        broker = create_broker(Settings(url=server.url))
        await broker.open()
        try:
            yield Place(server.url, broker)
        finally:
            await broker.close()


@asynccontextmanager
async def rabbit_place() -> AsyncGenerator[RabbitPlace]:
    async with await aio_pika.connect(RABBITMQ_URL) as connection:
        broker = create_broker(Settings(url=RABBITMQ_URL))
        await broker.open()
        place = RabbitPlace(RABBITMQ_URL, broker, connection=connection)
        try:
            yield place
        finally:
            await broker.close()
            channel = await connection.channel()
            for queue in place.queues:
                await channel.queue_delete(queue)
            for exchange in place.exchanges:
                await channel.exchange_delete(exchange)
