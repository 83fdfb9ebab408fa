"""A connection to a server in memory: the seam."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import override

from autosell_rmq.broker import Broker, Delivery
from autosell_rmq.brokers.memory.consumer import MemoryConsumer
from autosell_rmq.brokers.memory.registry import named_server
from autosell_rmq.brokers.memory.requester import MemoryRequester
from autosell_rmq.brokers.memory.server import MemoryServer
from autosell_rmq.config import Settings
from autosell_rmq.exceptions import BrokerError, BrokerUnavailable, ClosedError
from autosell_rmq.message import Headers, Message, Publication
from autosell_rmq.topology import Topology


class MemoryBroker(Broker):
    """Connects on demand: a lost connection is there again for the next call, as long as the server runs.

    Every verb gives the loop a turn after it took effect, as a network would: a caller that is
    cancelled there has published, or acked, all the same.

    Args:
        settings: its URL names the server.
        server: this one instead.
    """

    def __init__(self, settings: Settings, *, server: MemoryServer | None = None) -> None:
        url = settings.broker_url
        self.server = server or named_server(url.host, url.vhost)
        self._consumers: list[MemoryConsumer] = []
        self._requesters: list[MemoryRequester] = []
        self._closed = False
        self._used = False
        self._lost = False
        self._reconnects = 0

    @property
    @override
    def vhost(self) -> str:
        return self.server.vhost

    @override
    def now(self) -> float:
        return self.server.clock.now()

    @property
    @override
    def problem(self) -> str | None:
        if self._closed or not self._used:
            return "not connected to the server in memory"
        return None if self.server.running else "not connected: the server in memory is stopped"

    @property
    @override
    def blocked(self) -> bool:
        return False

    @property
    @override
    def reconnects(self) -> int:
        return self._reconnects

    @override
    async def open(self) -> None:
        self._closed = False
        self._connect()
        await asyncio.sleep(0)

    @override
    async def close(self) -> None:
        self._closed = True
        self.drop(BrokerUnavailable("the connection was closed"))

    @override
    async def declare(self, topology: Topology) -> None:
        self._connect()
        self.server.declare(topology)
        await asyncio.sleep(0)

    @override
    async def depth(self, queue: str) -> int:
        self._connect()
        await asyncio.sleep(0)
        return self.server.queue(queue).depth

    @override
    async def publish(self, publication: Publication, *, timeout: float) -> None:
        self._connect()
        self.server.publish(publication)
        await asyncio.sleep(0)

    @override
    async def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        on_lost: Callable[[BrokerError], None],
        arguments: Headers,
    ) -> MemoryConsumer:
        self._connect()
        priority = arguments.get("x-priority", 0)
        with self.server.lock:
            consumer = MemoryConsumer(
                self.server.queue(queue),
                on_delivery,
                on_lost,
                prefetch=prefetch,
                priority=priority if isinstance(priority, int) else 0,
            )
            self._consumers = [*(other for other in self._consumers if other.is_open), consumer]
            consumer.queue.consumers.append(consumer)
            consumer.queue.dispatch()
        await asyncio.sleep(0)
        return consumer

    @override
    async def open_requester(
        self, on_reply: Callable[[Message], None], *, on_lost: Callable[[BrokerError], None]
    ) -> MemoryRequester:
        self._connect()
        requester = MemoryRequester(self.server, on_reply, on_lost)
        self._requesters.append(requester)
        await asyncio.sleep(0)
        return requester

    def drop(self, error: BrokerError) -> None:
        """The connection is gone, with every channel on it."""
        with self.server.lock:
            for consumer in self._consumers:
                consumer.stop(error)
            # Only now, or what comes back from one consumer would go out to the next.
            for consumer in self._consumers:
                consumer.drop(error)
            for requester in self._requesters:
                requester.drop(error)
            self._consumers, self._requesters = [], []
            self.server.detach(self)
            self._lost = not self._closed

    def _connect(self) -> None:
        if self._closed:
            raise ClosedError("the broker was closed")
        self.server.attach(self)
        self._used = True
        if self._lost:
            self._lost = False
            self._reconnects += 1
