"""``manage.py rmq_consume`` in processes of its own, beside the test's queues and database."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from autosell_rmq.message import Properties
from tests.acceptance.places import RabbitPlace, rabbit_place
from tests.acceptance.processes import Running, running
from tests.django.shop.models import Effect
from tests.support.names import unique
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
MANAGE = Path(__file__).with_name("manage.py")
QUEUES = ("sync", "async", "lease", "gate", "hang")
PATIENCE = 30.0  # seconds; a process of its own on a busy machine needs some to start


@dataclass(eq=False)
class Shop:
    """The shop's queues, named for one test, and what its handlers have written."""

    place: RabbitPlace
    prefix: str
    environment: dict[str, str] = field(default_factory=dict)

    def queue(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def manage(
        self, *arguments: str | Path, debug: bool = False, setting: Mapping[str, object] | None = None
    ) -> AbstractAsyncContextManager[Running]:
        """``manage.py``, with the ``AUTOSELL_RMQ`` of the tests and these changes."""
        environment = {
            "RMQ_TEST_PREFIX": self.prefix,
            "RMQ_TEST_SETTINGS": json.dumps({"URL": self.place.url, **(setting or {})}),
            "RMQ_TEST_DEBUG": "1" if debug else "",
            **self.environment,
        }
        return running(sys.executable, MANAGE, *arguments, cwd=ROOT, env=environment)

    @asynccontextmanager
    async def consuming(
        self, *arguments: str | Path, debug: bool = False, setting: Mapping[str, object] | None = None
    ) -> AsyncGenerator[Running]:
        """``manage.py rmq_consume``, ready."""
        async with self.manage("rmq_consume", *arguments, debug=debug, setting=setting) as process:
            await process.until("is ready" if "--processes" in arguments or debug else "ready; quit")
            yield process

    async def declared(self) -> None:
        """The queues exist, as a first process has made them."""
        async with self.consuming("--no-reload"):
            pass

    async def send(self, queue: str, **data: str) -> None:
        """A request to one of the shop's queues; its key is its id."""
        properties = Properties(correlation_id=data["key"], message_id=data["key"])
        await self.place.put(self.queue(queue), json.dumps(data).encode(), properties)

    async def effects(self) -> list[str]:
        """The keys of the rows, sorted."""
        return await sync_to_async(_effects)()

    async def has_effects(self, *keys: str) -> None:
        """Wait until these rows, and no others, are there."""

        async def there() -> bool:
            return await self.effects() == sorted(keys)

        try:
            await eventually(there, within=PATIENCE)
        except TimeoutError:
            raise AssertionError(f"the rows are {await self.effects()}, not {sorted(keys)}") from None


def _effects() -> list[str]:
    try:
        return sorted(Effect.objects.values_list("key", flat=True))
    finally:
        connections.close_all()


@pytest.fixture
async def shop(transactional_db: None) -> AsyncIterator[Shop]:
    async with rabbit_place() as place:
        prefix = unique("shop")
        place.queues += [f"{prefix}.{name}{suffix}" for name in QUEUES for suffix in ("", "_dlq")]
        yield Shop(place, prefix)


def alive(pid: int) -> bool:
    """Whether the process still runs; a dead child of another one, unburied, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def is_gone(pid: int) -> None:
    await eventually(lambda: not alive(pid), within=PATIENCE)


def pids(process: Running) -> list[int]:
    """Of the processes that a supervisor has started so far."""
    return [int(line.rpartition("pid ")[2]) for line in process.lines if "started, pid" in line]


def kill(pid: int, number: int) -> None:
    os.kill(pid, number)
