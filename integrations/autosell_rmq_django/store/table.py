"""What is done to the idempotency records: finding, claiming, noting, finishing a key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from autosell_rmq import Call, Note
from autosell_rmq_django.store.dialect import Dialect
from autosell_rmq_django.store.dialects import dialect_of
from autosell_rmq_django.store.row import Row, row_of
from autosell_rmq_django.store.statements import Statements
from autosell_rmq_django.store.upsert import Upsert, Values

_KEY = re.compile(r"[0-9a-f]{64}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # in no database's text


class Restart(Exception):
    """The database gave this transaction up, or the record changed under it: run it again from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """Who claims a key: what the record is to say of the message, and the token that fences others off."""

    key: str
    fingerprint: str
    token: str
    queue: str = ""
    correlation_id: str = ""
    attempt: int = 1

    @classmethod
    def of(cls, key: str, fingerprint: str, token: str, call: Call) -> Claimant:
        """The claimant for a run of `call`."""
        return cls(
            key=key,
            fingerprint=fingerprint,
            token=token,
            queue=_storable(call.queue),
            correlation_id=_storable(call.correlation_id or ""),
            attempt=call.attempt,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be written of a key: with `data` its result, without it the claim."""

    by: Claimant
    data: bytes | None = None
    has_outbox: bool = False

    def values(self, seconds: float) -> Values:
        """Its row, which counts so long."""
        by, state = self.by, "processing" if self.data is None else "done"
        about = by.key, by.queue, by.correlation_id, by.fingerprint, by.attempt, by.token
        return *about, state, self.has_outbox, self.data, seconds

    def is_in(self, row: Row) -> bool:
        """Whether it was written."""
        return row.token == self.by.token and row.state == ("processing" if self.data is None else "done")


class Table:
    """The records of one database, by the connection of the calling thread.

    Args:
        alias: of the database.
        lock_timeout: seconds that a claim waits for another transaction that holds its key.
    """

    def __init__(self, alias: str, *, lock_timeout: float) -> None:
        self.alias = alias
        self.lock_timeout = lock_timeout
        self.dialect: Dialect = dialect_of(connections[alias])
        self._sql = Statements(connections[alias], self.dialect)
        self._upsert = Upsert(connections[alias], self.dialect)
        # The driver's type for bytes. The stubs do not know a wrapper's driver.
        self._binary: Callable[[bytes], bytes] = cast("Any", connections[alias]).Database.Binary

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """Of the calling thread."""
        return connections[self.alias]

    @contextmanager
    def bounded(self, seconds: float) -> Generator[CursorWrapper]:
        """A transaction whose statements wait for locks no longer than that."""
        with (
            transaction.atomic(using=self.alias),
            self.connection.cursor() as cursor,
            self.dialect.lock_timeout(cursor, seconds),
        ):
            yield cursor

    def find(self, cursor: CursorWrapper, key: str, *, lock: bool = False) -> Row | None:
        """The row of `key`, expired or not."""
        cursor.execute(self._sql.select + (self.dialect.lock if lock else ""), [key])
        found = cursor.fetchone()
        return None if found is None else row_of(found)

    def find_all(self, cursor: CursorWrapper, keys: Sequence[str]) -> dict[str, Row]:
        """The rows of `keys` that exist, expired or not."""
        if not keys:
            return {}
        cursor.execute(f"{self._sql.select_many}({', '.join(['%s'] * len(keys))})", keys)
        return {found[0]: row_of(found) for found in cursor.fetchall()}

    def claim(self, cursor: CursorWrapper, by: Claimant, *, lease: float) -> Row | int:
        """Take the key: the id of its row, or the live row that stands in the way.

        It waits for a transaction that holds the key. A row that has expired is overwritten, and one that
        is the claimant's own already starts anew.

        Raises:
            Restart: the row was there and is gone.
        """
        span = self.dialect.span(lease)
        about: list[str | int] = [by.queue, by.correlation_id, by.fingerprint, by.attempt, by.token]
        cursor.execute(self._sql.insert, [by.key, *about, span])
        if self.dialect.inserts_tell and (inserted := self._inserted(cursor)) is not None:
            return inserted
        row = self.find(cursor, by.key, lock=True)
        if row is None:
            raise Restart(f"the record of {by.key} was deleted")
        if row.stands and not (row.state == "processing" and row.token == by.token):
            return row
        # Nobody else can have changed it since: this transaction has locked it.
        cursor.execute(self._sql.overwrite, [*about, span, row.id])
        return row.id

    def finish(
        self,
        cursor: CursorWrapper,
        key: str,
        token: str,
        data: bytes,
        *,
        ttl: float,
        has_outbox: bool = False,
    ) -> bool:
        """Store the result; False when the claim with that token does not hold the key.

        Raises:
            MessageTooLarge: no statement can carry it.
        """
        self.dialect.check_size(cursor, data)
        reply = self._binary(data)
        cursor.execute(self._sql.finish, [reply, has_outbox, self.dialect.span(ttl), key, token])
        return bool(cursor.rowcount == 1)

    def write(
        self, cursor: CursorWrapper, entries: Sequence[Entry], *, lease: float, ttl: float, patience: float
    ) -> dict[str, Row | int]:
        """Claim keys and store results in one statement; see `Upsert` for what a row is written over.

        Locks are waited for `patience` seconds, where the statement can tell it; the transaction may be
        `bounded` besides. Each key may come once.

        Returns:
            for each key the id of its row, or the row that stands in the way.

        Raises:
            Restart: that row was there and is gone.
            MessageTooLarge: no statement can carry a result.
        """
        entries = sorted(entries, key=lambda entry: entry.by.key)  # so that two that meet do not deadlock
        for entry in entries:
            self.dialect.check_size(cursor, entry.data or b"")
        rows = [entry.values(ttl if entry.data is not None else lease) for entry in entries]
        cursor.execute(*self._upsert.statement(rows, patience=patience))
        keys = [entry.by.key for entry in entries]
        if self._upsert.tells:
            written: dict[str, int] = dict(cursor.fetchall())
            found = self.find_all(cursor, [key for key in keys if key not in written])
        else:
            found = self.find_all(cursor, keys)
            written = {e.by.key: found[e.by.key].id for e in entries if e.is_in(found[e.by.key])}
        return {key: written[key] if key in written else _in_the_way(found, key) for key in keys}

    def write_leases(
        self, entries: Sequence[Entry], *, lease: float, ttl: float, patience: float
    ) -> dict[str, Row | int]:
        """`write` in a transaction of its own, which the statement is where it can be."""
        connection = self.connection
        # In a test's transaction it is not alone.
        may_be_alone = self._upsert.tells and not connection.in_atomic_block
        with connection.cursor() if may_be_alone else self.bounded(patience) as cursor:
            return self.write(cursor, entries, lease=lease, ttl=ttl, patience=patience)

    def release(self, cursor: CursorWrapper, key: str, token: str) -> None:
        """Forget the claim with that token; a result stays, and a note comes to light again."""
        cursor.execute(self._sql.uncover, [key, token])
        cursor.execute(self._sql.release, [key, token])

    def note(self, cursor: CursorWrapper, key: str, note: Note, *, ttl: float) -> None:
        """See `IdempotencyStore.note`; it waits for a transaction that holds the key.

        Raises:
            Restart: the row was there and is gone.
        """
        message = [_storable(note.queue), _storable(note.correlation_id or "")]
        span = self.dialect.span(ttl)
        noted: list[str | bytes | float] = [note.state, self._binary(note.data), span]
        whole = [*message, note.fingerprint, note.attempt, "", *noted, note.state, span]
        cursor.execute(self._sql.insert_note, [key, *whole])
        if self.dialect.inserts_tell and self._inserted(cursor) is not None:
            return
        row = self.find(cursor, key, lock=True)
        if row is None:
            raise Restart(f"the record of {key} was deleted")
        if not row.stands:
            cursor.execute(self._sql.overwrite_by_note, [*whole, row.id])
        elif row.state == "processing":
            cursor.execute(self._sql.note, [*noted, row.id])

    def has_unsent(self, cursor: CursorWrapper, record_id: int) -> bool:
        """Whether messages wait in the outbox that the handler of this record wrote."""
        cursor.execute(self._sql.unsent, [record_id])
        return cursor.fetchone() is not None

    def _inserted(self, cursor: CursorWrapper) -> int | None:
        if "RETURNING" in self.dialect.ignore:
            found = cursor.fetchone()
            return int(found[0]) if found else None
        return int(cursor.lastrowid) if cursor.rowcount == 1 else None


def _in_the_way(found: Mapping[str, Row], key: str) -> Row:
    row = found.get(key)
    if row is None or not row.stands:
        raise Restart(f"the record of {key} stood in the way and is gone")
    return row


def row_key(key: str) -> str:
    """The key as the column holds it: the core's are 64 hex digits, and any other is made such."""
    if _KEY.fullmatch(key):
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _storable(text: str) -> str:
    return _UNSTORABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
