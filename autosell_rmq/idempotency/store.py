"""What an idempotency store does, and what it keeps."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol


class Abandoned(asyncio.CancelledError):
    """The call was cancelled while a thread runs it, which nobody can stop.

    A store does not release the key then: it stays claimed until its lease runs out, since the effect
    may still come.

    Attributes:
        thread: done when the thread has returned, with what it returned or raised.
    """

    def __init__(self, thread: Future[object] | None = None) -> None:
        super().__init__()
        self.thread = thread


class InThread(Protocol):
    """Runs a function in a thread of the app's handlers: bounded, and withdrawn at a drain."""

    async def __call__[T](self, function: Callable[[], T]) -> T: ...


@dataclass(slots=True, kw_only=True)  # frozen takes twice as long: one for each message
class Call:
    """The handler, bound to its message: run it once and get its result as JSON bytes.

    Attributes:
        run: runs it on the event loop (a sync handler in its thread pool).
        run_sync: for a sync handler that does not ask for a lease: runs it in the calling thread, so that
            a `transactional` store can put claim, effect and result into one database transaction.
        in_thread: with `run_sync`: where a store runs that transaction.
        batch: with `run_sync`: how many calls of this queue may share a transaction.
        cancellable: whether cancelling `run` stops the handler. A thread goes on, so a store that lost the
            key does not cancel it: its result may still be the only one.
        queue: of the message; this and the next two are for a store's records.
        correlation_id: of the message.
        attempt: which run of the handler this would be, from 1.
    """

    run: Callable[[], Awaitable[bytes]]
    run_sync: Callable[[], bytes] | None = None
    in_thread: InThread | None = None
    batch: int = 1
    cancellable: bool = True
    queue: str = ""
    correlation_id: str | None = None
    attempt: int = 1


@dataclass(slots=True, kw_only=True)  # frozen takes twice as long: one for each message
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
class Note:
    """Information on a key that has no result: never the answer to a duplicate, which runs.

    Attributes:
        state: ``accepted`` (somebody has promised to have it handled), ``failed`` (it is a dead letter).
        fingerprint: of the body.
        data: more to know of it, as JSON; for ``failed`` an object with ``error`` and ``error_code``.
        queue: of the message; this and the next two are for a store's records.
        correlation_id: of the message.
        attempt: how often the handler ran.
    """

    state: Literal["accepted", "failed"]
    fingerprint: str
    data: bytes = b""
    queue: str = ""
    correlation_id: str | None = None
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a store knows of a key.

    Attributes:
        state: ``processing`` (claimed), ``done``, or a `Note`'s.
        data: the result, or the data of a note; None where there is none.
        expires_at: when that is forgotten: a claim with its lease, a result or a note with the ttl.
    """

    state: Literal["accepted", "processing", "failed", "done"]
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

    async def note(self, key: str, note: Note) -> None:
        """Keep a note on `key` for the ttl, in place of an earlier one; a result stays as it is.

        It lies beneath a claim: hidden while that lives, there again when it ends without a result, gone
        with the result.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        ...

    async def lookup(self, key: str) -> Record | None:
        """What is known of `key`; None when nothing is."""
        ...
