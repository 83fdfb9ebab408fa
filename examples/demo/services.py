"""The two example projects as processes: a Django shop, and a FastAPI gateway in front of it."""

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

EXAMPLES = Path(__file__).resolve().parents[2] / "example_projects"
QUEUES = ("orders", "prices", "mails", "gateway.batches", "gateway.events")  # what they declare
CUSTOMER = "ann@example.com"

_direct = build_opener(ProxyHandler({}))  # the gateway is on this machine, whatever the proxy is


class EndedError(Exception):
    """A service ended before it was ready."""


class Service:
    """One process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._rest: asyncio.Task[str] | None = None

    async def says(self, text: str) -> str:
        """Wait for the line that has this text; what comes after it is not looked at."""
        assert self._process.stdout is not None
        told = ""
        async for line in self._process.stdout:
            told += line.decode()
            if text in line.decode():
                self._rest = asyncio.create_task(self.output())
                return line.decode().strip()
        raise EndedError(f"the {self.name} ended before it was ready:\n{told.strip()}")

    async def output(self) -> str:
        """All that it still says, until it ends."""
        assert self._process.stdout is not None
        return (await self._process.stdout.read()).decode()

    async def ended(self) -> None:
        """Wait for its end; raises `EndedError` if it failed."""
        told = await self.output()
        if await self._process.wait():
            raise EndedError(f"the {self.name} failed:\n{told.strip()}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL where that takes too long."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
        if self._rest is not None:
            await self._rest


class Services:
    """Both on RabbitMQ; on a broker in memory the gateway alone. They start while other things happen."""

    def __init__(self, url: str, prefix: str, folder: Path) -> None:
        self._database = folder / "shop.sqlite3"
        ours = {"RABBITMQ_URL": url, "RMQ_PREFIX": prefix, "SQLITE_FILE": str(self._database)}
        others = ("DATABASE_URL", "DJANGO_SETTINGS_MODULE", "REDIS_URL")
        kept = {name: value for name, value in os.environ.items() if name not in others}
        self._environment = {**kept, **ours, "PYTHONUNBUFFERED": "1"}
        self._running: list[Service] = []
        self._starting = asyncio.create_task(self._start(alone=url.startswith("memory:")))

    async def ready(self) -> tuple[Service | None, Service]:
        """Wait until they serve: the shop, if there is one, and the gateway."""
        return await self._starting

    async def _start(self, *, alone: bool) -> tuple[Service | None, Service]:
        shop = None
        if not alone:
            await (await self._run("shop", "django_orders", "manage.py", "migrate")).ended()
            shop = await self._run("shop", "django_orders", "manage.py", "rmq_consume", "--no-reload")
        gateway = await self._run(
            "gateway", "fastapi_gateway", "-m", "uvicorn", "gateway.app:app", "--port", "0"
        )
        if shop is not None:
            await shop.says("ready")
        line = await gateway.says("running on http://")
        self._address = next(word for word in line.split() if word.startswith("http://"))
        return shop, gateway

    async def _run(self, name: str, project: str, *command: str) -> Service:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            cwd=EXAMPLES / project,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        service = Service(name, process)
        self._running.append(service)
        return service

    async def post(self, path: str, body: object, *, key: str) -> tuple[int, Any]:
        """Ask the gateway."""
        headers = {"Content-Type": "application/json", "X-Customer": CUSTOMER, "Idempotency-Key": key}
        return await self._ask(Request(self._address + path, json.dumps(body).encode(), headers))

    async def get(self, path: str) -> tuple[int, Any]:
        """Look at something of the gateway."""
        return await self._ask(Request(self._address + path))

    async def _ask(self, request: Request) -> tuple[int, Any]:
        def answer() -> tuple[int, Any]:
            try:
                with _direct.open(request, timeout=30) as response:
                    return response.status, json.load(response)
            except HTTPError as error:
                with error:
                    return error.code, json.load(error)

        return await asyncio.to_thread(answer)

    async def event(self) -> Any:  # noqa: ANN401 - JSON
        """The newest of ``GET /events``, once there is one."""
        while not (events := (await self.get("/events"))[1]):  # noqa: ASYNC110 - another process has it
            await asyncio.sleep(0.1)
        return events[0]

    def rows(self) -> int:
        """How many orders the shop's database has."""
        with closing(sqlite3.connect(self._database)) as connection:
            count: int = connection.execute("SELECT count(*) FROM shop_order").fetchone()[0]
        return count

    async def stop(self) -> None:
        """End both; the gateway first, since it asks the shop."""
        self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)
        for service in reversed(self._running):
            await service.stop()


@contextlib.asynccontextmanager
async def starting(url: str, prefix: str) -> AsyncGenerator[Services]:
    """The services, with names that begin with `prefix` and a database of their own."""
    with tempfile.TemporaryDirectory(prefix="autosell-rmq-demo-") as folder:
        services = Services(url, prefix, Path(folder))
        try:
            yield services
        finally:
            await services.stop()
