"""A database of the chaos tests' own on the PostgreSQL in use, seen without Django."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from tests.acceptance.markdown import ROOT
from tests.acceptance.processes import Running, running
from tests.support.names import unique

MANAGE = ROOT / "tests/django/manage.py"
_URL = urlsplit(os.environ.get("POSTGRES_URL") or "postgres://postgres:postgres@127.0.0.1:5432")


@dataclass(frozen=True)
class ChaosDatabase:
    """The database of one run of the tests."""

    run: str = field(default_factory=lambda: unique("chaos").replace(".", "_"))

    @property
    def name(self) -> str:
        return f"test_rmq_default_{self.run}"

    @property
    def environment(self) -> dict[str, str]:
        return {"RMQ_TEST_DB": "postgres", "RMQ_TEST_RUN": self.run}

    def manage(
        self, *arguments: str | Path, prefix: str, settings: Mapping[str, object]
    ) -> AbstractAsyncContextManager[Running]:
        """``manage.py`` of the shop, with the chaos handlers in it."""
        environment = {
            **self.environment,
            "RMQ_TEST_PREFIX": prefix,
            "RMQ_TEST_IMPORT": "tests.chaos.handlers",
            "RMQ_TEST_SETTINGS": json.dumps(settings),
        }
        return running(sys.executable, MANAGE, *arguments, cwd=ROOT, env=environment)

    async def effects(self, prefix: str) -> list[tuple[str, float]]:
        """Key and time of the rows whose key begins so."""

        def select() -> list[tuple[Any, ...]]:
            with _connected(self.name) as connection:
                rows = connection.execute(
                    "SELECT key, note FROM shop_effect WHERE starts_with(key, %s)", [prefix]
                )
                return rows.fetchall()

        return [(key, float(note)) for key, note in await asyncio.to_thread(select)]


def _connected(database: str) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(
        host=_URL.hostname,
        port=_URL.port or 5432,
        user=_URL.username,
        password=_URL.password,
        dbname=database,
        autocommit=True,
    )


@contextmanager
def chaos_database() -> Generator[ChaosDatabase]:
    """A migrated database, dropped at the end."""
    database = ChaosDatabase()
    name = sql.Identifier(database.name)
    with _connected("postgres") as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            subprocess.run(
                [sys.executable, MANAGE, "migrate", "--run-syncdb", "--verbosity", "0"],
                cwd=ROOT,
                env={**os.environ, **database.environment},
                check=True,
                timeout=120,
            )
            yield database
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
