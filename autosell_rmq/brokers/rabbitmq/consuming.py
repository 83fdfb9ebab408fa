"""Consuming: one channel per consumer, and deliveries that are settled on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from autosell_rmq.broker import Delivery
from autosell_rmq.brokers.rabbitmq import errors
from autosell_rmq.brokers.rabbitmq.frames import Acks, Content, listen, unheard
from autosell_rmq.brokers.rabbitmq.properties import arguments as to_arguments
from autosell_rmq.brokers.rabbitmq.properties import received
from autosell_rmq.exceptions import BrokerError, BrokerUnavailable, ClosedError, DeliveryLost, QueueNotFound
from autosell_rmq.message import Headers, Message


class RabbitDelivery:
    """A message in hand, bound to the channel it came on."""

    __slots__ = ("_acks", "_settled", "_tag", "message")

    def __init__(self, acks: Acks, tag: int, message: Message) -> None:
        self.message = message
        self._acks = acks
        self._tag = tag
        self._settled = False

    # The broker is told at the end of this turn of the loop: a cancelled caller leaves no tag unsettled.

    async def ack(self) -> None:
        self._settle()
        self._acks.ack(self._tag)

    async def requeue(self) -> None:
        self._settle()
        self._acks.requeue(self._tag)

    async def fail(self) -> None:
        self._settle()
        self._acks.reject(self._tag)

    def _settle(self) -> None:
        if self._settled:  # a second ack of one tag would close the channel under its neighbours
            raise ClosedError("this delivery is settled already")
        self._settled = True
        if self._acks.closed:
            raise DeliveryLost("the channel is gone, RabbitMQ will deliver again")


class RabbitSubscription:
    """A consumer on a channel of its own, which stays open after `cancel` for late settlements."""

    def __init__(self, channel: AbstractChannel, queue: str, on_lost: Callable[[BrokerError], None]) -> None:
        self._channel = channel
        self._queue = queue
        self._on_lost = on_lost
        self._on_delivery: Callable[[Delivery], None] | None = None
        self._acks = Acks(channel.number, listen(channel, self).writer)
        self._tag: str | None = None
        self._ended = False
        self._cancelling: asyncio.Future[None] | None = None

    def on_delivered(self, content: Content) -> None:
        if self._acks.closed:  # RabbitMQ takes it back with the channel; a nack would cost the connection
            return
        self._acks.delivered(content.tag)
        if self._ended or self._on_delivery is None:  # it was on its way when the consumer was cancelled
            self._acks.requeue(content.tag)
        else:
            self._on_delivery(RabbitDelivery(self._acks, content.tag, received(content, self._queue)))

    def on_closing(self) -> None:
        self._acks.close()

    def on_returned(self, content: Content) -> None:
        """Nothing is published on this channel."""

    def on_confirmed(self, tag: int, *, multiple: bool, refused: bool) -> None:
        """Nothing is published on this channel."""

    async def start(
        self, on_delivery: Callable[[Delivery], None], prefetch: int, arguments: Headers, timeout: float
    ) -> None:
        """Set the prefetch and begin to consume."""
        self._on_delivery = on_delivery
        # Before it consumes: RabbitMQ may end a consumer in the breath that begins it.
        self._channel.on_consumer_cancel_callbacks.add(self._cancelled_by_broker)
        try:
            with errors.bare_cancellation(BrokerUnavailable):
                await self._channel.basic_qos(prefetch_count=prefetch, timeout=timeout)
                consuming = await self._channel.basic_consume(
                    self._queue, unheard, arguments=to_arguments(arguments) or None, timeout=timeout
                )
        except BrokerUnavailable:
            raise
        except (*errors.LOST, TimeoutError) as error:
            raise errors.declaring(error, self._queue) from None
        self._tag = consuming.consumer_tag
        self._channel.closing.add_done_callback(self._channel_closed)

    async def cancel(self) -> None:
        """Stop the deliveries; bounded, and harmless on a connection that is gone."""
        if self._cancelling is None and not self._ended and self._tag is not None:
            self._ended = True  # what is still delivered goes back
            self._acks.flush()
            self._cancelling = asyncio.ensure_future(self._cancel(self._tag))
        if self._cancelling is not None:
            # Cut off, it would cost the channel; and it is needed in any case.
            await asyncio.shield(self._cancelling)

    async def _cancel(self, tag: str) -> None:
        try:
            with errors.bare_cancellation(BrokerUnavailable):
                await self._channel.basic_cancel(tag, timeout=errors.GOODBYE)
        except (BrokerUnavailable, *errors.LOST, TimeoutError):
            # Gone with its connection, or the client library is closing it: no more may be written on it.
            self._acks.close()

    async def close(self) -> None:
        """Close the channel: RabbitMQ takes back what is unacked on it."""
        self._ended = True
        self._acks.flush()
        self._acks.close()
        await errors.channel_closed(self._channel)

    async def _cancelled_by_broker(self, _: Basic.Cancel) -> None:
        self._lost(
            QueueNotFound(
                f"RabbitMQ cancelled the consumer of {self._queue!r}: it was deleted or its node is down"
            )
        )

    def _channel_closed(self, closing: asyncio.Future[object]) -> None:
        self._acks.close()
        error = None if closing.cancelled() else closing.exception()
        text = errors.broker_text(error) if error else "closed"
        self._lost(BrokerUnavailable(f"the consumer of {self._queue!r} lost its channel: {text}"))

    def _lost(self, error: BrokerError) -> None:
        if not self._ended:
            self._ended = True
            self._on_lost(error)
