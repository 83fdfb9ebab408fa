"""The producer: requests, messages without an answer, events. Every publish is confirmed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, Unpack, override

from autosell_rmq import forks
from autosell_rmq.broker import Broker
from autosell_rmq.brokers import create_broker
from autosell_rmq.config import Settings, SettingsKwargs, from_environment, joined
from autosell_rmq.config.check import one_of, seconds
from autosell_rmq.exceptions import ClosedError
from autosell_rmq.message import Publication, SendOptions, printable
from autosell_rmq.producer import publications
from autosell_rmq.producer.many import SendsMany
from autosell_rmq.producer.outgoing import Outgoing
from autosell_rmq.waiting import OpeningTurn

logger = logging.getLogger(__name__)


class RabbitMQProducer(SendsMany):
    """Sends messages; connects on first use, and concurrent first uses share one connection.

    ::

        async with RabbitMQProducer() as producer:
            reply = await producer.send_message("orders", {"item": 1})

    Args:
        connection_url: by default ``RABBITMQ_URL``, else ``amqp://guest:guest@localhost/``; a list for
            several hosts.
        broker: publish over this one, which stays its owner's to open and close.
        settings: see `Settings`.
    """

    def __init__(
        self,
        connection_url: str | Sequence[str] | None = None,
        *,
        broker: Broker | None = None,
        **settings: Unpack[SettingsKwargs],
    ) -> None:
        self._settings = Settings.build(joined(connection_url) or from_environment().url, **settings)
        self._owns_broker = broker is None
        self._broker = broker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting: OpeningTurn | None = None
        self._outgoing: Outgoing | None = None
        self._late = 0
        self._closed = False
        forks.watch(self)

    @property
    def late_replies(self) -> int:
        """Replies that came after their request had been given up."""
        return self._late + (self._outgoing.requests.late if self._outgoing is not None else 0)

    @property
    def requests_in_flight(self) -> int:
        """Requests that wait for their reply right now."""
        return self._outgoing.requests.in_flight if self._outgoing is not None else 0

    def use(self, broker: Broker) -> None:
        """Publish over another broker from now on; for the app that it belongs to.

        Raises:
            ClosedError: it is connected.
        """
        if self._outgoing is not None:
            raise ClosedError("the producer is connected: close it before it gets another broker")
        self._broker = broker

    async def connect(self) -> None:
        """Connect now, instead of on the first send; after `close` it opens the producer again.

        Raises:
            BrokerUnavailable: no answer within ``startup_timeout``.
            AccessRefused: login, vhost or permission.
        """
        self._closed = False
        await self._ready()

    async def send_message(
        self,
        queue_name: str,
        message_data: object,
        wait_for_response: bool = True,
        timeout: float = 30.0,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> dict[str, Any]:
        """Send a request and return its reply: success or failure, as the other side put it.

        A call under a `correlation_id` that was handled before gets the stored reply.

        Args:
            queue_name: an existing queue.
            message_data: anything that pydantic writes as JSON.
            wait_for_response: False returns ``{"correlation_id": …, "sent": True}`` once it is confirmed.
            timeout: seconds to wait for the reply.
            correlation_id: by default a new one.
            options: see `SendOptions`.

        Raises:
            ReplyTimeout: no reply in time; the request may still be handled.
            PublishUnroutable: there is no such queue.
            PublishNacked: the broker refused it.
            PublishUnknown: it was not confirmed; send it again under the same correlation id.
            BrokerUnavailable: not connected.
            EncodeError: the data is no JSON, or too large.
        """
        seconds("timeout", timeout)
        outgoing = self._connected or await self._ready()
        publication = self._to_queue(queue_name, message_data, correlation_id, options)
        sent_as = publication.properties.correlation_id or ""
        if not wait_for_response:
            await self._publish(outgoing, publication, options)
            return {"correlation_id": sent_as, "sent": True}
        logger.info("request to queue %s, correlation_id=%s", queue_name, printable(sent_as))
        patience = self._patience(options)
        reply = await outgoing.ask(publication, queue=queue_name, timeout=timeout, patience=patience)
        logger.info("reply from queue %s, correlation_id=%s", queue_name, printable(sent_as))
        return reply

    @override
    async def send_fire_and_forget(
        self,
        queue_name: str,
        message_data: object,
        *,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> str:
        """Send without waiting for an answer; returns the correlation id once the broker has it stored.

        Raises:
            PublishUnroutable, PublishNacked, PublishUnknown, BrokerUnavailable: as `send_message`.
            EncodeError: the data is no JSON, or too large.
        """
        outgoing = self._connected or await self._ready()
        publication = self._to_queue(queue_name, message_data, correlation_id, options)
        await self._publish(outgoing, publication, options)
        return publication.properties.correlation_id or ""

    @override
    async def publish_to_exchange(
        self,
        exchange_name: str,
        routing_key: str,
        message_data: object,
        exchange_type: str = "topic",
        *,
        correlation_id: str | None = None,
        mandatory: bool = True,
        **options: Unpack[SendOptions],
    ) -> str:
        """Publish an event; returns the correlation id once every bound queue has it stored.

        The exchange is declared (durable) on first use.

        Args:
            exchange_name: the exchange.
            routing_key: what bindings match, such as ``order.created``.
            message_data: anything that pydantic writes as JSON.
            exchange_type: ``topic``, ``direct``, ``fanout`` or ``headers``.
            correlation_id: by default a new one; pass the flow's on.
            mandatory: False lets an event go that no queue is bound for.
            options: see `SendOptions`; an event cannot be delayed.

        Raises:
            PublishUnroutable: no queue is bound for it.
            TopologyMismatch: the exchange exists with another type.
            PublishNacked, PublishUnknown, BrokerUnavailable, EncodeError: as `send_message`.
        """
        outgoing = self._connected or await self._ready()
        kind = getattr(exchange_type, "value", exchange_type)  # 0.1.4 took the client library's enum
        one_of("exchange_type", kind, "topic", "direct", "fanout", "headers")
        publication = publications.to_exchange(
            exchange_name,
            routing_key,
            message_data,
            correlation_id,
            options,
            now=self._live().now(),
            limit=self._settings.max_body_bytes,
            mandatory=mandatory,
        )
        await self._publish(outgoing, publication, options, kind)
        return publication.properties.correlation_id or ""

    async def close(self) -> None:
        """Give up pending requests (`ClosedError`) and disconnect. Idempotent."""
        if self._closed:
            return
        self._closed = True
        outgoing, self._outgoing = self._outgoing, None
        self._loop = self._connecting = None
        if outgoing is not None:
            self._late += outgoing.requests.late
            await outgoing.close()
        if self._owns_broker and self._broker is not None:
            await self._broker.close()

    def after_fork(self) -> None:
        """In a forked child: not connected, until its first call there."""
        forks.leave(self._loop, self._connecting, self._outgoing)
        self._loop = self._connecting = self._outgoing = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _connected(self) -> Outgoing | None:
        return self._outgoing if self._loop is asyncio.get_running_loop() else None

    async def _ready(self) -> Outgoing:
        """What a connected producer sends with, on the loop that it was connected on."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ClosedError("the producer is closed: make a new one")
        if self._loop is not None and self._loop is not loop:
            raise ClosedError(
                "the producer belongs to another event loop: make one per loop, or use SyncRabbitMQProducer"
            )
        if self._outgoing is not None:
            return self._outgoing
        self._loop = loop
        turn = self._connecting = self._connecting or OpeningTurn()
        async with turn.take():
            if turn is not self._connecting:
                raise ClosedError("the producer was closed while it connected")
            if self._outgoing is None:
                self._broker = self._broker or create_broker(self._settings)  # now, so that `close` closes it
                if self._owns_broker:
                    await self._broker.open()
                self._outgoing = Outgoing(self._broker, self._settings)
            return self._outgoing

    def _live(self) -> Broker:
        assert self._broker is not None
        return self._broker

    def _to_queue(
        self, queue: str, data: object, correlation_id: str | None, options: SendOptions
    ) -> Publication:
        return publications.to_queue(
            queue,
            data,
            correlation_id,
            options,
            now=self._live().now(),
            limit=self._settings.max_body_bytes,
        )

    def _patience(self, options: SendOptions) -> float:
        given = options.get("outage_timeout")
        return self._settings.outage_timeout if given is None else given

    async def _publish(
        self, outgoing: Outgoing, publication: Publication, options: SendOptions, exchange_type: str = ""
    ) -> None:
        patience = self._patience(options) if options else self._settings.outage_timeout
        await outgoing.publish(publication, exchange_type, patience=patience)
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "sent to %s %s, correlation_id=%s",
                f"exchange {publication.exchange}" if publication.exchange else "queue",
                publication.routing_key,
                printable(publication.properties.correlation_id),
            )
