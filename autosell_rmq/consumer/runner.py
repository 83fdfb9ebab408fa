"""The life of a consuming process: start, run until a stop or a loss, drain. One for every face."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from autosell_rmq import forks
from autosell_rmq.consumer.group import ConsumerGroup
from autosell_rmq.signals import stop_on_signal

logger = logging.getLogger(__name__)


class Runner:
    """Starts a `ConsumerGroup`, drains it once, and ends `run_forever` on a stop or on a loss.

    Args:
        make_group: connects and makes a group that is not started.
        drain_timeout: seconds for running handlers to finish in.
    """

    def __init__(self, make_group: Callable[[], Awaitable[ConsumerGroup]], *, drain_timeout: float) -> None:
        self._make_group = make_group
        self._drain_timeout = drain_timeout
        self._group: ConsumerGroup | None = None
        self._starting: asyncio.Lock | None = None
        self._wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._stop_requested = False
        self._wanted = False
        forks.watch(self)

    def after_fork(self) -> None:
        """In a forked child: the parent consumes, not we."""
        forks.leave(self._group, self._starting, self._wake)
        self._group = self._starting = self._wake = None
        self._stop_requested = self._wanted = False

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it does not consume although it was asked to, and has not drained since."""
        if not self._wanted:
            return ()
        return ("not consuming",) if self._group is None else self._group.problems

    @property
    def group(self) -> ConsumerGroup | None:
        """The running group, None before the start and after the drain."""
        return self._group

    async def start(self) -> None:
        """Consume; returns once every consumer is attached. Idempotent while it runs."""
        self._wanted = True
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if self._group is None:
                group = await self._make_group()
                await group.start()
                self._group = group

    def stop(self) -> None:
        """Ask `run_forever` to drain and return: from anywhere, a signal handler or another thread too."""
        self._stop_requested = True
        wake = self._wake
        if wake is not None:
            loop, event = wake
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:
                logger.debug("stop() after the event loop had ended")

    async def run_forever(self) -> None:
        """Consume until `stop`, SIGINT or SIGTERM, then drain. The second signal leaves at once.

        Raises:
            BrokerError: a consumer was given up; everything else was drained.
        """
        event = asyncio.Event()
        self._wake = (asyncio.get_running_loop(), event)
        if self._stop_requested:
            event.set()
        try:
            with stop_on_signal(self.stop):
                lost = await self._until_stopped(event)
                await self.drain()
        finally:
            self._wake = None
            self._stop_requested = False
        if lost is not None:
            raise lost

    async def drain(self, timeout: float | None = None) -> None:
        """Stop consuming; handlers may finish for `timeout` seconds, by default the settings'.

        Cancelled, it cuts them short.
        """
        group, self._group = self._group, None
        self._starting = None
        if group is not None:
            try:
                await group.drain(self._drain_timeout if timeout is None else timeout)
            except asyncio.CancelledError:
                await group.drain(0)
                raise
        if self._starting is None:  # nobody has started it again meanwhile
            self._wanted = False

    async def _until_stopped(self, event: asyncio.Event) -> BaseException | None:
        """Start and wait; a stop during the start ends the start."""
        stopping = asyncio.ensure_future(event.wait())
        starting = asyncio.ensure_future(self.start())
        tasks: list[asyncio.Future[Any]] = [stopping, starting]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return None
            await starting
            if self._group is None:
                return None
            lost = self._group.lost
            either: list[asyncio.Future[Any]] = [stopping, lost]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return lost.result() if lost.done() and not event.is_set() else None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
