"""Deletion of what is not needed any more: expired records, dead claims, messages sent long ago."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.db import connections, transaction
from django.db.models import DateTimeField, Q, QuerySet
from django.db.models.expressions import RawSQL

from autosell_rmq_django.models import IdempotencyRecord, OutboxMessage
from autosell_rmq_django.store.dialects import dialect_of

BATCH = 1000  # rows of one transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """How many rows were deleted, or would be."""

    records: int
    messages: int


class Purge:
    """What may be deleted from one database, by its own clock.

    A claim is never deleted while it counts: neither under a live lease, nor the one of a running
    transaction, which nobody else sees. After the deletion of a result its duplicate runs again; after that
    of a note, nothing is known of its message until it is handled.

    Args:
        alias: of the database.
        older_than: seconds since a result was stored, a claim ended, a note was made or a message was sent.
            Without it, results, notes and claims go when they expire, and messages `retention` seconds after
            they were sent.
        retention: see there.
    """

    def __init__(self, alias: str, *, older_than: float | None = None, retention: float) -> None:
        self._alias = alias
        records = IdempotencyRecord.objects.using(alias)
        if older_than is None:
            # A claim of a worker that crashed may hide a note that still counts.
            noted = Q(note_expires__isnull=False) & Q(note_expires__gt=self._ago(0))
            self.records = records.filter(expires__lte=self._ago(0)).exclude(noted)
        else:
            ago = self._ago(older_than)
            State = IdempotencyRecord.State
            claimed = Q(state=State.PROCESSING) & Q(expires__lte=ago)
            noted = Q(state__in=[State.ACCEPTED, State.FAILED]) & Q(created__lte=ago)
            self.records = records.filter(claimed | noted | Q(completed__lte=ago))
        sent = self._ago(retention if older_than is None else older_than)
        self.messages = OutboxMessage.objects.using(alias).filter(sent__lte=sent)

    def count(self) -> Purged:
        """What `run` would delete now."""
        return Purged(records=self.records.count(), messages=self.messages.count())

    def run(self, on_batch: Callable[[Purged], None] = lambda _: None) -> Purged:
        """Delete it in batches, each a transaction of its own; `on_batch` is told of each."""
        deleted = Purged(records=0, messages=0)
        for batch in self._batches():
            on_batch(batch)
            deleted = Purged(
                records=deleted.records + batch.records, messages=deleted.messages + batch.messages
            )
        return deleted

    def _batches(self) -> Iterator[Purged]:
        while number := self._delete(self.records):
            yield Purged(records=number, messages=0)
        while number := self._delete(self.messages):
            yield Purged(records=0, messages=number)

    def _delete[T: IdempotencyRecord | OutboxMessage](self, rows: QuerySet[T]) -> int:
        """Delete one batch of rows; those that somebody else has locked are in use, and stay."""
        skips = connections[self._alias].features.has_select_for_update_skip_locked
        with transaction.atomic(using=self._alias):
            # Locked first: a record that is claimed anew meanwhile has not expired any more.
            locked = rows.select_for_update(skip_locked=skips).order_by("id")
            ids = list(locked.values_list("id", flat=True)[:BATCH])
            if rows.model is IdempotencyRecord:
                written = OutboxMessage.objects.using(self._alias).filter(record_id__in=ids)
                written.update(record=None)
            # Without loading them first, results and all, as delete() would.
            chosen = rows.model._default_manager.using(self._alias).filter(id__in=ids)
            chosen._raw_delete(self._alias)
        return len(ids)

    def _ago(self, seconds: float) -> RawSQL:
        dialect = dialect_of(connections[self._alias])
        return RawSQL(dialect.later, [dialect.span(-seconds)], output_field=DateTimeField())
