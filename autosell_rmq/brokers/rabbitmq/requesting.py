"""Requests over RabbitMQ's direct reply-to, on a channel of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiormq.abc import AbstractChannel

from autosell_rmq.brokers.rabbitmq import errors
from autosell_rmq.brokers.rabbitmq.confirms import ConfirmChannel
from autosell_rmq.brokers.rabbitmq.frames import Content, Outgoing, unheard
from autosell_rmq.brokers.rabbitmq.properties import received
from autosell_rmq.brokers.rabbitmq.publishing import Unblocked
from autosell_rmq.exceptions import BrokerError, BrokerUnavailable
from autosell_rmq.message import DIRECT_REPLY_TO, Message, Publication


class RabbitRequester:
    """The reply address lives as long as this channel: once it is spent, `on_lost` says so."""

    def __init__(
        self, channel: AbstractChannel, on_lost: Callable[[BrokerError], None], unblocked: Unblocked
    ) -> None:
        self._confirms = ConfirmChannel(channel, self._deliver)
        self._unblocked = unblocked
        self._on_lost = on_lost
        self._on_reply: Callable[[Message], None] | None = None
        self._ended = False

    async def start(self, on_reply: Callable[[Message], None], timeout: float) -> None:
        """Begin to consume the replies."""
        channel = self._confirms.channel
        self._on_reply = on_reply
        try:
            with errors.bare_cancellation(BrokerUnavailable):
                await channel.basic_consume(DIRECT_REPLY_TO, unheard, no_ack=True, timeout=timeout)
        except BrokerUnavailable:
            raise
        except (*errors.LOST, TimeoutError) as error:
            raise errors.declaring(error, DIRECT_REPLY_TO) from None
        channel.closing.add_done_callback(self._closed)

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        outgoing = Outgoing(publication, reply_to=DIRECT_REPLY_TO)
        deadline = asyncio.get_running_loop().time() + timeout
        confirms = self._confirms
        if not confirms.ready:
            await self._unblocked(timeout)
            await self._until_ready(deadline)
        try:
            await confirms.publish(publication, outgoing, deadline)
        finally:
            if confirms.spent:
                # Not the error of this one: of the others nothing is known by it.
                self._lost(BrokerUnavailable("the reply channel was given up, since confirms are missing"))

    async def _until_ready(self, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self._confirms.until_ready()
        except TimeoutError:
            raise BrokerUnavailable("RabbitMQ takes in no more: nothing was sent") from None

    async def close(self) -> None:
        self._ended = True
        await self._confirms.close()

    def _deliver(self, content: Content) -> None:
        if self._on_reply is not None:
            self._on_reply(received(content, DIRECT_REPLY_TO))

    def _closed(self, closing: asyncio.Future[object]) -> None:
        error = None if closing.cancelled() else closing.exception()
        text = errors.broker_text(error) if error else "closed"
        self._lost(BrokerUnavailable(f"the reply channel was lost: {text}"))

    def _lost(self, error: BrokerError) -> None:
        if not self._ended:
            self._ended = True
            self._on_lost(error)
