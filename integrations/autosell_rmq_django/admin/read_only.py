"""Rows that only the app writes, in the admin: shown escaped, deleted only where that does no harm."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, override

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.db import connections, transaction
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from autosell_rmq_django import conf
from autosell_rmq_django.admin.lists import BoundedPaginator
from autosell_rmq_django.admin.previews import shortened

if TYPE_CHECKING:
    AnyAdmin = admin.ModelAdmin[Any]
else:
    AnyAdmin = admin.ModelAdmin

_NAMED = 100  # rows that a page names when it asks whether to delete them
# Rows that are purged at once: the page that asks posts each, and Django takes 1000 fields (by default).
_AT_ONCE = 900


class ReadOnlyAdmin(AnyAdmin):
    """Rows that only the app writes; some of them may be deleted.

    Everything shown of them is somebody's message: it is escaped, and what cannot be seen is made visible.

    Attributes:
        deletable: which rows may be deleted, at the moment that they are.
        heavy: fields that a list must not load.
    """

    deletable: Q
    heavy: tuple[str, ...]
    actions: Sequence[Any] | None = ("delete_selected",)
    list_per_page = 50
    paginator = BoundedPaginator
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    sortable_by = ()

    class Media:
        css = {"all": ["autosell_rmq/admin.css"]}

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @override
    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @override
    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        allowed = super().has_delete_permission(request)
        return allowed and (obj is None or self.rows().filter(self.deletable, pk=obj.pk).exists())

    @override
    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(database()).defer(*self.heavy)

    # --- deleting --------------------------------------------------------------------------------

    @admin.action(permissions=["delete"], description=_("Purge the selected %(verbose_name_plural)s"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Ask, then delete those of the selected rows that may be; the others are left, and it says so."""
        chosen = list(queryset.values_list("pk", flat=True)[: _AT_ONCE + 1])
        deletable = self.get_queryset(request).filter(self.deletable, pk__in=chosen[:_AT_ONCE])
        found = deletable.count()
        if not request.POST.get("post"):
            if kept := len(chosen[:_AT_ONCE]) - found:
                self.message_user(request, self.kept(kept), messages.WARNING)
            if len(chosen) > _AT_ONCE:
                text = _("%d at a time are purged here; manage.py rmq_purge deletes all that are old enough.")
                self.message_user(request, text % _AT_ONCE, messages.WARNING)
        return delete_selected(self, request, deletable) if found else None

    @override
    def get_deleted_objects(
        self, objs: QuerySet[Any] | Iterable[Any], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """What the page that asks shows: the first rows. Nothing else is deleted with them."""
        rows = list(objs)
        more = ["…"] if len(rows) > _NAMED else []
        named = [shortened(str(row), _NAMED) for row in rows[:_NAMED]]
        needed = set() if super().has_delete_permission(request) else {str(self.opts.verbose_name)}
        return named + more, {str(self.opts.verbose_name_plural): len(rows)}, needed, []

    @override
    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        self.delete_queryset(request, self.rows().filter(pk=obj.pk))

    @override
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Delete what may be deleted *now*; a row that somebody is working on is left."""
        chosen = list(queryset.values_list("pk", flat=True))
        with transaction.atomic(using=database()):
            self.rows().filter(pk__in=self.locked(Q(self.deletable, pk__in=chosen))).delete()

    def or_empty(self, text: str) -> str:
        """What stands for nothing, in the place of nothing."""
        return text or str(self.get_empty_value_display())

    @abstractmethod
    def kept(self, count: int) -> str:
        """What to say of so many selected rows that must not be deleted."""

    # --- rows ------------------------------------------------------------------------------------

    def rows(self) -> QuerySet[Any]:
        """All of them, where the app keeps them."""
        everything: QuerySet[Any] = self.model._base_manager.using(database())
        return everything

    def locked(self, which: Q) -> list[int]:
        """The ids of rows, locked in the current transaction; not those that another one has locked."""
        skips = connections[database()].features.has_select_for_update_skip_locked
        rows = self.rows().filter(which).select_for_update(skip_locked=skips)
        return list(rows.values_list("pk", flat=True))


def database() -> str:
    """The alias of the database that the records are in, and the outbox of exactly-once handlers."""
    return conf.get_settings().idempotency.database
