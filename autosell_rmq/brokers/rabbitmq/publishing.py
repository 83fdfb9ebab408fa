"""Publishing on a channel that is opened when it is needed, and replaced when it is spent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiormq.abc import AbstractChannel

from autosell_rmq.brokers.rabbitmq.confirms import ConfirmChannel
from autosell_rmq.brokers.rabbitmq.frames import Outgoing
from autosell_rmq.exceptions import BrokerUnavailable
from autosell_rmq.message import Publication

type Unblocked = Callable[[float], Awaitable[None]]


class Publisher:
    """Publishes on one channel, and on a new one after an unknown outcome or several refusals in a row.

    A spent channel is closed when the last publish on it has ended, which nobody waits for.

    Args:
        open_channel: opens one, waiting up to so many seconds for the connection.
        unblocked: returns once the broker takes messages, within so many seconds; see
            `SupervisedConnection.unblocked`.
    """

    def __init__(
        self, open_channel: Callable[[float], Awaitable[AbstractChannel]], unblocked: Unblocked
    ) -> None:
        self._open_channel = open_channel
        self._unblocked = unblocked
        self._current: ConfirmChannel | None = None
        self._opening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        """As `Broker.publish`; waiting for the connection and opening a channel count in the `timeout`."""
        outgoing = Outgoing(publication)
        deadline = asyncio.get_running_loop().time() + timeout
        channel = self._current
        if channel is None or not channel.ready:
            await self._unblocked(timeout)
            channel = await self._ready(deadline, timeout)
        try:
            await channel.publish(publication, outgoing, deadline)
        finally:
            if channel.spent and channel.idle:
                self._close(channel)

    async def _ready(self, deadline: float, timeout: float) -> ConfirmChannel:
        try:
            async with asyncio.timeout_at(deadline):
                while not (channel := await self._channel(deadline)).ready:
                    await channel.until_ready()
                return channel
        except TimeoutError:
            raise BrokerUnavailable(f"no channel was ready within {timeout:g} s") from None

    async def _channel(self, deadline: float) -> ConfirmChannel:
        current = self._current
        if current is not None and current.usable:
            return current
        async with self._opening:
            if self._current is None or not self._current.usable:
                if self._current is not None and self._current.idle:
                    self._close(self._current)  # nobody else would
                left = deadline - asyncio.get_running_loop().time()
                self._current = ConfirmChannel(await self._open_channel(left))
            return self._current

    def _close(self, channel: ConfirmChannel) -> None:
        closing = asyncio.get_running_loop().create_task(channel.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
