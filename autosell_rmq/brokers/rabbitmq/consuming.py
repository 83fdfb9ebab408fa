"""Consuming: one channel per consumer, and deliveries that are settled on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from autosell_rmq.broker import Delivery
from autosell_rmq.brokers.rabbitmq import errors
from autosell_rmq.brokers.rabbitmq.properties import arguments as to_arguments
from autosell_rmq.brokers.rabbitmq.properties import received
from autosell_rmq.exceptions import BrokerError, BrokerUnavailable, ClosedError, DeliveryLost, QueueNotFound
from autosell_rmq.message import Headers, Message


class RabbitDelivery:
    """A message in hand, bound to the channel it came on."""

    __slots__ = ("_channel", "_settled", "_tag", "message")

    def __init__(self, channel: AbstractChannel, tag: int, message: Message) -> None:
        self.message = message
        self._channel = channel
        self._tag = tag
        self._settled = False

    async def ack(self) -> None:
        await self._settle(lambda: self._channel.basic_ack(self._tag, wait=False))

    async def requeue(self) -> None:
        await self._settle(lambda: self._channel.basic_nack(self._tag, requeue=True, wait=False))

    async def fail(self) -> None:
        await self._settle(lambda: self._channel.basic_reject(self._tag, requeue=True, wait=False))

    async def _settle(self, send: Callable[[], Awaitable[None]]) -> None:
        if self._settled:  # a second ack of one tag would close the channel under its neighbours
            raise ClosedError("this delivery is settled already")
        self._settled = True
        # In a task of its own: a cancelled caller must not leave the tag unsettled for good.
        sending = asyncio.ensure_future(send())
        try:
            with errors.bare_cancellation(DeliveryLost):
                await asyncio.shield(sending)
        except DeliveryLost:
            raise
        except errors.LOST as error:
            raise DeliveryLost(f"the channel is gone, RabbitMQ will deliver again: {error}") from None


class RabbitSubscription:
    """A consumer on a channel of its own, which stays open after `cancel` for late settlements."""

    def __init__(self, channel: AbstractChannel, queue: str, on_lost: Callable[[BrokerError], None]) -> None:
        self._channel = channel
        self._queue = queue
        self._on_lost = on_lost
        self._tag: str | None = None
        self._ended = False

    async def start(
        self, on_delivery: Callable[[Delivery], None], prefetch: int, arguments: Headers, timeout: float
    ) -> None:
        """Set the prefetch and begin to consume."""

        async def on_message(message: DeliveredMessage) -> None:
            delivery = message.delivery
            assert isinstance(delivery, Basic.Deliver)
            assert delivery.delivery_tag is not None
            if self._ended:  # it was on its way when the consumer was cancelled
                with suppress(asyncio.CancelledError, *errors.LOST):
                    await self._channel.basic_nack(delivery.delivery_tag, requeue=True, wait=False)
                return
            on_delivery(RabbitDelivery(self._channel, delivery.delivery_tag, received(message, self._queue)))

        try:
            with errors.bare_cancellation(BrokerUnavailable):
                await self._channel.basic_qos(prefetch_count=prefetch, timeout=timeout)
                consuming = await self._channel.basic_consume(
                    self._queue, on_message, arguments=to_arguments(arguments) or None, timeout=timeout
                )
        except BrokerUnavailable:
            raise
        except (*errors.LOST, TimeoutError) as error:
            raise errors.declaring(error, self._queue) from None
        self._tag = consuming.consumer_tag
        self._channel.on_consumer_cancel_callbacks.add(self._cancelled_by_broker)
        self._channel.closing.add_done_callback(self._channel_closed)

    async def cancel(self) -> None:
        """Stop the deliveries; bounded, and harmless on a connection that is gone."""
        if self._ended or self._tag is None:
            return
        self._ended = True
        try:
            with errors.bare_cancellation(BrokerUnavailable):
                await self._channel.basic_cancel(self._tag, timeout=5)
        except (BrokerUnavailable, *errors.LOST, TimeoutError):
            pass  # gone with its connection: nothing can be delivered any more

    async def close(self) -> None:
        """Close the channel: RabbitMQ takes back what is unacked on it."""
        self._ended = True
        with suppress(*errors.LOST, TimeoutError):
            async with asyncio.timeout(5):
                await self._channel.close()

    async def _cancelled_by_broker(self, _: Basic.Cancel) -> None:
        self._lost(
            QueueNotFound(
                f"RabbitMQ cancelled the consumer of {self._queue!r}: it was deleted or its node is down"
            )
        )

    def _channel_closed(self, closing: asyncio.Future[object]) -> None:
        error = None if closing.cancelled() else closing.exception()
        text = errors.broker_text(error) if error else "closed"
        self._lost(BrokerUnavailable(f"the consumer of {self._queue!r} lost its channel: {text}"))

    def _lost(self, error: BrokerError) -> None:
        if not self._ended:
            self._ended = True
            self._on_lost(error)
