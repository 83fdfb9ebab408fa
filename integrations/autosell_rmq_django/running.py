"""One consuming process: the app, the outbox's relay, signs of life, and when to leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from autosell_rmq import BrokerError, Health, MessageEvent, RabbitMQ
from autosell_rmq_django import signals
from autosell_rmq_django.conf import AppSettings
from autosell_rmq_django.relay import Relay

logger = logging.getLogger(__name__)

_LOOK = 0.25  # seconds between two looks at the app
BEAT = 1.0  # seconds between two signs of life
_EMPTY_LOOKS = 2  # in a row: a message on its way to us is neither ready nor in hand
_END = 5.0  # seconds for what follows the drain: the relay's rows in hand, receivers of signals


class ConsumerLost(Exception):
    """Consuming had begun and ended by itself: a connection was lost for good, or a queue deleted."""


class Countdown:
    """An `Observer` that stops the app after so many settled messages; those that run by then finish."""

    def __init__(self, messages: int) -> None:
        self._left = messages
        self.app: RabbitMQ | None = None

    def __call__(self, event: MessageEvent) -> None:
        """Called on the event loop."""
        if event.kind == "settled":
            self._left -= 1
            if self._left <= 0 and self.app is not None:
                self.app.stop()


@dataclass(kw_only=True)
class Process:
    """Runs an app until it is stopped by a signal, by `RabbitMQ.stop`, or by its own rules.

    Attributes:
        app: not connected yet.
        settings: for the relay.
        batch: leave once the queues are empty.
        on_start: called on the event loop before anything else.
        on_ready: called once, when messages can come.
        on_beat: called every second while messages are being handled, with how the app is.
    """

    app: RabbitMQ
    settings: AppSettings
    batch: bool = False
    on_start: Callable[[], None] = lambda: None
    on_ready: Callable[[], None] = lambda: None
    on_beat: Callable[[Health], None] = lambda _: None
    _ready: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Consume, drain, disconnect.

        Raises:
            ConsumerLost: consuming had begun.
            ConfigError, BrokerError, StoreError: it had not.
        """
        self.on_start()
        beside = asyncio.create_task(self._beside(), name="rmq_consume")
        # It never ends by itself: when something in it has failed, the process must not live on half dead.
        beside.add_done_callback(lambda _: self.app.stop())
        try:
            await self.app.run()
            if beside.done():
                beside.result()
        except BrokerError as error:
            if self._ready:
                raise ConsumerLost(str(error)) from error
            raise
        finally:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
            await self.app.close()
            await signals.finish(_END)

    async def _beside(self) -> None:
        """What goes on beside the messages."""
        while self.app.problems:  # noqa: ASYNC110 - the app has no event for it
            await asyncio.sleep(_LOOK)
        self._ready = True
        self.on_ready()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            if self.batch:
                group.create_task(self._leave_when_empty())
            if self.settings.outbox.relay:
                group.create_task(self._relay())

    async def _beat(self) -> None:
        while True:
            health = self.app.health
            if health.ready:
                self.on_beat(health)
            await asyncio.sleep(BEAT)

    async def _leave_when_empty(self) -> None:
        looks = 0
        while looks < _EMPTY_LOOKS:
            await asyncio.sleep(_LOOK)
            try:
                looks = looks + 1 if await self.app.backlog() == 0 else 0
            except BrokerError as error:
                logger.warning("cannot see how many messages are left, trying again: %s", error)
                looks = 0
        self.app.stop()

    async def _relay(self) -> None:
        relay = Relay(self.app.producer, self.settings)
        running = asyncio.create_task(relay.run(), name="outbox relay")
        try:
            await asyncio.shield(running)
        finally:
            relay.stop()
            with suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(running, _END)
