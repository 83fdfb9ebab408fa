"""What the tests of the Django app share: settings, markers, the services they need."""

import os
from collections.abc import Iterator
from pathlib import Path

import django
import pytest

# Before anything of Django is imported by a test; pytest-django takes it from here too.
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.django.settings"
django.setup()

from django.db import connections  # noqa: E402 - after the setup

from tests.django import settings  # noqa: E402
from tests.support import services  # noqa: E402

HERE = Path(__file__).parent

# What these are about does not depend on the database: one of them is enough in `make test`.
ANY_DATABASE = {
    "test_checks.py",
    "test_consume.py",
    "test_example_running.py",
    "test_handlers.py",
    "test_helpers_docs.py",
    "test_helpers_plugin.py",
    "test_locale.py",
    "test_producer.py",
    "test_producer_processes.py",
    "test_producer_rabbitmq.py",
    "test_settings.py",
    "test_signals.py",
    "test_supervisor.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("django")
        if item.path.parent == HERE and item.path.name in ANY_DATABASE:
            item.add_marker("any_database")


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """The database of this run answers, or its tests are skipped (fail in CI)."""
    if settings.KIND != "sqlite":
        services.require(settings.KIND)


@pytest.fixture(scope="session", autouse=True)
def connections_are_closed() -> Iterator[None]:
    """SQLite reports a connection that nobody closed."""
    yield
    connections.close_all()


@pytest.fixture(autouse=True)
def clean_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The services of a test's markers answer; the library's variables are set by the test or not at all."""
    for name in ("rabbitmq", "redis", "postgres", "mariadb"):
        if request.node.get_closest_marker(name) is not None:
            services.require(name)
    for name in ("RABBITMQ_URL", "QUEUE_NAME", "DLQ_NAME", "MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
