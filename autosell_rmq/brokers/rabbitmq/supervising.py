"""A connection that comes back: lost, it is opened again with back-off, until it is closed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aio_pika import Connection
from aiormq.abc import AbstractConnection

from autosell_rmq.brokers.rabbitmq import errors
from autosell_rmq.brokers.rabbitmq.connecting import underlying
from autosell_rmq.brokers.rabbitmq.frames import frames_of
from autosell_rmq.config import Settings
from autosell_rmq.exceptions import AutosellRmqError, BrokerUnavailable, ClosedError
from autosell_rmq.retry import waits

logger = logging.getLogger(__name__)

type Connect = Callable[[Settings, str], Awaitable[Connection]]


class SupervisedConnection:
    """One connection for one `purpose`. A single task opens it again; whoever needs it waits for that.

    ::

                     open               connected
        closed ────────▶ connecting ─────────▶ connected ◀─────▶ blocked
           ▲                 ▲                     │ lost    alarm
           │                 │   ┌───────────┐     │
           └─ from anywhere  └───│  waiting  │◀────┘
               by close          └───────────┘
                                  (back-off)

    Attributes:
        reconnects: how often it was lost and opened again.
    """

    def __init__(self, settings: Settings, purpose: str, connect: Connect) -> None:
        self._settings = settings
        self._purpose = purpose
        self._connect = connect
        self._connection: Connection | None = None
        self._up = asyncio.Event()  # set while connected, and for good once closed
        self._opening = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._why = self._not_connected = f"not connected to RabbitMQ at {settings.broker_url}"
        self.reconnects = 0

    @property
    def problem(self) -> str | None:
        """Why it cannot be used right now; None while it can."""
        live = self._live()
        if live is None:
            return self._why
        return errors.BLOCKED if _is_blocked(live) else None

    @property
    def is_blocked(self) -> bool:
        """Whether the broker takes no messages over it."""
        live = self._live()
        return live is not None and _is_blocked(live)

    async def open(self) -> None:
        """Connect, trying for the settings' ``startup_timeout``; from then on it is kept. Idempotent.

        Raises:
            BrokerUnavailable: no attempt came through in that time.
            AccessRefused: another attempt would not help.
        """
        async with self._opening:
            if self._keeper is None:
                first = await self._first()
                if self._closed:
                    await errors.closed(first.close())
                    raise ClosedError("the connection was closed while it was opened")
                self._keeper = asyncio.create_task(self._keep(first), name=f"rabbitmq {self._purpose}")
        await self.get(self._settings.startup_timeout)

    async def get(self, timeout: float) -> AbstractConnection:
        """The open connection, waited for while it is away; blocked or not.

        Raises:
            BrokerUnavailable: it did not come back within `timeout` seconds; it says why.
            ClosedError: it is closed.
        """
        live = self._live()
        if live is not None:
            return live
        try:
            async with asyncio.timeout(timeout):
                while (live := self._live()) is None:
                    if self._closed or self._keeper is None:
                        raise ClosedError("the connection is not open")
                    self._up.clear()
                    await self._up.wait()
                return live
        except TimeoutError:
            raise BrokerUnavailable(f"{self._why} (waited {timeout:g} s)") from None

    async def unblocked(self, timeout: float) -> None:
        """Return when the broker takes messages; how long it waits for that is the settings' choice.

        Raises:
            BrokerUnavailable: it takes none, so nothing was sent.
            ClosedError: it is closed.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        live = await self.get(timeout)
        if not _is_blocked(live):
            return
        if self._settings.when_blocked == "wait":
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await frames_of(live).writer.until_unblocked()
                    return
        raise BrokerUnavailable(f"{errors.BLOCKED}; the message was not sent")

    async def close(self) -> None:
        """Disconnect, and stop opening it again. Idempotent, never raises."""
        self._closed = True
        self._why = self._not_connected
        self._up.set()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None:
            await errors.closed(connection.close())

    def _live(self) -> AbstractConnection | None:
        return underlying(self._connection) if self._connection is not None else None

    async def _first(self) -> Connection:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._settings.startup_timeout
        for wait in waits(self._settings.backoff, self._settings.max_backoff):
            try:
                return await self._connect(self._settings, self._purpose)
            except BrokerUnavailable as error:
                if loop.time() + wait >= give_up:
                    raise
                logger.warning("%s; next attempt in %.1f s", error, wait)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._up.wait()
                        raise ClosedError("the connection was closed while it was opened") from None
        raise AssertionError  # the waits have no end

    async def _keep(self, connection: Connection) -> None:
        """Hold it open for ever; ends by being cancelled."""
        while True:
            self._connection = connection
            self._up.set()
            live = underlying(connection)
            if live is not None:
                await asyncio.wait([live.closing])
                self._why = f"the connection to RabbitMQ was lost: {_reason(live)}"
            self._up.clear()
            logger.warning("%s (%s); connecting again", self._why, self._purpose)
            lost_at = time.monotonic()
            await errors.closed(connection.close())
            connection = await self._again()
            self.reconnects += 1
            logger.info(
                "RabbitMQ is back after %.1f s without it (%s)", time.monotonic() - lost_at, self._purpose
            )

    async def _again(self) -> Connection:
        """Try until it works, after a refusal, too: somebody may mend it, or a node was only half awake."""
        for wait in waits(self._settings.backoff, self._settings.max_backoff):
            await asyncio.sleep(wait)
            try:
                return await self._connect(self._settings, self._purpose)
            except Exception as error:
                why = str(error) or type(error).__name__
                if why != self._why:  # once for each reason, not for each attempt
                    self._why = why
                    bug = not isinstance(error, AutosellRmqError)
                    logger.warning("still without RabbitMQ (%s): %s", self._purpose, why, exc_info=bug)
        raise AssertionError  # the waits have no end


def _is_blocked(connection: AbstractConnection) -> bool:
    return frames_of(connection).writer.blocked is not None


def _reason(connection: AbstractConnection) -> str:
    closing = connection.closing
    error = None if closing.cancelled() else closing.exception()
    return errors.broker_text(error) if error is not None else "it was closed"
