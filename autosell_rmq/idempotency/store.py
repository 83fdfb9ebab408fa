"""The one verb of an idempotency store, and what it keeps."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol


class Abandoned(asyncio.CancelledError):
    """The call was cancelled while a thread runs it, which nobody can stop.

    A store does not release the key then: it stays claimed until its lease runs out, since the effect
    may still come.
    """


class InThread(Protocol):
    """Runs a function in a thread of the app's handlers: bounded, and withdrawn at a drain."""

    async def __call__[T](self, function: Callable[[], T]) -> T: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The handler, bound to its message: run it once and get its result as JSON bytes.

    Attributes:
        run: runs it on the event loop (a sync handler in its thread pool).
        run_sync: for a sync handler that does not ask for a lease: runs it in the calling thread, so that
            a `transactional` store can put claim, effect and result into one database transaction.
        in_thread: with `run_sync`: where a store runs that transaction.
        cancellable: whether cancelling `run` stops the handler. A thread goes on, so a store that lost the
            key does not cancel it: its result may still be the only one.
        queue: of the message; this and the next two are for a store's records.
        correlation_id: of the message.
        attempt: which run of the handler this would be, from 1.
    """

    run: Callable[[], Awaitable[bytes]]
    run_sync: Callable[[], bytes] | None = None
    in_thread: InThread | None = None
    cancellable: bool = True
    queue: str = ""
    correlation_id: str | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a key ended in.

    Attributes:
        data: the handler's result as JSON, byte for byte what the first run returned.
        fingerprint: of the body that the result belongs to.
        duplicate: it was there already; nothing ran.
    """

    data: bytes
    fingerprint: str
    duplicate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a store knows of a key.

    Attributes:
        expires_at: when that is forgotten: a claim with its lease, a result with its ttl.
    """

    state: Literal["processing", "done"]
    fingerprint: str
    data: bytes | None = None
    expires_at: dt.datetime | None = None


class IdempotencyStore(Protocol):
    """Remembers what each key ended in, so that its effect happens once."""

    @property
    def durable(self) -> bool:
        """Whether it outlives this process; start-up warns of one that does not."""
        ...

    @property
    def transactional(self) -> bool:
        """Whether it runs a sync handler inside a transaction of its own (`Call.run_sync`)."""
        ...

    async def open(self) -> None:
        """Connect. Idempotent. Raises `StoreUnavailable`."""
        ...

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        ...

    async def run_once(self, key: str, fingerprint: str, call: Call) -> Stored:
        """Run `call` unless `key` is done already, and remember its result before returning it.

        An error or a cancellation of `call` releases the key and goes on to the caller: a failure is
        never remembered as done. Only `Abandoned` leaves the key claimed.

        Raises:
            InProgress: another delivery holds the key.
            LeaseLost: the key was taken over while `call` ran; its result is discarded.
            StoreUnavailable: the store did not answer.
        """
        ...

    async def lookup(self, key: str) -> Record | None:
        """What is known of `key`; None when nothing is."""
        ...
