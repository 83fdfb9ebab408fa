"""The two example projects on a real RabbitMQ: from HTTP to a row in Django's database, and back."""

import asyncio
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.markdown import ROOT
from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import Running, running
from tests.support.names import unique
from tests.support.waiting import eventually

SHOP = ROOT / "example_projects" / "django_orders"
GATEWAY = ROOT / "example_projects" / "fastapi_gateway"
SERVE = ["-m", "uvicorn", "gateway.app:app", "--port"]
QUEUES = ["orders", "prices", "mails", "gateway.batches", "gateway.events"]
LAMPS = {"lines": [{"item": "lamp", "quantity": 2}]}
ORDER = {"number": 1, "customer": "ann@example.com", "total": "49.00"}
RUG = {"lines": [{"item": "rug"}]}
PATIENCE = 30.0  # seconds

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]


@dataclass(eq=False)
class Services:
    """A running gateway, and the shop behind it.

    Attributes:
        prefix: of the names of their queues.
        started: their processes.
    """

    rabbit: RabbitPlace
    prefix: str
    database: Path
    started: AsyncExitStack
    http: httpx2.AsyncClient = field(init=False)
    shop: Running = field(init=False)
    gateway: Running = field(init=False)

    async def start_shop(self) -> None:
        self.shop = await self._django("rmq_consume", "--no-reload")
        await self.shop.until("ready")

    async def start(self) -> None:
        migrated = await self._django("migrate")
        assert await migrated.exit_code() == 0, migrated.transcript
        await self.start_shop()
        self.gateway = await self._run(GATEWAY, *SERVE, "0", REDIS_URL=None)
        self.http = await self.started.enter_async_context(client_of(await address_of(self.gateway)))

    async def stop(self) -> None:
        for process, code in ((self.gateway, -signal.SIGTERM), (self.shop, 0)):
            process.signal(signal.SIGTERM)
            assert await process.exit_code() == code, process.transcript
            assert "Traceback" not in process.error_output, process.transcript

    async def _django(self, *command: str) -> Running:
        database = {"SQLITE_FILE": str(self.database), "DATABASE_URL": None, "DJANGO_SETTINGS_MODULE": None}
        return await self._run(SHOP, "manage.py", *command, **database)

    async def _run(self, folder: Path, *command: str, **env: str | None) -> Running:
        env |= {"RABBITMQ_URL": self.rabbit.url, "RMQ_PREFIX": self.prefix}
        return await self.started.enter_async_context(running(sys.executable, *command, cwd=folder, env=env))

    async def post(self, path: str, body: object, key: str) -> tuple[int, Any]:
        response = await self.http.post(path, json=body, headers={"Idempotency-Key": key})
        return response.status_code, response.json()

    async def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        return (await self.http.get(path)).json()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query).fetchall()


async def address_of(gateway: Running) -> str:
    await gateway.until("running on http://")
    address: str = re.findall(r"running on (http://127.0.0.1:\d+)", gateway.error_output)[0]
    return address


def client_of(address: str) -> httpx2.AsyncClient:
    headers = {"X-Customer": "ann@example.com"}
    return httpx2.AsyncClient(base_url=address, headers=headers, timeout=PATIENCE)


@pytest.fixture
async def services(rabbit: RabbitPlace, tmp_path: Path) -> AsyncIterator[Services]:
    """Both, with names of their own."""
    prefix = unique("example")
    rabbit.queues += [f"{prefix}.{queue}{end}" for queue in QUEUES for end in ("", "_dlq")]
    rabbit.exchanges.append(f"{prefix}.events")
    async with AsyncExitStack() as started:
        services = Services(rabbit, prefix, tmp_path / "shop.sqlite3", started)
        await services.start()
        yield services
        await services.stop()


