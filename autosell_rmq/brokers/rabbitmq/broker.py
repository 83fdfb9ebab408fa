"""RabbitMQ behind the seam: one connection that consumes and acks, one that publishes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aio_pika import Connection
from aiormq.abc import AbstractChannel, AbstractConnection

from autosell_rmq.broker import Delivery
from autosell_rmq.brokers.rabbitmq import declaring, errors
from autosell_rmq.brokers.rabbitmq.connecting import connect, underlying
from autosell_rmq.brokers.rabbitmq.consuming import RabbitSubscription
from autosell_rmq.brokers.rabbitmq.publishing import Publisher
from autosell_rmq.brokers.rabbitmq.requesting import RabbitRequester
from autosell_rmq.config import Settings
from autosell_rmq.exceptions import BrokerError, BrokerUnavailable, ClosedError
from autosell_rmq.message import DIRECT_REPLY_TO, Headers, Message, Publication
from autosell_rmq.topology import Topology

logger = logging.getLogger(__name__)


class RabbitBroker:
    """Connects on demand, over two connections: an alarm that blocks publishers must not stop acks.

    Publishing has three channels, so that one's failure stays its own: one for queues, one for named
    exchanges (a missing one closes its channel), one for replies (a malformed reply address does).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closed = True
        self._connections: dict[str, Connection] = {}
        self._reset()

    @property
    def vhost(self) -> str:
        return self._settings.broker_url.vhost

    def now(self) -> float:
        return time.time()

    async def open(self) -> None:
        _quiet_client_logs()
        if self._closed:
            self._reset()
            self._closed = False
        try:
            await self._connection("publish")
        except BaseException:
            self._closed = True
            raise

    async def close(self) -> None:
        self._closed = True
        connections, self._connections = list(self._connections.values()), {}
        for connection in connections:
            try:
                async with asyncio.timeout(5):
                    await connection.close()
            except (*errors.LOST, OSError, TimeoutError) as error:
                logger.debug("while closing: %s", error)
        if connections:
            logger.info("disconnected from RabbitMQ at %s", self._settings.broker_url)

    async def declare(self, topology: Topology) -> None:
        connection = await self._connection("publish")
        await declaring.declare(connection, topology, timeout=self._settings.connect_timeout)

    async def depth(self, queue: str) -> int:
        connection = await self._connection("publish")
        return await declaring.depth(connection, queue, timeout=self._settings.connect_timeout)

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        if publication.exchange:
            publisher = self._to_exchanges
        elif publication.routing_key.startswith(DIRECT_REPLY_TO):
            publisher = self._to_requesters
        else:
            publisher = self._to_queues
        await publisher.publish(publication, timeout=timeout)

    async def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        on_lost: Callable[[BrokerError], None],
        arguments: Headers,
    ) -> RabbitSubscription:
        timeout = self._settings.connect_timeout
        connection = await self._connection("consume")
        channel = await _open(connection, timeout, confirms=False)
        subscription = RabbitSubscription(channel, queue, on_lost)
        await subscription.start(on_delivery, prefetch, arguments, timeout)
        return subscription

    async def open_requester(
        self, on_reply: Callable[[Message], None], *, on_lost: Callable[[BrokerError], None]
    ) -> RabbitRequester:
        requester = RabbitRequester(await self._confirm_channel(), on_lost)
        await requester.start(on_reply, self._settings.connect_timeout)
        return requester

    def _reset(self) -> None:
        """Start without connections; they and the locks belong to the loop that opens them."""
        self._connections = {}
        self._connecting = asyncio.Lock()
        self._to_queues = Publisher(self._confirm_channel)
        self._to_exchanges = Publisher(self._confirm_channel)
        self._to_requesters = Publisher(self._confirm_channel)

    async def _confirm_channel(self) -> AbstractChannel:
        return await _open(await self._connection("publish"), self._settings.connect_timeout, confirms=True)

    async def _connection(self, purpose: str) -> AbstractConnection:
        """The connection for `purpose`, opened now where there is none or it was lost."""
        async with self._connecting:
            if self._closed:
                raise ClosedError("the connection is not open")
            current = self._connections.get(purpose)
            if current is not None:
                try:
                    return underlying(current)
                except BrokerUnavailable:
                    del self._connections[purpose]
            self._connections[purpose] = connection = await connect(self._settings, purpose)
            return underlying(connection)


async def _open(connection: AbstractConnection, timeout: float, *, confirms: bool) -> AbstractChannel:
    try:
        with errors.bare_cancellation(BrokerUnavailable):
            return await connection.channel(
                publisher_confirms=confirms, on_return_raises=True, timeout=timeout
            )
    except BrokerUnavailable:
        raise
    except (*errors.LOST, TimeoutError) as error:
        raise BrokerUnavailable(f"no channel could be opened: {errors.broker_text(error)}") from None


def _quiet_client_logs() -> None:
    """The client's own records speak of frames and carry tracebacks; ours say what matters, once."""
    for name in ("aiormq", "aio_pika"):
        client = logging.getLogger(name)
        if client.level == logging.NOTSET:
            client.setLevel(logging.CRITICAL)
