"""A PostgreSQL of a test's own, which it may stop and start."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

_TIMEOUT = 60.0  # seconds for each command


@dataclass(frozen=True)
class PrivatePostgres:
    """A cluster in a folder of its own, run by the user ``postgres`` where we are root."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}"

    def start(self, **settings: object) -> None:
        """With settings of ``postgresql.conf``."""
        given = "".join(f" -c {name}={value}" for name, value in settings.items())
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder}{given}"
        self._run("pg_ctl", "start", "--wait", "-D", "data", "-l", "log", "-o", options)

    def stop(self) -> None:
        """As a crash would: no session is ended, nothing is written out."""
        self._run("pg_ctl", "stop", "--wait", "-D", "data", "-m", "immediate")

    def create_database(self, name: str) -> None:
        self.sql(f'CREATE DATABASE "{name}"')

    def sql(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement; the rows of a SELECT."""
        with psycopg.connect(
            f"{self.url}/{database}".replace("postgres:", "postgresql:", 1), autocommit=True
        ) as c:
            cursor = c.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def init(self) -> None:
        self._run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        owner = "postgres" if os.geteuid() == 0 else None
        # The server keeps what it inherits open, so its output goes nowhere, not into a pipe.
        keeps = arguments[:1] == ("start",)
        result = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder,
            user=owner,
            group=owner,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if keeps else subprocess.PIPE,
            stderr=subprocess.DEVNULL if keeps else subprocess.PIPE,
            timeout=_TIMEOUT,
            check=False,
            text=True,
        )
        assert result.returncode == 0, f"{program} {' '.join(arguments)}: {result.stderr}"


@contextmanager
def private_postgres() -> Generator[PrivatePostgres]:
    """A running one; the test is skipped where it is not installed (fails in CI)."""
    folder = Path(tempfile.mkdtemp(prefix="rmq-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = PrivatePostgres(_programs(), folder, _free_port())
    try:
        server.init()
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    if on_path is None and not found:
        missing = "initdb is not installed: install PostgreSQL's server"
        if os.environ.get("AUTOSELL_RMQ_REQUIRE_SERVICES") == "1":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return Path(on_path).resolve().parent if on_path is not None else found[-1].parent


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
