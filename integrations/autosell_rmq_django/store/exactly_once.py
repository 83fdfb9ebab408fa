"""Exactly-once effect: claim, handler, stored result and outbox rows in one transaction of one thread."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from django.db import DataError, Error, InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from autosell_rmq import Call, InProgress, Reject, RetryLater, Stored, StoreUnavailable
from autosell_rmq_django.store.context import CurrentTransaction, entered
from autosell_rmq_django.store.dialect import causes
from autosell_rmq_django.store.row import Row
from autosell_rmq_django.store.table import Claimant, Restart, Table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a run came to.

    Attributes:
        record_id: of its record.
        has_unsent: its messages in the outbox have to be sent before the reply.
    """

    stored: Stored
    record_id: int
    has_unsent: bool


class Attempt:
    """How far one transaction has come, for judging what went wrong.

    Attributes:
        connection: the driver's, which this transaction began on.
        committed: there is no way back.
        ended: what it comes to, once it is committed.
    """

    def __init__(self) -> None:
        self.phase: Literal["claim", "handler", "result"] = "claim"
        self.connection: Any = None
        self.committed = False
        self.ended: Ended | None = None

    def commit(self) -> None:
        self.committed = True


class ExactlyOnce:
    """Runs a handler in a transaction of the table's database.

    Nothing of it can be seen before the commit, and after the commit everything: a crash, at whatever
    point, leaves either a duplicate with a stored result or a key that nobody holds.

    Args:
        table: of the records.
        lease: seconds; says only when a claim that was committed by accident (by DDL on MariaDB) expires.
        ttl: seconds that a result is remembered.
    """

    def __init__(self, table: Table, *, lease: float, ttl: float) -> None:
        self._table = table
        self._lease = lease
        self._ttl = ttl

    def run(self, key: str, fingerprint: str, call: Call) -> Ended:
        """Run `call` in this thread, unless the key is done.

        Raises:
            InProgress: another transaction holds the key, or did for longer than the lock timeout.
            Restart: nothing has happened; run it again from the start.
            StoreUnavailable: the database is gone. It knows whether the transaction was committed.
        """
        connection = connections[self._table.alias]
        refresh(connection)
        try:
            return self._run(key, fingerprint, call)
        finally:
            refresh(connection)

    def _run(self, key: str, fingerprint: str, call: Call) -> Ended:
        attempt = Attempt()
        try:
            row = self._look(key)
            if row is not None and row.stands:
                return self._duplicate(row)
            return self._transact(attempt, Claimant.of(key, fingerprint, secrets.token_hex(16), call), call)
        except BaseException as error:
            if attempt.committed and attempt.ended and not isinstance(error, SystemExit | KeyboardInterrupt):
                # Out of a user's transaction.on_commit, say. The effect is there, and so is the result.
                logger.exception("an error after the commit of a handled message, which stays handled")
                return attempt.ended
            judged = self._judged(error, attempt)
            if judged is error:
                raise
            raise judged from error

    def _look(self, key: str) -> Row | None:
        """See a late duplicate without a transaction, and without waiting for SQLite's one writer."""
        connection = connections[self._table.alias]
        reused = connection.connection is not None and not connection.in_atomic_block
        try:
            with connection.cursor() as cursor:
                return self._table.find(cursor, key)
        except (OperationalError, InterfaceError) as error:
            if not reused or not self._table.dialect.is_lost(error):
                raise
        connection.close()  # the server had closed it while it was idle
        with connection.cursor() as cursor:
            return self._table.find(cursor, key)

    def _transact(self, attempt: Attempt, by: Claimant, call: Call) -> Ended:
        assert call.run_sync is not None
        table = self._table
        connection = connections[table.alias]
        outermost = not connection.in_atomic_block  # a test may have put us into a transaction of its own
        with transaction.atomic(using=table.alias):
            attempt.connection = connection.connection
            if outermost:
                transaction.on_commit(attempt.commit, using=table.alias)  # the first, so it runs first
            with connection.cursor() as cursor:
                with table.dialect.lock_timeout(cursor, table.lock_timeout):
                    claimed = table.claim(cursor, by, lease=self._lease)
                if isinstance(claimed, Row):
                    return self._duplicate(claimed)
                attempt.phase = "handler"
                with entered(CurrentTransaction(alias=table.alias, record_id=claimed)) as current:
                    data = call.run_sync()
                attempt.phase = "result"
                finished = table.finish(
                    cursor, by.key, by.token, data, ttl=self._ttl, has_outbox=current.has_outbox
                )
            if not finished:
                # MariaDB undoes a whole transaction over a deadlock, and the handler did not let us know.
                raise Restart(f"the claim on {by.key} was undone while its handler ran")
            stored = Stored(data=data, fingerprint=by.fingerprint, duplicate=False)
            attempt.ended = Ended(stored=stored, record_id=claimed, has_unsent=current.has_outbox)
        return attempt.ended

    def _duplicate(self, row: Row) -> Ended:
        if row.state == "processing":
            raise InProgress("the key is being handled by another worker")
        has_unsent = False
        if row.has_outbox:
            with connections[self._table.alias].cursor() as cursor:
                has_unsent = self._table.has_unsent(cursor, row.id)
        stored = Stored(data=row.reply or b"", fingerprint=row.fingerprint, duplicate=True)
        return Ended(stored=stored, record_id=row.id, has_unsent=has_unsent)

    def _judged(self, error: BaseException, attempt: Attempt) -> BaseException:
        """What an error means; itself where it is the handler's own."""
        if attempt.phase == "claim":
            return judged_before_handler(error, self._table)
        if not isinstance(error, Exception) or isinstance(error, Reject | RetryLater | Restart):
            return error
        if connections[self._table.alias].closed_in_transaction:
            return error  # the handler closed its own connection
        dialect = self._table.dialect
        if any(isinstance(each, Error) and dialect.restarts(each) for each in causes(error)):
            return Restart(f"the database gave the transaction up: {error}")
        lost = dialect.is_lost(error) or dialect.is_closed(attempt.connection)
        if lost or (attempt.phase == "result" and isinstance(error, OperationalError | InterfaceError)):
            return StoreUnavailable(f"the database {self._table.alias!r} failed in a transaction: {error}")
        return error


def refresh(connection: BaseDatabaseWrapper) -> None:
    """Close this thread's connection if it is broken or too old; not in a transaction of a test's."""
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()


def judged_before_handler(error: BaseException, table: Table) -> BaseException:
    """What an error means while nothing but the record has been touched."""
    if not isinstance(error, Error) or isinstance(error, DataError):
        return error
    if table.dialect.timed_out(error):
        return InProgress(f"the key is being handled by another worker: {error}")
    if table.dialect.restarts(error):
        return Restart(f"the database gave the claim up: {error}")
    return StoreUnavailable(f"the database {table.alias!r} does not keep idempotency records: {error}")
