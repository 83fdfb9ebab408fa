"""The example as its README starts it: on a real RabbitMQ, asked over HTTP, looked at in Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from tests.acceptance.places import rabbit_place
from tests.acceptance.processes import Running, running
from tests.django import settings
from tests.support import chromium
from tests.support.names import unique
from tests.support.services import RABBITMQ_URL
from tests.support.waiting import eventually

EXAMPLE = Path(__file__).resolve().parents[2] / "example_projects" / "django_orders"
PATIENCE = 30.0  # seconds

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(240),
    pytest.mark.skipif(settings.KIND != "sqlite", reason="has its own database, and runs once"),
]

# The settings of the example, with everybody logged in, the language in the query, and a form that was sent
# with ?act=…: Chromium's command line takes an address and nothing else.
SETTINGS = """
from config.settings import *

MIDDLEWARE = [*MIDDLEWARE, "screenshot_settings.as_admin"]


def as_admin(get_response):
    def middleware(request):
        from django.contrib.auth.models import User
        from django.http import QueryDict
        from django.utils import translation

        request.user = User.objects.filter(is_superuser=True).first()
        request.LANGUAGE_CODE = request.GET.get("lang", "en")
        if action := request.GET.get("act"):
            request.method, request._dont_enforce_csrf_checks = "POST", True
            rows = request.GET.getlist("row")
            request.POST = QueryDict("&".join([f"action={action}", *(f"_selected_action={r}" for r in rows)]))
        query = request.GET.copy()
        for name in ("lang", "act", "row"):
            query.pop(name, None)
        request.GET = query
        request.META["QUERY_STRING"] = query.urlencode()
        with translation.override(request.LANGUAGE_CODE):
            response = get_response(request)
            return response.render() if hasattr(response, "render") else response

    return middleware
