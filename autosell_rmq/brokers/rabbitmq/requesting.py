"""Requests over RabbitMQ's direct reply-to, on a channel of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from aiormq.abc import AbstractChannel, DeliveredMessage

from autosell_rmq.brokers.rabbitmq import errors
from autosell_rmq.brokers.rabbitmq.properties import received, to_wire
from autosell_rmq.brokers.rabbitmq.publishing import ConfirmChannel
from autosell_rmq.exceptions import BrokerError, BrokerUnavailable, PublishUnknown
from autosell_rmq.message import DIRECT_REPLY_TO, Message, Publication


class RabbitRequester:
    """The reply address lives as long as this channel: once it is spent, `on_lost` says so."""

    def __init__(self, channel: AbstractChannel, on_lost: Callable[[BrokerError], None]) -> None:
        self._confirms = ConfirmChannel(channel)
        self._on_lost = on_lost
        self._ended = False

    async def start(self, on_reply: Callable[[Message], None], timeout: float) -> None:
        """Begin to consume the replies."""
        channel = self._confirms.channel

        async def on_message(message: DeliveredMessage) -> None:
            on_reply(received(message, DIRECT_REPLY_TO))

        try:
            with errors.bare_cancellation(BrokerUnavailable):
                await channel.basic_consume(DIRECT_REPLY_TO, on_message, no_ack=True, timeout=timeout)
        except BrokerUnavailable:
            raise
        except (*errors.LOST, TimeoutError) as error:
            raise errors.declaring(error, DIRECT_REPLY_TO) from None
        channel.closing.add_done_callback(self._closed)

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        wire = to_wire(replace(publication.properties, reply_to=DIRECT_REPLY_TO))
        try:
            await self._confirms.publish(publication, wire, timeout=timeout)
        except PublishUnknown as error:
            self._lost(error)
            raise

    async def close(self) -> None:
        self._ended = True
        await self._confirms.close()

    def _closed(self, closing: asyncio.Future[object]) -> None:
        error = None if closing.cancelled() else closing.exception()
        text = errors.broker_text(error) if error else "closed"
        self._lost(BrokerUnavailable(f"the reply channel was lost: {text}"))

    def _lost(self, error: BrokerError) -> None:
        if not self._ended:
            self._ended = True
            self._on_lost(error)
