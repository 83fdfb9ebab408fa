"""The lease's primitives on the database: each batch a short transaction in a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from django.db import Error

from autosell_rmq import Note
from autosell_rmq_django.store.exactly_once import judged_before_handler, refresh
from autosell_rmq_django.store.row import Row
from autosell_rmq_django.store.table import Claimant, Entry, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something to do with a claim; each may be repeated.

    Attributes:
        data: of a completion, the result.
    """

    kind: Literal["claim", "complete", "release"]
    by: Claimant
    data: bytes | None = None


class Leases:
    """The steps of `LeaseStore`, run in the calling thread.

    Args:
        table: of the records.
        lease: seconds that a claim lives without renewal.
        ttl: seconds that a result is remembered.
    """

    def __init__(self, table: Table, *, lease: float, ttl: float) -> None:
        self._table = table
        self._lease = lease
        self._ttl = ttl

    def find(self, key: str) -> Row | None:
        """The key's row, expired or not."""
        with self._table.connection.cursor() as cursor:
            return self._table.find(cursor, key)

    def note(self, key: str, note: Note) -> None:
        """See `IdempotencyStore.note`."""
        with self._table.bounded(self._table.lock_timeout) as cursor:
            self._table.note(cursor, key, note, ttl=self._ttl)

    def carry_out(self, steps: Sequence[Step], *, patience: float) -> list[Row | None]:
        """Claims, results and releases of different keys; they wait `patience` seconds for locks.

        Returns:
            for each None if it was done, else the row that stands in the way. A release is always done.
        """
        releases = sorted((step.by.key, step.by.token) for step in steps if step.kind == "release")
        entries = [Entry(by=step.by, data=step.data) for step in steps if step.kind != "release"]
        found: dict[str, Row | int] = {}
        if entries:
            found = self._table.write_leases(entries, lease=self._lease, ttl=self._ttl, patience=patience)
        if releases:  # in a transaction of their own, so that keys are locked in order
            with self._table.bounded(patience) as cursor:
                for key, token in releases:
                    self._table.release(cursor, key, token)
        rows = {key: row for key, row in found.items() if isinstance(row, Row)}
        return [rows.get(step.by.key) for step in steps]

    def run[T](self, step: Callable[[], T]) -> T:
        """Run one of the steps on a connection that is fit for it, and translate what goes wrong."""
        connection = self._table.connection
        refresh(connection)
        reused = connection.connection is not None and not connection.in_atomic_block
        try:
            try:
                return step()
            except Error as error:
                if not (reused and self._table.dialect.is_lost(error)):
                    raise
            connection.close()  # the server had closed it while it was idle; a step may be repeated
            return step()
        except Error as error:
            raise judged_before_handler(error, self._table) from error
        finally:
            refresh(connection)

    def end(self) -> None:
        """Close the connection of this thread."""
        self._table.connection.close()
