"""The one statement that claims and completes many leases: what each row becomes, and when it may."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper

from autosell_rmq_django.store.dialect import Dialect

_ABOUT = ("queue", "correlation_id", "fingerprint", "attempt")
_COLUMNS = ("key", *_ABOUT, "lease_token", "state", "has_outbox", "reply", "expires", "completed", "created")
_NEW = (*_ABOUT, "reply", "expires", "completed", "has_outbox")  # beside token, state and created
_NO_NOTE = {"note_state": "''", "note_data": "NULL", "note_expires": "NULL"}

# Nobody holds the row: it has expired, or there is no more than a note.
_FREE = "NOT ({table}.{expires} > {now} AND {table}.{state} IN ('processing', 'done'))"

# What a row is made of: key, queue, correlation id, fingerprint, attempt, token, state, has messages in the
# outbox, data, seconds.
type Values = tuple[str, str, str, str, int, str, str, bool, bytes | None, float]


class Upsert:
    """A row for each claim and each result, inserted or written over the one that is there.

    It is written over what nobody holds, over the holder's own claim (whose lease starts anew), and a result
    over the holder's own result too. Rows are locked in the order in which they are given.

    Attributes:
        tells: it returns key and id of what was written, and waits for locks no longer than it is told, so it
            may be a transaction by itself. Otherwise both is left to the caller.
    """

    def __init__(self, connection: BaseDatabaseWrapper, dialect: Dialect) -> None:
        self._dialect = dialect
        self.tells = connection.vendor == "postgresql"
        quote = connection.ops.quote_name
        table = quote(apps.get_model("autosell_rmq", "IdempotencyRecord")._meta.db_table)
        names = {name: quote(name) for name in (*_COLUMNS, *_NO_NOTE)}
        mysql = connection.vendor == "mysql"
        over = _on_duplicate_key() if mysql else _on_conflict()
        self._over = over.format(table=table, now=dialect.now, **names)
        self._insert = f"INSERT INTO {table} ({', '.join(names[name] for name in _COLUMNS)})"
        binary = "_binary %s" if mysql else "%s"  # which cannot be NULL
        about = ", ".join(["%s"] * 8)
        self._claim = f"({about}, NULL, {dialect.later}, NULL, {dialect.now})"
        self._result = f"({about}, {binary}, {dialect.later}, {dialect.now}, {dialect.now})"
        if self.tells:
            self._statement = (
                f"{self._insert} {_FROM_ARRAYS}{self._over} RETURNING {names['key']}, {quote('id')}"
            )

    def statement(self, rows: Sequence[Values], *, patience: float) -> tuple[str, list[Any]]:
        """The SQL for these rows, and its parameters."""
        if self.tells:
            columns = map(list, zip(*rows, strict=True))
            return self._statement, [f"{math.ceil(patience * 1000)}ms", *columns]
        sql: list[str] = []
        values: list[Any] = []
        for *about, data, seconds in rows:
            sql.append(self._claim if data is None else self._result)
            values += about if data is None else (*about, data)
            values.append(self._dialect.span(seconds))
        return f"{self._insert} VALUES {', '.join(sql)}{self._over}", values


# Arrays, since a text that stays the same is read once by the driver. A timeout is looked at when a lock is
# waited for, so this one counts for its own statement.
_FROM_ARRAYS = """
SELECT key, queue, correlation_id, fingerprint, attempt, token, state, has_outbox, reply,
  clock_timestamp() + seconds * interval '1 second',
  CASE WHEN state = 'done' THEN clock_timestamp() END, clock_timestamp()
FROM (SELECT set_config('lock_timeout', %s, true) AS timeout OFFSET 0) AS patience, unnest(
  %s::text[], %s::text[], %s::text[], %s::text[], %s::int[], %s::text[], %s::text[], %s::bool[],
  %s::bytea[], %s::float8[]
) AS new (key, queue, correlation_id, fingerprint, attempt, token, state, has_outbox, reply, seconds)
WHERE timeout IS NOT NULL"""


def _on_conflict() -> str:
    """PostgreSQL and SQLite: one condition, asked of the locked row."""
    mine = "{table}.{lease_token} = excluded.{lease_token}"
    is_result = "excluded.{state} = 'done'"
    new = [f"{{{name}}} = excluded.{{{name}}}" for name in (*_NEW, "lease_token", "state")]
    created = f"{{created}} = CASE WHEN {mine} THEN {{table}}.{{created}} ELSE excluded.{{created}} END"
    notes = [
        f"{{{name}}} = CASE WHEN {is_result} THEN {none} ELSE {{table}}.{{{name}}} END"
        for name, none in _NO_NOTE.items()
    ]
    return (
        f" ON CONFLICT ({{key}}) DO UPDATE SET {', '.join([*new, created, *notes])}"
        f" WHERE {_FREE} OR ({mine} AND ({is_result} OR {{table}}.{{state}} = 'processing'))"
    )


def _on_duplicate_key() -> str:
    """MySQL: no condition, and an assignment sees what those before it have assigned.

    So the token goes first, where the row may be written over at all; then the state, of a row that bears our
    token now; and the rest where both are as they should be.
    """
    mine = "{lease_token} = VALUES({lease_token})"
    is_result = "VALUES({state}) = 'done'"
    may = f"({_FREE} OR ({mine} AND ({is_result} OR {{state}} = 'processing')))".replace("{table}.", "")
    over_result = "{state} = 'done' AND {expires} > {now}"
    written = f"{mine} AND {{state}} = VALUES({{state}})"
    new = {
        "created": f"IF({may} AND NOT {mine}, VALUES({{created}}), {{created}})",
        "lease_token": f"IF({may}, VALUES({{lease_token}}), {{lease_token}})",
        "state": f"IF({mine} AND ({is_result} OR NOT ({over_result})), VALUES({{state}}), {{state}})",
    }
    new |= {name: f"IF({written}, VALUES({{{name}}}), {{{name}}})" for name in _NEW}
    new |= {name: f"IF({written} AND {is_result}, {none}, {{{name}}})" for name, none in _NO_NOTE.items()}
    return " ON DUPLICATE KEY UPDATE " + ", ".join(f"{{{name}}} = {value}" for name, value in new.items())
