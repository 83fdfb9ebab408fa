"""From rows of the outbox to confirmed messages: a transaction locks rows, sees them sent, marks them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from django.db import connections, transaction

from autosell_rmq import (
    BrokerUnavailable,
    ClosedError,
    ConfigError,
    EncodeError,
    PublishUnroutable,
    RabbitMQProducer,
    Settings,
    ThreadPool,
)
from autosell_rmq_django import outbox
from autosell_rmq_django.conf import AppSettings
from autosell_rmq_django.connections import refresh
from autosell_rmq_django.models import OutboxMessage
from autosell_rmq_django.outbox import Candidate

logger = logging.getLogger(__name__)

_ROUNDS = 100  # transactions before the thread's connection is looked at again
_GRACE = 5.0  # seconds that a cancelled round may take to mark what was confirmed
# Seconds for one message where the whole database is locked meanwhile (SQLite): others wait for the lock.
_LOCKED_PATIENCE = 1.0
# Waiting does not mend these: somebody has to make a queue, or to change the program.
_REFUSED = (PublishUnroutable, ConfigError, EncodeError)


class InThread(Protocol):
    """Runs a function beside the event loop, always in a thread that may use the database."""

    def __call__[T](self, function: Callable[[], T]) -> Awaitable[T]: ...


def in_pool(pool: ThreadPool) -> InThread:
    """Run functions in the threads of `pool`."""

    def run[T](function: Callable[[], T]) -> Awaitable[T]:
        return asyncio.wrap_future(pool.submit(function))

    return run


@dataclass(eq=False)
class _Round:
    """One transaction's rows and what became of them so far."""

    sent: list[OutboxMessage] = field(default_factory=list)
    failed: list[tuple[OutboxMessage, Exception]] = field(default_factory=list)


@dataclass(eq=False)
class _Work:
    """Rounds one after the other, until nothing more can be sent.

    Attributes:
        find: what to send next.
        wait: for rows that somebody else has locked.
        halted: no further row is to be tried.
        sending: the task that sends, while it runs.
        failures: what could not be sent, by the row's id; it is not tried twice.
        blocked: the ordering keys of these.
    """

    find: Callable[[], list[Candidate]]
    wait: bool
    halted: bool = False
    sending: asyncio.Task[None] | None = None
    failures: dict[int, Exception] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)


