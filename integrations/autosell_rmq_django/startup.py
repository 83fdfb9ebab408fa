"""What has to be right before a process consumes, beyond Django's checks."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.management import CommandError
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.migrations.executor import MigrationExecutor

from autosell_rmq_django.apps import AutosellRmqConfig
from autosell_rmq_django.conf import AppSettings
from autosell_rmq_django.consuming import build_store
from autosell_rmq_django.store import DatabaseStore

_SHOWN = 10  # migrations that an error names


def check_migrations(settings: AppSettings) -> None:
    """Refuse unapplied migrations: all of the default database, the app's own where its records are.

    Raises:
        CommandError: it names them, or the database that does not answer.
    """
    store = build_store(settings)
    labels: dict[str, str | None] = {DEFAULT_DB_ALIAS: None}
    if isinstance(store, DatabaseStore):
        labels.setdefault(store.database, AutosellRmqConfig.label)
    for alias, label in labels.items():
        if connections[alias].vendor == "unknown":  # DATABASES is empty
            continue
        try:
            missing = list(_unapplied(alias, label))
        except Error as error:
            raise CommandError(f"the database {alias!r} does not answer: {error}") from error
        finally:
            connections[alias].close()
        if missing:
            names = ", ".join(missing[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
            option = "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
            raise CommandError(
                f"the database {alias!r} has {len(missing)} unapplied migrations ({names}):"
                f" run manage.py migrate{option}"
            )


def unanswered(error: Error) -> str:
    """Which database does not answer, in words, when somebody's query has met `error`."""
    for alias in connections:
        try:
            connections[alias].ensure_connection()
        except Error as down:
            return f"the database {alias!r} does not answer: {down}"
        finally:
            connections[alias].close()
    return f"a database refused a check: {error}"


def _unapplied(alias: str, label: str | None) -> Iterator[str]:
    executor = MigrationExecutor(connections[alias])
    leaves = executor.loader.graph.leaf_nodes(label)
    for migration, _backwards in executor.migration_plan(leaves):
        yield f"{migration.app_label}.{migration.name}"
