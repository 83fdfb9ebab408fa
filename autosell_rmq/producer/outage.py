"""Sending through an outage: wait, send the same message again, and say what is true of it in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import nullcontext
from time import monotonic
from typing import Protocol

from autosell_rmq.broker import Broker
from autosell_rmq.exceptions import (
    AutosellRmqError,
    BrokerError,
    BrokerUnavailable,
    ClosedError,
    PublishNacked,
    PublishUnknown,
)
from autosell_rmq.message import Publication
from autosell_rmq.waiting import WaitingRoom, pauses

# What may be different the next time.
_PASSING = (BrokerUnavailable, PublishNacked, PublishUnknown)


class Attempt(Protocol):
    """Sends a message, always the same one with the same ids, within `timeout` seconds."""

    def __call__(self, *, timeout: float) -> Awaitable[None]: ...


class Outage:
    """Repeats attempts that failed in passing.

    Args:
        broker: whose ``problem`` tells whether there is an outage.
        room: where they wait meanwhile.
        publish_timeout: seconds for one attempt, and for all of them where each is refused (`PublishNacked`):
            a queue may be between two leaders, but it may also be full.
        waits_when_blocked: whether an alarm of the broker is waited out like an outage.
    """

    def __init__(
        self, broker: Broker, room: WaitingRoom, *, publish_timeout: float, waits_when_blocked: bool
    ) -> None:
        self._broker = broker
        self._room = room
        self._publish_timeout = publish_timeout
        self._waits_when_blocked = waits_when_blocked
        self._closing = asyncio.Event()

    async def send(self, attempt: Attempt, publication: Publication, *, patience: float) -> None:
        """Await `attempt` until it succeeds, for `patience` seconds in all; there is at least one.

        A caller that is cancelled leaves nothing behind, and cannot know whether its message is stored.

        Raises:
            PublishUnknown: an attempt got no confirm, so the message may be stored.
            BrokerUnavailable: it was never sent.
            PublishNacked: it was refused, and is stored nowhere.
            ClosedError: it was never sent, and `close` was called.
            AutosellRmqError: whatever else an attempt raises, at once.
        """
        started = monotonic()
        problem = self._broker.problem
        if problem is None:
            try:
                await attempt(timeout=self._publish_timeout)
            except _PASSING as error:
                first = error
            else:
                return
        else:
            first = BrokerUnavailable(problem)
            if self._is_refused:
                raise first
        sending = _Sending(first, was_tried=problem is None)
        try:
            with self._room.place(publication, first) if patience > 0 else nullcontext():
                await self._repeat(attempt, sending, started, patience)
        except AutosellRmqError as error:
            if sending.is_unknown and not isinstance(error, PublishUnknown):
                raise PublishUnknown(
                    f"an attempt got no confirm, so it may be stored; then: {error}"
                ) from error
            raise

    def close(self) -> None:
        """End every wait."""
        self._closing.set()

    async def _repeat(self, attempt: Attempt, sending: _Sending, started: float, patience: float) -> None:
        for pause in pauses():
            began = monotonic()
            left = started + self._limit(sending, patience) - began
            if left <= 0 and sending.was_tried:
                raise sending.last
            try:
                await attempt(timeout=min(self._publish_timeout, max(left, 0.0)))
            except _PASSING as error:
                sending.failed(error)
                if self._is_refused:
                    raise
                self._room.tell(error)
            else:
                return
            # From start to start: an attempt that has itself waited for the connection is pause enough.
            end = started + self._limit(sending, patience)
            await self._pause(min(began + pause, end) - monotonic())

    @property
    def _is_refused(self) -> bool:
        return self._broker.blocked and not self._waits_when_blocked

    def _limit(self, sending: _Sending, patience: float) -> float:
        refused = isinstance(sending.last, PublishNacked)
        return min(patience, self._publish_timeout) if refused else patience

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._closing.wait()
        except TimeoutError:
            return
        raise ClosedError("the producer was closed while a message waited for the broker")


class _Sending:
    """What has become of a message so far."""

    def __init__(self, last: BrokerError, *, was_tried: bool) -> None:
        self.last = last
        self.was_tried = was_tried
        self.is_unknown = isinstance(last, PublishUnknown)

    def failed(self, error: BrokerError) -> None:
        self.last = error
        self.was_tried = True
        self.is_unknown |= isinstance(error, PublishUnknown)