class Sender:
    """Sends the outbox of one database by the app's producer.

    The locks of the rows last until they are marked: nobody else sends them meanwhile, and a process that
    dies gives them back. Rows that were confirmed and not marked are sent again under the same ids.
    """

    def __init__(
        self, producer: RabbitMQProducer, settings: AppSettings, *, using: str, in_thread: InThread
    ) -> None:
        core = Settings.build(None, **settings.core)
        self._producer = producer
        self._using = using
        self._in_thread = in_thread
        self._batch = settings.outbox.batch
        self._first_wait, self._longest_wait = core.backoff, core.max_backoff
        self._at_work: set[_Work] = set()

    async def send_due(self) -> None:
        """Send what is due."""
        await self._run(_Work(find=partial(outbox.due, self._using, self._batch), wait=False))

    async def flush(self, record_id: int) -> None:
        """Send the rows of a record, and those that must precede them; see `OutboxFlush`."""
        find = partial(outbox.of_record, self._using, record_id, self._batch)
        work = _Work(find=find, wait=True)
        await self._run(work)
        for error in work.failures.values():
            if not isinstance(error, _REFUSED):
                raise error

    async def delete_sent(self, *, older_than: float, limit: int) -> int:
        """See `outbox.delete_sent`."""
        return await self._in_thread(
            _with_fresh_connections(
                partial(outbox.delete_sent, self._using, older_than=older_than, limit=limit)
            )
        )

    def halt(self) -> None:
        """Try no further row; those in hand are finished."""
        for work in self._at_work:
            work.halted = True

    # --- on the event loop ------------------------------------------------------------------------

    async def _run(self, work: _Work) -> None:
        self._at_work.add(work)
        rounds = partial(self._rounds, work, asyncio.get_running_loop())
        running = asyncio.ensure_future(self._in_thread(_with_fresh_connections(rounds)))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            work.halted = True
            if work.sending is not None:
                work.sending.cancel()
            await asyncio.wait([running], timeout=_GRACE)
            if running.done() and not running.cancelled() and (error := running.exception()):
                logger.warning("the outbox, after a cancellation: %r", error)
            raise
        finally:
            self._at_work.discard(work)

    async def _send(self, rows: list[OutboxMessage], work: _Work, this: _Round) -> None:
        """Send each lane in order; the relay's lanes beside each other."""
        work.sending = asyncio.current_task()
        lanes: defaultdict[object, list[OutboxMessage]] = defaultdict(list)
        for row in rows:
            lanes[None if work.wait else _lane(row)].append(row)
        async with asyncio.TaskGroup() as group:
            for lane in lanes.values():
                group.create_task(self._send_lane(lane, work, this))

    async def _send_lane(self, lane: list[OutboxMessage], work: _Work, this: _Round) -> None:
        for row in lane:
            if work.halted:
                return
            if row.ordering_key in work.blocked:
                continue
            try:
                async with asyncio.timeout(self._patience):
                    # The row waits for the broker, and not its lock with it.
                    await outbox.restored(row).send(self._producer, outage_timeout=0)
            except Exception as error:  # noqa: BLE001 - whatever it is, the row is kept, with its error
                this.failed.append((row, error))
                _report(row, error)
                work.blocked |= {row.ordering_key} - {""}
                work.halted |= isinstance(error, BrokerUnavailable | ClosedError)
                if not isinstance(error, _REFUSED):
                    return
            else:
                this.sent.append(row)

    @property
    def _patience(self) -> float | None:
        return None if connections[self._using].features.has_select_for_update else _LOCKED_PATIENCE

    # --- in the thread ----------------------------------------------------------------------------

    def _rounds(self, work: _Work, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(_ROUNDS):
            candidates = [c for c in work.find() if c.id not in work.failures]
            if not candidates or not self._round(candidates, work, loop) or work.halted:
                return

    def _round(self, candidates: list[Candidate], work: _Work, loop: asyncio.AbstractEventLoop) -> bool:
        """Lock, send, mark; False when another round would not get further."""
        this = _Round()
        with transaction.atomic(using=self._using):
            rows = outbox.lock(self._using, candidates, wait=work.wait)
            if rows:
                # After a cancellation, what was confirmed before it is marked all the same.
                with contextlib.suppress(concurrent.futures.CancelledError):
                    asyncio.run_coroutine_threadsafe(self._send(rows, work, this), loop).result()
            outbox.mark_sent(self._using, this.sent)
            for row, error in this.failed:
                outbox.mark_failed(self._using, row, error, wait=self._wait(row.attempts))
        work.failures |= {row.id: error for row, error in this.failed}
        return bool(this.sent) or (work.wait and not rows)

    def _wait(self, attempts: int) -> float:
        wait = min(self._first_wait * 2.0 ** min(attempts, 16), self._longest_wait)
        return float(wait * random.uniform(0.5, 1.0))


def _with_fresh_connections[T](function: Callable[[], T]) -> Callable[[], T]:
    """The function with its thread's connections checked before and after it, as for a request."""

    def checked() -> T:
        refresh()
        try:
            return function()
        finally:
            refresh()

    return checked


def _lane(row: OutboxMessage) -> object:
    """Rows of one lane are sent one after the other: those of a key, and those of a handler."""
    return row.ordering_key or row.serializable_value("record") or row


def _report(row: OutboxMessage, error: Exception) -> None:
    refused = isinstance(error, _REFUSED)
    logger.log(
        logging.ERROR if refused else logging.WARNING,
        "outbox message %d to %s %s is kept%s, message_id=%r, correlation_id=%r, attempt %d: %r",
        row.pk,
        f"exchange {row.exchange}" if row.exchange else "queue",
        row.routing_key,
        " until somebody mends what is wrong with it" if refused else "",
        row.message_id,
        row.correlation_id,
        row.attempts + 1,
        error,
    )
