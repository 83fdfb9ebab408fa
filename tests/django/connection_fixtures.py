"""Threads with connections of their own, and the other end of a connection, to cut it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections

from tests.django import settings

type Run = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def in_thread() -> Iterator[Run]:
    """Runs functions in one thread, as a handler's."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda function: pool.submit(function).result(timeout=30)
        pool.submit(connections.close_all).result(timeout=30)


def needs_server() -> None:
    if settings.KIND == "sqlite":
        pytest.skip("SQLite has no server that could cut a connection")


def session() -> int:
    """What the server calls this thread's connection."""
    return int(connection.connection.info.backend_pid if settings.KIND == "postgres" else _mysql_id())


def _mysql_id() -> int:
    return int(connection.connection.thread_id())


def cut(number: int) -> None:
    """End a session from the server's side; returns when it is gone."""
    with connection.cursor() as cursor:
        if settings.KIND == "postgres":
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [number])
        else:
            cursor.execute(f"KILL {number}")


def sessions() -> int:
    """How many there are to the test's database, ours not counted."""
    query = {
        "postgres": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()",
        "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE db = database()"
        " AND id <> connection_id()",
    }[settings.KIND]
    with connection.cursor() as cursor:
        cursor.execute(query)
        return int(cursor.fetchone()[0])


@contextmanager
def living(**changes: object) -> Generator[None]:
    """This thread's connection with other settings (``CONN_MAX_AGE=None`` …), opened anew."""
    before = connection.settings_dict
    connection.close()
    connection.settings_dict = {**before, **changes}
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict = before
