"""RabbitMQ behind the seam: one connection that consumes and acks, one that publishes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aiormq.abc import AbstractChannel

from autosell_rmq import forks
from autosell_rmq.broker import Delivery
from autosell_rmq.brokers.rabbitmq import declaring, tls
from autosell_rmq.brokers.rabbitmq.connecting import connect, open_channel
from autosell_rmq.brokers.rabbitmq.consuming import RabbitSubscription
from autosell_rmq.brokers.rabbitmq.publishing import Publisher
from autosell_rmq.brokers.rabbitmq.requesting import RabbitRequester
from autosell_rmq.brokers.rabbitmq.supervising import SupervisedConnection
from autosell_rmq.config import Settings
from autosell_rmq.exceptions import BrokerError, BrokerUnavailable
from autosell_rmq.message import DIRECT_REPLY_TO, Headers, Message, Publication
from autosell_rmq.topology import Topology

logger = logging.getLogger(__name__)

_DYING = 1.0  # seconds from the first sign of a lost connection to the client library's seeing it


class RabbitBroker:
    """Two connections, each opened on first use and kept: an alarm that blocks publishers must not stop acks.

    Publishing has three channels, so that one's failure stays its own: one for queues, one for named
    exchanges (a missing one closes its channel), one for replies (a malformed reply address does).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closed = True
        self._consumes = False
        self._consuming = SupervisedConnection(settings, "consume", connect)
        self._publishing = SupervisedConnection(settings, "publish", connect)
        self._reset()
        forks.watch(self)

    @property
    def vhost(self) -> str:
        return self._settings.broker_url.vhost

    now = staticmethod(time.time)

    @property
    def problem(self) -> str | None:
        return self._publishing.problem

    @property
    def blocked(self) -> bool:
        return self._publishing.is_blocked

    @property
    def reconnects(self) -> int:
        return self._publishing.reconnects + self._consuming.reconnects

    async def open(self) -> None:
        _quiet_client_logs()
        tls.warn_if_insecure(self._settings)
        was_closed = self._closed
        if was_closed:
            self._reset()
            self._closed = False
        publishing = self._publishing
        try:
            await publishing.open()
        except BaseException:
            if publishing is self._publishing:  # else it was closed and opened anew meanwhile
                self._closed = was_closed
            raise

    async def close(self) -> None:
        was_closed, self._closed = self._closed, True
        await asyncio.gather(self._consuming.close(), self._publishing.close())
        if not was_closed:
            logger.info("disconnected from RabbitMQ at %s", self._settings.broker_url)

    async def declare(self, topology: Topology) -> None:
        timeout = self._settings.connect_timeout
        await declaring.declare(await self._asking.get(timeout), topology, timeout=timeout)

    async def depth(self, queue: str) -> int:
        timeout = self._settings.connect_timeout
        return await declaring.depth(await self._asking.get(timeout), queue, timeout=timeout)

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
        if not self._consumes:
            await self._consuming.open()
            self._consumes = True
        channel = await self._channel(self._consuming, timeout, confirms=False)
        subscription = RabbitSubscription(channel, queue, on_lost)
        try:
            await subscription.start(on_delivery, prefetch, arguments, timeout)
        except BaseException:  # or a consumer that nobody knows of would take messages
            await subscription.close()
            raise
        return subscription

    async def open_requester(
        self, on_reply: Callable[[Message], None], *, on_lost: Callable[[BrokerError], None]
    ) -> RabbitRequester:
        timeout = self._settings.connect_timeout
        requester = RabbitRequester(await self._confirm_channel(timeout), on_lost, self._publishing.unblocked)
        try:
            await requester.start(on_reply, timeout)
        except BaseException:
            await requester.close()
            raise
        return requester

    def after_fork(self) -> None:
        """In a forked child: closed, and what it had is the parent's."""
        forks.leave(self._consuming, self._publishing)
        forks.leave(self._to_queues, self._to_exchanges, self._to_requesters)
        self._closed = True
        self._reset()

    def _reset(self) -> None:
        """Start without connections; they and their locks belong to the loop that opens them."""
        self._consumes = False
        self._consuming = SupervisedConnection(self._settings, "consume", connect)
        self._publishing = SupervisedConnection(self._settings, "publish", connect)
        self._to_queues = self._publisher()
        self._to_exchanges = self._publisher()
        self._to_requesters = self._publisher()

    @property
    def _asking(self) -> SupervisedConnection:
        """For channels of a moment: where there is one that an alarm does not block, by that.

        A consumer that is lost during an alarm must come back: to consume is what ends the alarm.
        """
        return self._consuming if self._consumes else self._publishing

    def _publisher(self) -> Publisher:
        return Publisher(self._confirm_channel, self._publishing.unblocked)

    async def _confirm_channel(self, timeout: float) -> AbstractChannel:
        return await self._channel(self._publishing, timeout, confirms=True)

    async def _channel(
        self, connection: SupervisedConnection, timeout: float, *, confirms: bool
    ) -> AbstractChannel:
        """Open one within `timeout` seconds, on the next connection where one is lost meanwhile."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            left = deadline - asyncio.get_running_loop().time()
            live = await connection.get(left)
            try:
                return await open_channel(live, min(self._settings.connect_timeout, left), confirms=confirms)
            except BrokerUnavailable:
                await asyncio.wait([live.closing], timeout=_DYING)
                if not live.is_closed:
                    raise


def _quiet_client_logs() -> None:
    """The client's own records speak of frames and carry tracebacks; ours say what matters, once."""
    for name in ("aiormq", "aio_pika"):
        client = logging.getLogger(name)
        if client.level == logging.NOTSET:
            client.setLevel(logging.CRITICAL)