@pytest.mark.rabbitmq
async def test_an_order_by_http_is_a_row_of_the_shop_and_sent_twice_still_one(services: Services) -> None:
    assert await services.post("/orders", LAMPS, "key-1") == (201, ORDER)
    assert await services.post("/orders", LAMPS, "key-1") == (201, ORDER)
    assert services.rows("SELECT id, total FROM shop_order") == [(1, 49)]
    assert services.rows("SELECT email FROM shop_customer") == [("ann@example.com",)]
    assert services.rows("SELECT quantity, item FROM shop_orderline") == [(2, "lamp")]

    await eventually(lambda: _has(services, [ORDER]), within=PATIENCE)
    assert await services.get("/health/ready") == {"status": "ready", "problems": []}
    page = await services.http.get("/rmq/docs")
    assert page.status_code == 200
    assert "gateway.events" in page.text


@pytest.mark.rabbitmq
async def test_a_batch_is_accepted_and_becomes_orders(services: Services) -> None:
    assert (await services.post("/orders", {"lines": [{"item": "unicorn"}]}, "key-1"))[0] == 422
    baskets = {"baskets": [LAMPS, RUG]}
    accepted = await services.post("/batches", baskets, "key-2")
    assert accepted == (202, {"id": "key-2", "status": "pending", "status_url": "/batches/key-2"})

    async def done() -> bool:
        return bool((await services.get("/batches/key-2"))["status"] == "done")

    await eventually(done, within=PATIENCE)
    assert await services.post("/batches", baskets, "key-2") == accepted
    orders = (await services.get("/batches/key-2"))["reply"]["data"]
    assert [order["total"] for order in orders] == ["49.00", "89.90"]
    await eventually(lambda: _has(services, orders[::-1]), within=PATIENCE)
    assert services.rows("SELECT id FROM shop_order ORDER BY id") == [(1,), (2,)]


@pytest.mark.rabbitmq
async def test_a_request_waits_for_a_shop_that_is_away(services: Services) -> None:
    services.shop.signal(signal.SIGTERM)
    assert await services.shop.exit_code() == 0, services.shop.transcript

    async def ordered() -> Any:  # noqa: ANN401 - JSON
        """Repeats its request, as a client does."""
        while (answer := await services.post("/orders", LAMPS, "key-1"))[0] == 504:
            pass
        return answer

    asked = asyncio.create_task(ordered())
    await services.rabbit.has(f"{services.prefix}.prices", 1)
    await services.start_shop()

    assert await asked == (201, ORDER)
    assert services.rows("SELECT id FROM shop_order") == [(1,)]


async def _has(services: Services, events: list[Any]) -> bool:
    return bool(await services.get("/events") == events)


def test_the_gateways_own_tests_pass() -> None:
    result = subprocess.run(
        ["make", "--no-print-directory", "-C", GATEWAY, "test", f"PYTHON={sys.executable}"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"1\d passed", result.stdout)


@pytest.mark.parametrize(("target", "url"), [("run", ""), ("alone", "env RABBITMQ_URL=memory://gateway ")])
async def test_one_command_starts_it(target: str, url: str) -> None:
    async with running("make", "--no-print-directory", "--dry-run", "-C", GATEWAY, target) as run:
        assert await run.exit_code() == 0, run.transcript

    assert run.lines[-1] == f"exec {url}../../.venv/bin/python {' '.join(SERVE)} 8080"


async def test_alone_it_needs_no_rabbitmq() -> None:
    environment = {"RABBITMQ_URL": "memory://gateway", "REDIS_URL": None}
    async with running(sys.executable, *SERVE, "0", cwd=GATEWAY, env=environment) as gateway:
        async with client_of(await address_of(gateway)) as http:
            ordered = await http.post("/orders", json=LAMPS, headers={"Idempotency-Key": "key-1"})
            assert ordered.status_code == 201
            pages = ("/docs", "/rmq/docs", "/rmq/asyncapi.json", "/health/live", "/health/ready", "/events")
            assert [(await http.get(page)).status_code for page in pages] == [200] * 6
        gateway.signal(signal.SIGTERM)
        assert await gateway.exit_code() == -signal.SIGTERM, gateway.transcript
