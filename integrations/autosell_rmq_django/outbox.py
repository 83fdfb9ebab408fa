"""Rows of the outbox: written with their cause, locked by who sends them, marked when they are sent."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, override

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Exists, Min, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.db.models.sql.compiler import SQLCompiler

from autosell_rmq import EncodeError, PreparedSend, SendOptions
from autosell_rmq_django.models import OutboxMessage

_MAX_ERROR = 2000  # characters kept of an error's text
_MAX_KEY = 255  # characters of an ordering key


class DatabaseNow(Now):
    """The moment on the database's clock, in UTC: those of the processes may differ."""

    @override
    def as_mysql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any
    ) -> tuple[str, tuple[str | int, ...]]:
        # CURRENT_TIMESTAMP is in the session's time zone, and Django writes UTC.
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **context)


# --- writing -------------------------------------------------------------------------------------


def write(
    send: PreparedSend, *, using: str, ordering_key: str = "", record_id: int | None = None
) -> OutboxMessage:
    """Write a row in the current transaction of `using`.

    Raises:
        EncodeError: a header or an id is nothing that a row can keep.
    """
    if len(ordering_key) > _MAX_KEY:
        raise EncodeError(f"ordering_key is {len(ordering_key)} characters long; {_MAX_KEY} are the most")
    for name in ("routing_key", "correlation_id", "message_id"):
        _storable(name, getattr(send, name))
    return OutboxMessage.objects.using(using).create(
        record_id=record_id,
        exchange=send.exchange,
        exchange_type=send.exchange_type,
        routing_key=send.routing_key,
        body=send.body,
        options=_packed(send),
        correlation_id=send.correlation_id,
        message_id=send.message_id,
        ordering_key=_storable("ordering_key", ordering_key),
        available=DatabaseNow(),
    )


def restored(row: OutboxMessage) -> PreparedSend:
    """What was prepared when the row was written."""
    options = {name: _unpacked(value) for name, value in row.options.items()}
    return PreparedSend(
        body=bytes(row.body),
        routing_key=row.routing_key,
        correlation_id=row.correlation_id,
        message_id=row.message_id,
        exchange=row.exchange,
        exchange_type=row.exchange_type,
        mandatory=bool(options.pop("mandatory", True)),
        options=cast("SendOptions", options),
    )


def _packed(send: PreparedSend) -> dict[str, object]:
    options = {name: _pack(name, value) for name, value in send.options.items() if value is not None}
    return options if send.mandatory else {**options, "mandatory": False}


def _pack(name: str, value: object) -> object:
    """A value as JSON; what JSON has no type for is tagged, so that `_unpacked` finds it back."""
    match value:
        case None | bool() | int():
            return value
        case float() if value - value == 0:  # finite
            return value
        case str():
            return _storable(name, value)
        case bytes():
            return {"$base64": base64.b64encode(value).decode()}
        case dt.datetime():
            return {"$datetime": value.isoformat()}
        case Mapping():
            return {"$table": {_storable(name, str(key)): _pack(name, item) for key, item in value.items()}}
        case list() | tuple():
            return [_pack(name, item) for item in value]
        case _:
            raise EncodeError(f"{name}: a row of the outbox cannot keep {value!r}")


def _unpacked(value: object) -> object:
    match value:
        case list():
            return [_unpacked(item) for item in value]
        case {"$base64": str(text)}:
            return base64.b64decode(text)
        case {"$datetime": str(text)}:
            return dt.datetime.fromisoformat(text)
        case {"$table": dict(items)}:
            return {name: _unpacked(item) for name, item in items.items()}
        case _:
            return value


