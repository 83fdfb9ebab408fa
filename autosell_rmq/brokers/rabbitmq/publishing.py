"""Publishing with confirms: each publish ends confirmed, refused or unknown, each its own error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiormq import exceptions as amqp
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from autosell_rmq.brokers.rabbitmq import errors
from autosell_rmq.brokers.rabbitmq.properties import to_wire
from autosell_rmq.exceptions import (
    BrokerUnavailable,
    EncodeError,
    PublishError,
    PublishNacked,
    PublishUnknown,
    PublishUnroutable,
)
from autosell_rmq.message import Publication

_CLOSE_TIMEOUT = 5.0  # seconds


class ConfirmChannel:
    """A channel in confirm mode. After an unknown outcome it is spent: publish on another one."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.spent = False
        self._in_flight: dict[str, asyncio.Future[None]] = {}

    @property
    def usable(self) -> bool:
        return not (self.spent or self.channel.is_closed)

    @property
    def idle(self) -> bool:
        return not self._in_flight

    async def publish(self, publication: Publication, wire: Basic.Properties, *, timeout: float) -> None:
        """Publish and wait for the confirm; see `Broker.publish` for what it raises."""
        # aiormq matches a returned message to its publish by message_id: never two with one id in flight.
        while wire.message_id is not None and (twin := self._in_flight.get(wire.message_id)) is not None:
            await asyncio.wait([twin])
        if not self.usable:
            raise BrokerUnavailable("the channel was closed before the publish")
        done = asyncio.get_running_loop().create_future()
        flight = wire.message_id or f"#{id(done)}"
        self._in_flight[flight] = done
        try:
            await self._confirmed(publication, wire, timeout)
        except PublishUnknown:
            self.spent = True
            raise
        except asyncio.CancelledError:
            # Whether it was stored is unknown to this process for good.
            self.spent = True
            raise
        finally:
            del self._in_flight[flight]
            done.set_result(None)

    async def _confirmed(self, publication: Publication, wire: Basic.Properties, timeout: float) -> None:
        try:
            with errors.bare_cancellation(PublishUnknown):
                await self.channel.basic_publish(
                    publication.body,
                    exchange=publication.exchange,
                    routing_key=publication.routing_key,
                    properties=wire,
                    mandatory=publication.mandatory,
                    timeout=timeout,
                )
        except PublishUnknown:
            raise
        except amqp.PublishError:
            raise PublishUnroutable(_unroutable(publication)) from None
        except amqp.DeliveryError:
            raise PublishNacked(f"RabbitMQ refused a message to {_where(publication)} (basic.nack)") from None
        except TimeoutError:
            raise PublishUnknown(f"no confirm within {timeout:g} s from {_where(publication)}") from None
        except errors.LOST as error:
            raise self._closed(publication, error) from None

    def _closed(self, publication: Publication, error: BaseException) -> PublishError:
        """The channel was closed while the publish waited: by its own fault, or by a neighbour's."""
        text = errors.broker_text(error)
        if isinstance(error, amqp.ChannelNotFoundEntity) and f"'{publication.exchange}'" in text:
            return PublishUnroutable(f"no such exchange for {_where(publication)}: {text}")
        alone = len(self._in_flight) == 1
        if alone and isinstance(error, amqp.ChannelPreconditionFailed | amqp.ChannelAccessRefused):
            return PublishNacked(f"RabbitMQ refused a message to {_where(publication)}: {text}")
        return PublishUnknown(f"the channel was closed before the confirm from {_where(publication)}: {text}")

    async def close(self) -> None:
        """Close the channel; never raises."""
        self.spent = True
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self.channel.close()
        except (*errors.LOST, TimeoutError):
            pass  # it is closed, or its connection is


class Publisher:
    """Publishes on one channel, and on a new one after each unknown outcome.

    A spent channel is closed when the last publish on it has ended.
    """

    def __init__(self, open_channel: Callable[[], Awaitable[AbstractChannel]]) -> None:
        self._open_channel = open_channel
        self._current: ConfirmChannel | None = None
        self._opening = asyncio.Lock()

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        """As `Broker.publish`; opening a channel counts in the `timeout`."""
        wire = to_wire(publication.properties)
        if len(publication.routing_key.encode()) > 255:
            raise EncodeError(f"the routing key {publication.routing_key[:40]!r}… is over 255 bytes")
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(timeout):
                channel = await self._channel()
        except TimeoutError:
            raise BrokerUnavailable(f"no channel could be opened within {timeout:g} s") from None
        left = timeout - (asyncio.get_running_loop().time() - started)
        try:
            await channel.publish(publication, wire, timeout=max(left, 0.001))
        finally:
            if channel.spent and channel.idle:
                await asyncio.shield(channel.close())

    async def _channel(self) -> ConfirmChannel:
        current = self._current
        if current is not None and current.usable:
            return current
        async with self._opening:
            if self._current is None or not self._current.usable:
                self._current = ConfirmChannel(await self._open_channel())
            return self._current


def _unroutable(publication: Publication) -> str:
    if publication.exchange:
        return f"no queue is bound for {_where(publication)}"
    return f"there is no queue {publication.routing_key!r}"


def _where(publication: Publication) -> str:
    if publication.exchange:
        return f"exchange {publication.exchange!r} with routing key {publication.routing_key!r}"
    return f"queue {publication.routing_key!r}"
