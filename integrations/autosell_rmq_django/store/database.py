"""`DatabaseStore`: the core's idempotency store on one of Django's databases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import override

from django.db import DEFAULT_DB_ALIAS
from django.utils.connection import ConnectionDoesNotExist

from autosell_rmq import (
    Apart,
    Batching,
    Call,
    Claim,
    ClosedError,
    ConfigError,
    InProgress,
    LeaseStore,
    Note,
    Record,
    Stored,
    StoreError,
    StoreUnavailable,
    ThreadPool,
)
from autosell_rmq_django.store.exactly_once import ExactlyOnce
from autosell_rmq_django.store.lease import Leases, Step
from autosell_rmq_django.store.restarting import restarting
from autosell_rmq_django.store.row import Row
from autosell_rmq_django.store.shared import SharedTransactions
from autosell_rmq_django.store.sharing import Sharing
from autosell_rmq_django.store.table import Claimant, Table, row_key

logger = logging.getLogger(__name__)

type OutboxFlush = Callable[[int], Awaitable[None]]

# What the records of leases say of their message: a `Claim` does not carry it.
_handled: ContextVar[Call | None] = ContextVar("handled", default=None)

_END = 5.0  # seconds that `close` waits for what the threads are doing

# Steps of leases that go together. Less data than MariaDB's least max_allowed_packet, whatever its escapes.
_MOST = 100
_MOST_BYTES = 256 * 1024
_PATIENCE = 0.1  # seconds that they wait for locks together; then each waits alone, for `lock_timeout`


class DatabaseStore(LeaseStore):
    """Remembers results in the table of `IdempotencyRecord`, for every process that uses this database.

    **A sync handler** runs inside a transaction of this database, together with its claim and its result: its
    effects in *this* database happen exactly once, whatever crashes. Not covered, so at least once: what it
    writes through another alias, calls over HTTP, or sends to the broker at once (``send_on_commit`` is
    covered). Inside, `transaction.atomic` makes savepoints, ``atomic(durable=True)`` raises `RuntimeError`,
    and an error out of ``transaction.on_commit``, after the commit, is logged and changes nothing. On
    MariaDB and MySQL, DDL in a handler commits, so a handler does without it.

    With ``batch=50`` on its handler up to so many messages of a queue share one transaction, as long as they
    come faster than it takes. Each handler has a savepoint, so one that fails fails alone; a deadlock, or a
    constraint that is checked at the commit, makes each run again in a transaction of its own. Locks are held
    until the last handler of a batch is done, and ``timeout`` reports the whole batch.

    **An async handler** (or one with ``effect="lease"``) runs under a lease, on the database's clock: see
    `LeaseStore`.

    A concurrent duplicate waits for the transaction that holds its key, up to `lock_timeout`; a deadlock or a
    serialization failure runs the whole transaction again. Then either takes the delay line, and no
    attempt is counted.

    Args:
        database: alias of the database; its table is made by ``migrate --database``.
        ttl: seconds that a result or a note is remembered.
        lease: seconds that an async handler's claim lives without renewal.
        lock_timeout: seconds that a claim waits for another that holds its key, rounded up to whole ones on
            MariaDB; on SQLite the ``timeout`` of the connection counts instead.
        outbox_flush: awaited with a record's id while the messages that its handler wrote to the outbox are
            unsent, after the commit and before the reply.
        threads: for the steps of leases; each opens a connection of its own.

    Raises:
        ConfigError: an argument is wrong.
    """

    durable = True
    transactional = True

    def __init__(
        self,
        *,
        database: str = DEFAULT_DB_ALIAS,
        ttl: float = 7 * 24 * 3600.0,
        lease: float = 60.0,
        lock_timeout: float = 2.0,
        outbox_flush: OutboxFlush | None = None,
        threads: int = 4,
    ) -> None:
        super().__init__(lease=lease, ttl=ttl)
        if not 0 < lock_timeout < float("inf"):
            raise ConfigError(f"lock_timeout={lock_timeout!r}: expected a number of seconds > 0")
        if threads < 1:
            raise ConfigError(f"threads={threads!r}: expected a whole number >= 1")
        try:
            table = Table(database, lock_timeout=lock_timeout)
        except ConnectionDoesNotExist:
            raise ConfigError(f"database={database!r}: there is no such alias in DATABASES") from None
        self.database = database
        self.outbox_flush = outbox_flush
        self._table = table
        self._exactly_once = ExactlyOnce(table, lease=lease, ttl=ttl)
        shared = SharedTransactions(table, lease=lease, ttl=ttl)
        self._sharing = Sharing(shared, lock_timeout=lock_timeout)
        self._leases = Leases(table, lease=lease, ttl=ttl)
        self._size = threads
        self._threads: ThreadPool | None = None
        self._together = self._gathering()

    @override
    async def open(self) -> None:
        """Connect and look into the table. Idempotent.

        Raises:
            ConfigError: the table does not exist.
            StoreUnavailable: the database does not answer.
        """
        if self._threads is not None:
            return
        self._threads = ThreadPool(self._size, name="autosell-rmq-store", at_end=self._leases.end)
        try:
            await self.lookup("")
        except StoreUnavailable as error:
            await self.close()
            if error.__cause__ is not None and self._table.dialect.is_missing(error.__cause__):
                raise ConfigError(
                    f"the database {self.database!r} has no table of idempotency records:"
                    f" manage.py migrate --database {self.database} autosell_rmq"
                ) from error
            raise
        except BaseException:
            await self.close()
            raise

    @override
    async def close(self) -> None:
        await self._sharing.close()
        together, self._together = self._together, self._gathering()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END):
                await together.close()
        pool, self._threads = self._threads, None
        if pool is None:
            return
        ended = [asyncio.to_thread(thread.join, _END) for thread in pool.stop()]
        await asyncio.gather(*ended)

    @override
    async def run_once(self, key: str, fingerprint: str, call: Call) -> Stored:
        """Run `call` in a transaction, or under a lease; see the class."""
        if call.run_sync is None or call.in_thread is None:
            return await self._run_leased(key, fingerprint, call)
        if call.batch > 1:
            ended = await self._sharing.run_once(row_key(key), fingerprint, call)
        else:
            run = partial(self._exactly_once.run, row_key(key), fingerprint, call)
            ended = await restarting(partial(call.in_thread, run))
        if ended.has_unsent:
            await self._flush(ended.record_id)
        return ended.stored

    @override
    async def lookup(self, key: str) -> Record | None:
        row = await self._step(partial(self._leases.find, row_key(key)))
        return row.record if row is not None else None

    @override
    async def note(self, key: str, note: Note) -> None:
        await _answered(self._step(partial(self._leases.note, row_key(key), note)))

    # --- the lease mode ------------------------------------------------------------------------------

    async def _run_leased(self, key: str, fingerprint: str, call: Call) -> Stored:
        token = _handled.set(call)  # the renewals are a task of their own, which inherits it
        try:
            return await super().run_once(key, fingerprint, call)
        finally:
            _handled.reset(token)

    @override
    async def claim(self, claim: Claim) -> Record | None:
        row = await self._together(Step(kind="claim", by=self._claimant(claim)))
        if row is None:
            return None
        if row.has_outbox:
            await self._flush(row.id)
        return row.record

    @override
    async def renew(self, claim: Claim) -> bool:
        step = Step(kind="claim", by=self._claimant(claim))
        return await _answered(self._together(step)) is None

    @override
    async def complete(self, claim: Claim, data: bytes) -> bool:
        step = Step(kind="complete", by=self._claimant(claim), data=data)
        return await _answered(self._together(step)) is None

    @override
    async def release(self, claim: Claim) -> None:
        await _answered(self._together(Step(kind="release", by=self._claimant(claim))))

    def _gathering(self) -> Batching[Step, Row | None]:
        return Batching(
            self._carry_out,
            key=lambda step: step.by.key,
            size=lambda step: len(step.data or b""),
            most=_MOST,
            most_bytes=_MOST_BYTES,
            at_once=self._size,
        )

    async def _carry_out(self, steps: Sequence[Step]) -> Sequence[Row | None]:
        if len(steps) == 1:
            patience = self._table.lock_timeout
            return await self._step(partial(self._leases.carry_out, steps, patience=patience))
        try:
            return await self._hop(partial(self._leases.carry_out, steps, patience=_PATIENCE))
        except (StoreUnavailable, ClosedError):
            raise
        except Exception as error:
            raise Apart from error  # a locked key, a deadlock, what the database refuses: one step's

    # --- on the way ----------------------------------------------------------------------------------

    async def _flush(self, record_id: int) -> None:
        """Send what the record's handler wrote to the outbox; the reply has to wait for it."""
        if self.outbox_flush is None:
            return
        try:
            await self.outbox_flush(record_id)
        except StoreError:
            raise
        except Exception as error:
            logger.warning("messages of a handled message could not be sent yet: %r", error)
            raise InProgress(f"its messages could not be sent yet: {error}") from error

    async def _step[T](self, step: Callable[[], T]) -> T:
        """Run a step in a thread of the store's own, until the database lets it through."""
        return await restarting(partial(self._hop, step))

    async def _hop[T](self, step: Callable[[], T]) -> T:
        if self._threads is None:
            raise self._not_open()
        return await asyncio.wrap_future(self._threads.submit(partial(self._leases.run, step)))

    def _not_open(self) -> ClosedError:
        return ClosedError(f"DatabaseStore({self.database!r}) is not open")

    @staticmethod
    def _claimant(claim: Claim) -> Claimant:
        call = _handled.get()
        key = row_key(claim.key)
        if call is None:
            return Claimant(key=key, fingerprint=claim.fingerprint, token=claim.token)
        return Claimant.of(key, claim.fingerprint, claim.token, call)


async def _answered[T](step: Awaitable[T]) -> T:
    """A step of a claim that stands: while a lock is in its way, the store does not answer."""
    try:
        return await step
    except InProgress as error:
        raise StoreUnavailable(f"the record is locked: {error}") from error
