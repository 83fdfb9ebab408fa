"""Idempotency records in the admin."""

from __future__ import annotations

from typing import Any, override

from django.contrib import admin
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from autosell_rmq_django.admin.lists import IN_A_COLUMN, CountsFilter, QueueFilter, moment
from autosell_rmq_django.admin.previews import body, shortened, visible
from autosell_rmq_django.admin.read_only import ReadOnlyAdmin
from autosell_rmq_django.models import IdempotencyRecord
from autosell_rmq_django.outbox import DatabaseNow


@admin.register(IdempotencyRecord)
class IdempotencyRecordAdmin(ReadOnlyAdmin):
    """What was accepted, is being handled, was handled (with its result), or has failed (with its error)."""

    # A claim that counts is a handler at work: without it a duplicate would run beside it.
    deletable = ~Q(state=IdempotencyRecord.State.PROCESSING) | Q(expires__lte=DatabaseNow())
    heavy = ("reply", "note_data")
    list_display = ("message", "queue_shown", "status", "created_shown", "expires_shown")
    list_filter = (QueueFilter, "state", CountsFilter)
    search_fields = ("correlation_id", "key")
    search_help_text = _("part of a correlation id, or a whole key")
    readonly_fields = ("correlation_id_shown", "queue_shown", "counts", "result", "note", "outbox")
    fieldsets = (
        (None, {"fields": ("queue_shown", "correlation_id_shown", "key")}),
        (_("State"), {"fields": ("state", "counts", "attempt", "created", "completed", "expires")}),
        (_("Outcome"), {"fields": ("result", "note", "outbox")}),
        (
            _("Details"),
            {
                "classes": ("collapse",),
                "fields": ("note_state", "note_expires", "fingerprint", "lease_token"),
            },
        ),
    )

    @override
    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        counts = ExpressionWrapper(Q(expires__gt=DatabaseNow()), output_field=BooleanField())
        rows: QuerySet[Any] = super().get_queryset(request).annotate(counts=counts)
        return rows

    @override
    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """The term as a whole: an id may have blanks. A key is found by its index."""
        if not search_term:
            return queryset, False
        is_key = len(search_term) == 64 and not search_term.strip("0123456789abcdefABCDEF")
        found = Q(key=search_term.lower()) if is_key else Q(correlation_id__contains=search_term)
        return queryset.filter(found), False

    @override
    def kept(self, count: int) -> str:
        return ngettext(
            "%d record is left: its message is being handled.",
            "%d records are left: their messages are being handled.",
            count,
        ) % (count,)

    # --- columns and fields ----------------------------------------------------------------------

    @admin.display(description=_("message"))
    def message(self, obj: IdempotencyRecord) -> str:
        """The correlation id, in a column."""
        return shortened(obj.correlation_id, IN_A_COLUMN) or shortened(obj.key, IN_A_COLUMN)

    @admin.display(description=_("queue"))
    def queue_shown(self, obj: IdempotencyRecord) -> str:
        """Anybody's text, made visible."""
        return visible(obj.queue)

    @admin.display(description=_("state"))
    def status(self, obj: IdempotencyRecord) -> str:
        """With a word on what has expired."""
        state = str(IdempotencyRecord.State(obj.state).label)
        return state if self.counts(obj) else f"{state}, {_('expired')}"

    @admin.display(description=_("first seen"))
    def created_shown(self, obj: IdempotencyRecord) -> str:
        """Short."""
        return moment(obj.created)

    @admin.display(description=_("counts until"))
    def expires_shown(self, obj: IdempotencyRecord) -> str:
        """Short."""
        return moment(obj.expires)

    @admin.display(description=_("correlation id"))
    def correlation_id_shown(self, obj: IdempotencyRecord) -> str:
        """All of it."""
        return self.or_empty(visible(obj.correlation_id))

    @admin.display(description=_("counts"), boolean=True)
    def counts(self, obj: IdempotencyRecord) -> bool:
        """Whether it has not expired, on the database's clock."""
        return bool(getattr(obj, "counts", False))

    @admin.display(description=_("result"))
    def result(self, obj: IdempotencyRecord) -> str:
        """What the handler returned, as it was stored."""
        return self.or_empty(body(obj.reply))

    @admin.display(description=_("note"))
    def note(self, obj: IdempotencyRecord) -> str:
        """What is noted: of a failure, its error."""
        return self.or_empty(body(obj.note_data))

    @admin.display(description=_("messages sent with it"))
    def outbox(self, obj: IdempotencyRecord) -> str:
        """The way to the rows that the handler wrote in its transaction."""
        if not obj.has_outbox:
            return self.or_empty("")
        url = reverse("admin:autosell_rmq_outboxmessage_changelist", current_app=self.admin_site.name)
        return format_html('<a href="{}?record={}">{}</a>', url, obj.pk, _("show"))