def _storable(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EncodeError(f"{name}={value!r}: not valid Unicode") from None
    if "\0" in value:  # PostgreSQL has no text with it
        raise EncodeError(f"{name}={value!r}: a row of the outbox cannot keep a NUL character")
    return value


# --- sending -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row as it was seen without a lock: unsent, after so many failed attempts."""

    id: int
    attempts: int


def due(using: str, limit: int) -> list[Candidate]:
    """The next rows to send. A row waits until all earlier ones of its ordering key are sent."""
    # Behind a row that has failed, nothing of its key may fill the batch, not even when it is tried again.
    failing = _unsent(using).filter(
        Q(attempts__gt=0) | Q(available__gt=DatabaseNow()),
        ordering_key=OuterRef("ordering_key"),
        id__lt=OuterRef("id"),
    )
    rows = _unsent(using).filter(Q(ordering_key="") | ~Exists(failing), available__lte=DatabaseNow())
    return _candidates(rows, limit)


def of_record(using: str, record_id: int, limit: int) -> list[Candidate]:
    """The unsent rows of a record, and the earlier ones of their ordering keys, which go before."""
    mine = list(_unsent(using).filter(record_id=record_id).values_list("id", "ordering_key"))
    if not mine:
        return []
    wanted = Q(record_id=record_id)
    if keys := {key for _, key in mine if key}:
        last = max(pk for pk, key in mine if key)
        wanted |= Q(ordering_key__in=keys, id__lt=last)
    return _candidates(_unsent(using).filter(wanted), limit)


def lock(using: str, candidates: Sequence[Candidate], *, wait: bool) -> list[OutboxMessage]:
    """Lock those that are as they were, until the end of the transaction; in their order.

    Args:
        using: alias of the database, in a transaction.
        candidates: what to lock.
        wait: for rows that somebody else has locked. Else they are left out, and so is what must not
            overtake them.
    """
    features = connections[using].features
    if not features.has_select_for_update:
        # SQLite can only lock the whole database; to write is what does.
        _rows(using).filter(id=-1).update(attempts=0)
    skip = not wait and features.has_select_for_update_skip_locked
    seen = {candidate.id: candidate.attempts for candidate in candidates}
    # By primary key alone: InnoDB would lock entries of other indexes too, and deadlock with who marks a row.
    found = _rows(using).filter(id__in=seen).order_by("id").select_for_update(skip_locked=skip)
    rows = [row for row in found if row.sent is None and row.attempts == seen[row.id]]
    return rows if wait else _without_overtaking(using, rows)


def mark_sent(using: str, rows: Sequence[OutboxMessage]) -> None:
    """These are confirmed."""
    if rows:
        _rows(using).filter(id__in=[row.id for row in rows]).update(sent=DatabaseNow(), error="")


def mark_failed(using: str, row: OutboxMessage, error: BaseException, *, wait: float) -> None:
    """This one is tried again in `wait` seconds."""
    text = f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()
    _rows(using).filter(id=row.id).update(
        attempts=row.attempts + 1,
        error=text.replace("\0", "\\0")[:_MAX_ERROR],
        available=DatabaseNow() + dt.timedelta(seconds=wait),
    )


def delete_sent(using: str, *, older_than: float, limit: int) -> int:
    """Delete at most `limit` rows that were sent so many seconds ago; returns how many."""
    old = _rows(using).filter(sent__lt=DatabaseNow() - dt.timedelta(seconds=older_than))
    # Two steps, since MariaDB takes no LIMIT in a subquery.
    ids = list(old.order_by("sent").values_list("id", flat=True)[:limit])
    return _rows(using).filter(id__in=ids).delete()[0] if ids else 0


def _rows(using: str) -> QuerySet[OutboxMessage]:
    return OutboxMessage.objects.using(using)


def _unsent(using: str) -> QuerySet[OutboxMessage]:
    return _rows(using).filter(sent__isnull=True)


def _candidates(rows: QuerySet[OutboxMessage], limit: int) -> list[Candidate]:
    return [Candidate(*pair) for pair in rows.order_by("id").values_list("id", "attempts")[:limit]]


def _without_overtaking(using: str, rows: list[OutboxMessage]) -> list[OutboxMessage]:
    """Those that no unsent row of their key precedes that somebody else holds."""
    keys = {row.ordering_key for row in rows if row.ordering_key}
    if not keys:
        return rows
    others = _unsent(using).filter(ordering_key__in=keys, id__lt=rows[-1].id)
    others = others.exclude(id__in=[row.id for row in rows])
    first = dict(others.values_list("ordering_key").annotate(Min("id")).order_by())
    return [row for row in rows if row.id < first.get(row.ordering_key, row.id + 1)]
