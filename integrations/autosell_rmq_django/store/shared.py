"""Exactly-once runs in one transaction: a savepoint for each, one statement for all claims or results."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

from autosell_rmq import Apart, Call, InProgress, Stored, StoreUnavailable
from autosell_rmq_django.store.context import CurrentTransaction, entered
from autosell_rmq_django.store.exactly_once import Attempt, Ended, ExactlyOnce, refresh
from autosell_rmq_django.store.row import Row
from autosell_rmq_django.store.table import Claimant, Entry, Restart

logger = logging.getLogger(__name__)

_PATIENCE = 0.1  # seconds that the claims wait for locks together; then each waits alone, for `lock_timeout`
_MOST_BYTES = 256 * 1024  # of results in one statement; below MariaDB's least max_allowed_packet

type _Answers = dict[str, Ended | BaseException]


@dataclass(eq=False, slots=True, kw_only=True)
class Run:
    """A call that waits for its transaction.

    Attributes:
        under_way: running while a thread has it in hand; cancelled, the call is left out.
    """

    key: str
    fingerprint: str
    call: Call
    under_way: Future[object] = field(default_factory=Future[object])


class SharedTransactions(ExactlyOnce):
    """Runs handlers one after the other in one transaction of this thread.

    One that fails is rolled back to its savepoint, with its effects, its rows of the outbox and its hooks of
    `transaction.on_commit`, and its claim is released. What takes the whole transaction (a deadlock, a locked
    key, a constraint that fails at the commit) is answered by `Apart`: nothing has happened, and each goes
    into a transaction of its own.
    """

    def run_alone(self, run: Run) -> Ended:
        """See `ExactlyOnce.run`."""
        with _in_hand([run]) as [*begun]:
            if not begun:
                raise asyncio.CancelledError
            return self.run(run.key, run.fingerprint, run.call)

    def run_all(self, runs: Sequence[Run]) -> Sequence[Ended | BaseException]:
        """Run the calls, of different keys.

        Returns:
            for each what it came to, or the error that is its own.

        Raises:
            Apart: nothing has happened, and each may be run alone.
            StoreUnavailable: the database is gone. It knows whether the transaction was committed.
        """
        connection = connections[self._table.alias]
        refresh(connection)
        with _in_hand(runs) as begun:
            try:
                ended = self._run_all(begun) if begun else {}
            finally:
                refresh(connection)
        return [ended.get(run.key) or asyncio.CancelledError() for run in runs]

    def _run_all(self, runs: Sequence[Run]) -> _Answers:
        attempt = Attempt()
        answers: _Answers = {}
        try:
            self._transact_all(attempt, runs, answers)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            if attempt.committed:
                logger.exception("an error after the commit of handled messages, which stay handled")
                return answers
            judged = self._judged(error, attempt)
            if isinstance(judged, StoreUnavailable):
                raise judged from error
            raise Apart(str(judged)) from error
        return answers

    def _transact_all(self, attempt: Attempt, runs: Sequence[Run], answers: _Answers) -> None:
        table = self._table
        connection = connections[table.alias]
        by = {run.key: Claimant.of(run.key, run.fingerprint, secrets.token_hex(16), run.call) for run in runs}
        patience = min(_PATIENCE, table.lock_timeout)
        outermost = not connection.in_atomic_block  # a test may have put us into a transaction of its own
        with transaction.atomic(using=table.alias), connection.cursor() as cursor:
            attempt.connection = connection.connection
            if outermost:
                transaction.on_commit(attempt.commit, using=table.alias)  # the first, so it runs first
            with table.dialect.lock_timeout(cursor, patience):
                claimed = self._write(cursor, [Entry(by=each) for each in by.values()], patience)
            attempt.phase = "handler"
            results = list[Entry]()
            for run in runs:
                answer = claimed[run.key]
                answers[run.key] = (
                    self._duplicate_or_busy(answer)
                    if isinstance(answer, Row)
                    else self._handled(attempt, run, by[run.key], answer, results)
                )
            attempt.phase = "result"
            if outermost:
                _let_hooks_fail_alone(connection)
            for some in _portions(results):
                if any(isinstance(each, Row) for each in self._write(cursor, some, patience).values()):
                    raise Restart("a claim was undone while its handler ran")
            for key in sorted(key for key, answer in answers.items() if isinstance(answer, BaseException)):
                table.release(cursor, key, by[key].token)

    def _write(
        self, cursor: CursorWrapper, entries: Sequence[Entry], patience: float
    ) -> dict[str, Row | int]:
        return self._table.write(cursor, entries, lease=self._lease, ttl=self._ttl, patience=patience)

    def _duplicate_or_busy(self, row: Row) -> Ended | InProgress:
        try:
            return self._duplicate(row)
        except InProgress as error:
            return error

    def _handled(
        self, attempt: Attempt, run: Run, by: Claimant, record_id: int, results: list[Entry]
    ) -> Ended | BaseException:
        """Run one handler in its savepoint; what it raises is its answer while the transaction is sound."""
        assert run.call.run_sync is not None
        alias = self._table.alias
        connection = connections[alias]
        try:
            with (
                transaction.atomic(using=alias),
                entered(CurrentTransaction(alias=alias, record_id=record_id)) as current,
                connection.cursor() as cursor,
            ):
                data = run.call.run_sync()
                self._table.dialect.check_size(cursor, data)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            unsound = connection.needs_rollback or connection.closed_in_transaction
            if unsound or self._judged(error, attempt) is not error:
                raise
            return error
        results.append(Entry(by=by, data=data, has_outbox=current.has_outbox))
        stored = Stored(data=data, fingerprint=run.fingerprint, duplicate=False)
        return Ended(stored=stored, record_id=record_id, has_unsent=current.has_outbox)


def _let_hooks_fail_alone(connection: Any) -> None:  # noqa: ANN401 - the stubs do not know `robust`
    """One message's hook that fails is logged, and does not take those of the others with it."""
    connection.run_on_commit = [(ids, hook, True) for ids, hook, _ in connection.run_on_commit]


@contextmanager
def _in_hand(runs: Sequence[Run]) -> Generator[Sequence[Run]]:
    """Those of the runs whose callers are still there, and can only abandon them from now on."""
    begun = [run for run in runs if run.under_way.set_running_or_notify_cancel()]
    try:
        yield begun
    finally:
        for run in begun:
            over, run.under_way = run.under_way, Future()
            over.set_result(None)


def _portions(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Such that a statement can carry each."""
    portion, size = list[Entry](), 0
    for entry in entries:
        size += len(entry.data or b"")
        if portion and size > _MOST_BYTES:
            yield portion
            portion, size = [], len(entry.data or b"")
        portion.append(entry)
    if portion:
        yield portion