"""


@dataclass(frozen=True)
class Site:
    """The running example."""

    url: str
    database: Path
    process: Running

    async def order(self, item: str, key: str, quantity: int = 2) -> tuple[int, dict[str, Any]]:
        """POST an order."""
        lines = [{"item": item, "quantity": quantity}]
        body = json.dumps({"customer": "ann@example.com", "lines": lines}).encode()
        request = Request(f"{self.url}/api/orders", body, {"Idempotency-Key": key})
        return await asyncio.to_thread(_opened, request)

    async def get(self, path: str) -> tuple[int, Any]:
        return await asyncio.to_thread(_opened, Request(self.url + path))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query).fetchall()


def _opened(request: Request) -> tuple[int, Any]:
    try:
        with urlopen(request, timeout=PATIENCE) as response:
            return response.status, json.loads(response.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with rabbit_place() as place:
        prefix, port, database = unique("example"), free_port(), tmp_path / "shop.sqlite3"
        queues = [f"{prefix}.{name}" for name in ("orders", "prices", "mails")]
        place.queues += [name for queue in queues for name in (queue, f"{queue}_dlq")]
        place.exchanges.append(f"{prefix}.events")
        (tmp_path / "screenshot_settings.py").write_text(SETTINGS)
        environment = {
            "RMQ_PREFIX": prefix,
            "PORT": str(port),
            "SQLITE_FILE": str(database),
            "RABBITMQ_URL": place.url,
            "DATABASE_URL": None,
            "DJANGO_SETTINGS_MODULE": "screenshot_settings",
            "PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(tmp_path)]),
        }
        async with running(sys.executable, EXAMPLE / "run.py", cwd=EXAMPLE, env=environment) as process:
            await process.until("The shop is at")
            yield Site(f"http://127.0.0.1:{port}", database, process)
            process.signal(signal.SIGTERM)
            assert await process.exit_code() == 0, process.transcript


@pytest.mark.rabbitmq
async def test_it_runs(site: Site) -> None:
    """An order is answered, written once, and followed by its event."""
    one, two = await asyncio.gather(site.order("lamp", "click-1"), site.order("lamp", "click-1"))

    assert one == two == (201, {"number": 1, "customer": "ann@example.com", "total": "49.00"})
    assert site.rows("SELECT total FROM shop_order") == [(49,)]
    assert site.rows("SELECT quantity, item FROM shop_orderline") == [(2, "lamp")]
    await eventually(lambda: len(site.rows("SELECT 1 FROM shop_mail")) == 1, within=PATIENCE)
    assert site.rows("SELECT text FROM shop_mail") == [("Thank you for your order over 49.00.",)]
    assert site.rows("SELECT state, count(*) FROM autosell_rmq_idempotencyrecord GROUP BY 1") == [("done", 2)]
    assert site.rows("SELECT count(*) FROM autosell_rmq_outboxmessage WHERE sent IS NULL") == [(0,)]
    assert (await site.order("unicorn", "click-2"))[0] == 422
    assert await site.get("/api/prices/rug") == (200, {"item": "rug", "price": "89.90"})


@pytest.mark.rabbitmq
async def test_its_admin_in_chromium(site: Site) -> None:
    """In both languages; the pictures are kept in the folder RMQ_TEST_SCREENSHOTS, if there is one."""
    chromium.program()
    assert (await site.order("lamp", "click-1"))[0] == 201
    kept = os.environ.get("RMQ_TEST_SCREENSHOTS")
    folder = Path(kept) if kept else site.database.parent
    [(record,)] = site.rows("SELECT id FROM autosell_rmq_idempotencyrecord WHERE queue LIKE '%.orders'")
    [(message,)] = site.rows("SELECT id FROM autosell_rmq_outboxmessage")
    records, outbox = "/admin/autosell_rmq/idempotencyrecord/", "/admin/autosell_rmq/outboxmessage/"
    pages = {
        "records": f"{records}?",
        "records-filtered": f"{records}?counts=1&state__exact=done&",
        "record": f"{records}{record}/change/?",
        "purge": f"{records}?act=delete_selected&row={record}&",
        "outbox": f"{outbox}?",
        "message": f"{outbox}{message}/change/?",
    }
    for language in ("en", "ru"):
        for name, address in pages.items():
            file = folder / f"{name}-{language}.png"
            await asyncio.to_thread(chromium.screenshot, f"{site.url}{address}lang={language}", file)
            assert file.read_bytes().startswith(b"\x89PNG")
            assert file.stat().st_size > 10_000  # an error page is smaller
    served = re.findall(r'"GET /static/\S+ HTTP/1.1" (\d+)', site.process.output)
    assert served
    assert set(served) <= {"200", "304"}
    assert not re.search(r'" 500 ', site.process.output), site.process.transcript


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    wanted = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    return wanted | {"SQLITE_FILE": str(tmp_path / "none.sqlite3")}


def manage(environment: dict[str, str], *arguments: str) -> str:
    """Run ``manage.py``, which has to succeed; returns its error output."""
    result = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=EXAMPLE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stderr


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_its_own_tests_pass(environment: dict[str, str], database: str) -> None:
    if database == "postgres":
        url = os.environ.get("POSTGRES_URL") or "postgres://postgres@127.0.0.1:5432"
        environment["DATABASE_URL"] = f"{url.rstrip('/')}/{unique('example').replace('.', '_')}"
    said = manage(environment, "test", "--noinput")

    assert re.search(r"Ran 1[0-9] tests", said)


def test_its_migrations_are_complete(environment: dict[str, str]) -> None:
    for arguments in (["makemigrations", "--check", "--dry-run"], ["check"]):
        manage(environment, *arguments)


@pytest.mark.rabbitmq
async def test_a_broker_that_refuses_ends_it(environment: dict[str, str]) -> None:
    """It leaves no half of itself running."""
    changes = {
        "RABBITMQ_URL": urlsplit(RABBITMQ_URL)._replace(netloc="nobody:wrong@127.0.0.1").geturl(),
        "PORT": str(free_port()),
        "SQLITE_FILE": environment["SQLITE_FILE"],
        "DJANGO_SETTINGS_MODULE": None,
    }
    async with running(sys.executable, EXAMPLE / "run.py", cwd=EXAMPLE, env=changes) as process:
        assert await process.exit_code() == 1, process.transcript

    assert "rmq_consume: " in process.output
    assert "wrong" not in process.output
    assert "Traceback" not in process.output
    assert "The shop is at" not in process.output
