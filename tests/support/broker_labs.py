"""A place to try a broker in: opens it, looks behind its back, and leaves nothing there."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, Self, override
from urllib.parse import urlsplit, urlunsplit

import aio_pika

from autosell_rmq.broker import Broker
from autosell_rmq.brokers import create_broker
from autosell_rmq.brokers.memory import MemoryServer, VirtualClock
from autosell_rmq.config import Settings
from autosell_rmq.message import NO_HEADERS, Headers
from autosell_rmq.testing import memory_server
from autosell_rmq.topology import Exchange, Queue, Topology
from tests.support.names import unique
from tests.support.proxy import proxy
from tests.support.services import RABBITMQ_URL
from tests.support.waiting import PATIENCE


class BrokerLab(Protocol):
    """What the contract suite needs to know of a broker beyond the seam."""

    async def open(self) -> Broker:
        """Another connection, opened; closed with the lab."""
        ...

    async def open_cuttable(self) -> tuple[Broker, Callable[[], None]]:
        """A connection, and a function that cuts it from outside."""
        ...

    async def queue(self, broker: Broker, arguments: Headers = NO_HEADERS) -> str:
        """A new queue, deleted with the lab."""
        ...

    async def exchange(self, broker: Broker, type_: str) -> str:
        """A new exchange, deleted with the lab."""
        ...

    def new_exchange(self) -> str:
        """A name for one; it is deleted with the lab."""
        ...

    async def depth(self, queue: str) -> int:
        """How many messages are ready."""
        ...

    async def delete_queue(self, queue: str) -> None: ...

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass where time is virtual; elsewhere it passes by itself."""
        ...


class _Lab(BrokerLab):
    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._queues: list[str] = []
        self._exchanges: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _open(self, url: str) -> Broker:
        broker = create_broker(Settings(url=url, startup_timeout=PATIENCE))
        await broker.open()
        self._stack.push_async_callback(broker.close)
        return broker

    @override
    async def queue(self, broker: Broker, arguments: Headers = NO_HEADERS) -> str:
        name = unique("queue")
        self._queues.append(name)
        await broker.declare(Topology(queues=(Queue(name=name, arguments=arguments),)))
        return name

    @override
    async def exchange(self, broker: Broker, type_: str) -> str:
        name = self.new_exchange()
        await broker.declare(Topology(exchanges=(Exchange(name=name, type=type_),)))
        return name

    @override
    def new_exchange(self) -> str:
        name = unique("exchange")
        self._exchanges.append(name)
        return name


class MemoryLab(_Lab):
    """A server of its own, on a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = VirtualClock()
        self._server: MemoryServer = self._stack.enter_context(memory_server(clock=self._clock))

    @override
    async def open(self) -> Broker:
        return await self._open(self._server.url)

    @override
    async def open_cuttable(self) -> tuple[Broker, Callable[[], None]]:
        return await self.open(), self._server.close_connections

    @override
    async def depth(self, queue: str) -> int:
        return self._server.queue(queue).depth

    @override
    async def delete_queue(self, queue: str) -> None:
        self._server.delete_queue(queue)

    @override
    async def pass_time(self, seconds: float) -> None:
        await self._clock.advance(seconds)


class RabbitLab(_Lab):
    """The server of the environment, seen by a plain connection of the lab's."""

    def __init__(self) -> None:
        super().__init__()
        self._connection: aio_pika.abc.AbstractConnection

    @override
    async def __aenter__(self) -> Self:
        self._connection = await aio_pika.connect(RABBITMQ_URL)
        self._stack.push_async_callback(self._connection.close)
        self._stack.push_async_callback(self._clean)
        return self

    @override
    async def open(self) -> Broker:
        return await self._open(RABBITMQ_URL)

    @override
    async def open_cuttable(self) -> tuple[Broker, Callable[[], None]]:
        url = urlsplit(RABBITMQ_URL)
        between = await self._stack.enter_async_context(proxy(url.hostname or "", url.port or 5672))
        login = url.netloc.rpartition("@")[0]
        address = urlunsplit(url._replace(netloc=f"{login}@127.0.0.1:{between.port}"))
        return await self._open(address), between.cut

    @override
    async def depth(self, queue: str) -> int:
        async def count(channel: aio_pika.abc.AbstractChannel) -> int:
            declared = await channel.declare_queue(queue, passive=True)
            return declared.declaration_result.message_count or 0

        return await self._on_channel(count)

    @override
    async def delete_queue(self, queue: str) -> None:
        async def delete(channel: aio_pika.abc.AbstractChannel) -> None:
            await channel.queue_delete(queue)

        await self._on_channel(delete)

    @override
    async def pass_time(self, seconds: float) -> None:
        pass

    async def _clean(self) -> None:
        async def clean(channel: aio_pika.abc.AbstractChannel) -> None:
            for queue in self._queues:
                await channel.queue_delete(queue)
            for exchange in self._exchanges:
                await channel.exchange_delete(exchange)

        await self._on_channel(clean)

    async def _on_channel[T](self, use: Callable[[aio_pika.abc.AbstractChannel], Awaitable[T]]) -> T:
        channel = await self._connection.channel()
        try:
            return await use(channel)
        finally:
            await channel.close()
