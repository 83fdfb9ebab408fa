"""The outbox in the admin."""

from __future__ import annotations

import json
from typing import Any, override

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from autosell_rmq_django.admin.lists import IN_A_COLUMN, MOST, SentFilter, moment
from autosell_rmq_django.admin.previews import body, shortened, visible
from autosell_rmq_django.admin.read_only import ReadOnlyAdmin, database
from autosell_rmq_django.models import OutboxMessage
from autosell_rmq_django.outbox import DatabaseNow

_STATES = {"waiting": _("waiting"), "failing": _("failing"), "sent": _("sent")}


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    """Messages that wait to be sent after their commit, and those sent lately."""

    deletable = Q(sent__isnull=False)
    heavy = ("body", "record__reply")
    actions = ("send_again", "delete_selected")
    list_display = ("message", "destination", "status", "attempts", "created_shown", "next_or_sent")
    list_filter = (SentFilter,)
    ordering = ("-id",)
    search_fields = ("message_id", "correlation_id")
    search_help_text = _("part of a correlation id, or a whole message id")
    readonly_fields = (
        "destination",
        "correlation_id_shown",
        "message_id_shown",
        "order",
        "written_by",
        "status",
        "error_shown",
        "body_shown",
        "options_shown",
    )
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "destination",
                    "exchange_type",
                    "correlation_id_shown",
                    "message_id_shown",
                    "order",
                    "written_by",
                )
            },
        ),
        (_("State"), {"fields": ("status", "attempts", "error_shown", "created", "available", "sent")}),
        (_("Content"), {"fields": ("body_shown", "options_shown")}),
    )

    @override
    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("record")

    def has_send_permission(self, request: HttpRequest) -> bool:
        """For the action; the permission to change rows is Django's own."""
        return admin.ModelAdmin.has_change_permission(self, request)

    @override
    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return super().has_view_permission(request, obj) or self.has_send_permission(request)

    @override
    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if not search_term:
            return queryset, False
        found = Q(message_id=search_term) | Q(correlation_id__contains=search_term)
        return queryset.filter(found), False

    @admin.action(permissions=["send"], description=_("Send the selected messages again now"))
    def send_again(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Make them due now, with all their attempts before them; the relay of ``rmq_consume`` sends them."""
        chosen = list(queryset.values_list("pk", flat=True)[:MOST])
        with transaction.atomic(using=database()):
            waiting = self.locked(Q(pk__in=chosen, sent__isnull=True))
            self.rows().filter(pk__in=waiting).update(available=DatabaseNow(), attempts=0)
        if count := len(waiting):
            text = ngettext("%d message is due now.", "%d messages are due now.", count)
            self.message_user(request, text % (count,), messages.SUCCESS)
        if count := len(chosen) - len(waiting):
            text = ngettext(
                "%d message is left: it is sent, or being sent right now.",
                "%d messages are left: they are sent, or being sent right now.",
                count,
            )
            self.message_user(request, text % (count,), messages.WARNING)

    @override
    def kept(self, count: int) -> str:
        return ngettext(
            "%d message is left: it is not sent yet.", "%d messages are left: they are not sent yet.", count
        ) % (count,)

    # --- columns and fields ----------------------------------------------------------------------

    @admin.display(description=_("message"))
    def message(self, obj: OutboxMessage) -> str:
        """The correlation id, in a column."""
        return shortened(obj.correlation_id, IN_A_COLUMN)

    @admin.display(description=_("destination"))
    def destination(self, obj: OutboxMessage) -> str:
        """A queue, or an exchange with the routing key."""
        key = shortened(obj.routing_key, IN_A_COLUMN)
        return f"{shortened(obj.exchange, IN_A_COLUMN)} → {key}" if obj.exchange else key

    @admin.display(description=_("ordering key"))
    def order(self, obj: OutboxMessage) -> str:
        """All of it."""
        return self.or_empty(visible(obj.ordering_key))

    @admin.display(description=_("state"))
    def status(self, obj: OutboxMessage) -> str:
        """One word."""
        return str(_STATES["sent" if obj.sent else "failing" if obj.attempts else "waiting"])

    @admin.display(description=_("written"))
    def created_shown(self, obj: OutboxMessage) -> str:
        """Short."""
        return moment(obj.created)

    @admin.display(description=_("sent, or next try"))
    def next_or_sent(self, obj: OutboxMessage) -> str:
        """Short."""
        return moment(obj.sent or obj.available)

    @admin.display(description=_("written by"))
    def written_by(self, obj: OutboxMessage) -> str:
        """The way to the record of the handler that wrote it."""
        if obj.record is None:
            return self.or_empty("")
        name = f"{self.opts.app_label}_idempotencyrecord_change"
        url = reverse(f"admin:{name}", args=[obj.record.pk], current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, shortened(str(obj.record), 2 * IN_A_COLUMN))

    @admin.display(description=_("correlation id"))
    def correlation_id_shown(self, obj: OutboxMessage) -> str:
        """All of it."""
        return visible(obj.correlation_id)

    @admin.display(description=_("message id"))
    def message_id_shown(self, obj: OutboxMessage) -> str:
        """All of it."""
        return visible(obj.message_id)

    @admin.display(description=_("last error"))
    def error_shown(self, obj: OutboxMessage) -> str:
        """It may have words of the broker's, or of the message."""
        return self.or_empty(visible(obj.error))

    @admin.display(description=_("body"))
    def body_shown(self, obj: OutboxMessage) -> str:
        """As it will be sent."""
        return body(obj.body)

    @admin.display(description=_("options"))
    def options_shown(self, obj: OutboxMessage) -> str:
        """Headers, times, priority."""
        return body(json.dumps(obj.options).encode()) if obj.options else self.or_empty("")
