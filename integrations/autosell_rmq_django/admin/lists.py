"""Lists of the admin over tables that may be huge: how far they count, and what they filter by."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast, override

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import formats, timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from autosell_rmq_django.admin.previews import shortened
from autosell_rmq_django.models import IdempotencyRecord, OutboxMessage

if TYPE_CHECKING:
    RowPaginator = Paginator[Any]
    RecordAdmin = admin.ModelAdmin[IdempotencyRecord]
    OutboxAdmin = admin.ModelAdmin[OutboxMessage]
else:
    RowPaginator = Paginator

MOST = 10_000  # rows that a list counts, and that an action takes at once
IN_A_COLUMN = 36  # characters: a UUID
_QUEUES = 100  # names that the filter by queue offers

type Choices = list[tuple[str, Any]]


def moment(when: dt.datetime | None) -> str:
    """A time in a column: with the long format of Django's own the list would be wider than a screen."""
    return formats.date_format(timezone.localtime(when), "SHORT_DATETIME_FORMAT") if when else ""


class BoundedPaginator(RowPaginator):
    """Counts to `MOST` and no further: to count millions of rows takes longer than anybody waits."""

    @cached_property
    @override
    def count(self) -> int:
        rows = cast("QuerySet[Any]", self.object_list)
        return rows.order_by()[:MOST].count()


class QueueFilter(admin.SimpleListFilter):
    """By queue; the names are found by one step of the index each, not by a look at every row."""

    title = _("queue")
    parameter_name = "queue"

    @override
    def lookups(self, request: HttpRequest, model_admin: RecordAdmin) -> Choices:
        names = list(_queues(model_admin.get_queryset(request)))
        chosen = self.value()
        if chosen is not None and chosen not in names:
            names.append(chosen)
        return [(name, shortened(name, IN_A_COLUMN)) for name in names]

    @override
    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(queue=self.value()) if self.value() is not None else queryset


class CountsFilter(admin.SimpleListFilter):
    """Whether a record still answers duplicates, or holds its key."""

    title = _("validity")
    parameter_name = "counts"

    @override
    def lookups(self, request: HttpRequest, model_admin: RecordAdmin) -> Choices:
        return [("1", _("counts")), ("0", _("expired"))]

    @override
    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "1":
                return queryset.filter(counts=True)
            case "0":
                return queryset.filter(counts=False)
            case _:
                return queryset


class SentFilter(admin.SimpleListFilter):
    """What has become of a message of the outbox."""

    title = _("state")
    parameter_name = "state"
    _STATES = {
        "waiting": Q(sent__isnull=True, attempts=0),
        "failing": Q(sent__isnull=True, attempts__gt=0),
        "sent": Q(sent__isnull=False),
    }

    @override
    def lookups(self, request: HttpRequest, model_admin: OutboxAdmin) -> Choices:
        return [("waiting", _("waiting")), ("failing", _("failing")), ("sent", _("sent"))]

    @override
    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        state = self._STATES.get(self.value() or "")
        return queryset if state is None else queryset.filter(state)


def _queues(records: QuerySet[IdempotencyRecord]) -> Iterable[str]:
    names = records.order_by("queue").values_list("queue", flat=True)
    name = names.first()
    for _step in range(_QUEUES):
        if name is None:
            return
        yield name
        name = names.filter(queue__gt=name).first()
