"""One handler module, one file, on every face: FastAPI, ``manage.py rmq_consume``, ``autosell-rmq run``."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autosell_rmq import RabbitMQProducer
from autosell_rmq.topology import Queue, Topology
from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import running
from tests.support.names import unique

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq, pytest.mark.timeout(120)]

# The module: it knows its messages, and no face.
HANDLERS = """\
import os
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from autosell_rmq import Binding, Message, Reject, RetryLater, Router

PREFIX = os.environ["PREFIX"]
router = Router()


class Order(BaseModel):
    item: str
    quantity: int = 1


class Receipt(BaseModel):
    item: str
    total: Decimal
    attempt: int
    tenant: str


@router.handler(f"{PREFIX}.orders", max_retries=2, retry_delay=0.05)
async def create_order(order: Order, message: Message) -> Receipt:
    price = await message.producer.send_message(f"{PREFIX}.prices", {"item": order.item}, timeout=10)
    if not price["success"]:
        raise Reject(price["error"])
    if order.item == "sofa" and message.attempt == 1:
        raise RetryLater("packing", delay=0.05)
    await message.producer.publish_to_exchange("amq.topic", f"{PREFIX}.order.created", order)
    return Receipt(
        item=order.item,
        total=Decimal(price["data"]) * order.quantity,
        attempt=message.attempt,
        tenant=str(message.headers["tenant"]),
    )


@router.handler(f"{PREFIX}.prices", max_retries=0)
def price(question: dict[str, str]) -> Decimal:
    return {"lamp": Decimal("24.50"), "sofa": Decimal(890)}[question["item"]]


@router.handler(f"{PREFIX}.ledger", bind=Binding("amq.topic", f"{PREFIX}.order.*"))
def book(order: Order, message: Message) -> None:
    entry = {"sold": order.item, "by": message.first_routing_key.removeprefix(PREFIX)}
    message.sync_producer.send_fire_and_forget(f"{PREFIX}.books", entry)
"""

SERVICE = """\
from autosell_rmq import RabbitMQ
from shop.rmq import router

rmq = RabbitMQ()
rmq.include(router)
"""

WEB = """\
from fastapi import FastAPI
from autosell_rmq_fastapi import rmq_lifespan
from service import rmq

app = FastAPI(lifespan=rmq_lifespan(rmq))
"""

SETTINGS = """\
INSTALLED_APPS = ["autosell_rmq_django", "shop"]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3",
    "OPTIONS": {"transaction_mode": "IMMEDIATE"},
}}
SECRET_KEY = "not a secret: tests only"
USE_TZ = True
"""

MANAGE = """\
import sys
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""

FACES = {
    "run": [sys.executable, "-m", "autosell_rmq", "run", "service:rmq"],
    "django": [sys.executable, "manage.py", "rmq_consume", "--no-reload"],
    "fastapi": [sys.executable, "-m", "uvicorn", "web:app", "--port", "0"],
}
QUEUES = ("orders", "prices", "ledger")
REQUESTS = [
    ("request-0", {"item": "lamp", "quantity": 2}),
    ("request-1", {"item": "sofa"}),
    ("request-2", {"item": "unicorn"}),
    ("request-3", {"quantity": "many"}),
    ("request-0", {"item": "lamp", "quantity": 2}),  # a duplicate: no second entry in the books
]


FAILING = ("orders", "orders", "prices")


@dataclass(frozen=True)
class Told:
    """What the world sees of a face."""

    replies: list[dict[str, Any]]
    letters: list[tuple[str, str, int]]
    booked: list[dict[str, Any]]


@dataclass(frozen=True)
class Project:
    """A folder with the module and what each face needs beside it."""

    folder: Path
    place: RabbitPlace
    prefix: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PREFIX": self.prefix,
            "RABBITMQ_URL": self.place.url,
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONPATH": str(self.folder),
        }

    async def manage(self, *words: str) -> None:
        command = [sys.executable, "manage.py", *words]
        async with running(*command, cwd=self.folder, env=self.environment) as process:
            assert await process.exit_code() == 0, process.transcript

    @asynccontextmanager
    async def consuming(self, face: str) -> AsyncGenerator[None]:
        """The module, running there; SIGTERM ends it without an error."""
        async with running(*FACES[face], cwd=self.folder, env=self.environment) as process:
            for name in QUEUES:
                await self.place.is_consumed(f"{self.prefix}.{name}")
            yield
            process.signal(signal.SIGTERM)
            assert await process.exit_code() in (0, -signal.SIGTERM), process.transcript

    async def told(self) -> Told:
        """Every reply, every dead letter's words, what was booked."""
        async with RabbitMQProducer(self.place.url) as producer:
            replies = [
                await producer.send_message(
                    f"{self.prefix}.orders",
                    request,
                    timeout=30,
                    correlation_id=correlation_id,
                    headers={"tenant": "main"},
                )
                for correlation_id, request in REQUESTS
            ]
        letters = [await self.place.letter(f"{self.prefix}.{name}_dlq") for name in FAILING]
        booked = [json.loads((await self.place.take(f"{self.prefix}.books")).body) for _ in range(2)]
        for name in (*QUEUES, "books"):
            await self.place.has(f"{self.prefix}.{name}", 0)
        return Told(
            replies=replies,
            letters=[(letter["reason_code"], letter["reason"], letter["attempts"]) for letter in letters],
            booked=sorted(booked, key=lambda entry: str(entry["sold"])),
        )


@pytest.fixture
async def project(rabbit: RabbitPlace, tmp_path: Path) -> Project:
    prefix = unique("faces")
    rabbit.queues += [f"{prefix}.{name}{end}" for name in (*QUEUES, "books") for end in ("", "_dlq")]
    await rabbit.broker.declare(Topology(queues=(Queue(name=f"{prefix}.books"),)))
    files = {"shop/__init__.py": "", "shop/rmq.py": HANDLERS, "service.py": SERVICE, "web.py": WEB}
    files |= {"settings.py": SETTINGS, "manage.py": MANAGE}
    (tmp_path / "shop").mkdir()
    for name, code in files.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    project = Project(tmp_path, rabbit, prefix)
    await project.manage("migrate", "--verbosity", "0")
    return project


async def test_the_same_replies_everywhere(project: Project) -> None:
    told = {}
    for face in FACES:
        async with project.consuming(face):
            told[face] = await project.told()

    run = told["run"]
    lamp, sofa, unicorn, unreadable, again = run.replies
    receipt = {"item": "lamp", "total": "49.00", "attempt": 1, "tenant": "main"}
    assert lamp == {"success": True, "data": receipt, "correlation_id": "request-0"}
    assert sofa["data"] == {"item": "sofa", "total": "890", "attempt": 2, "tenant": "main"}
    assert (unicorn["error_code"], unreadable["error_code"]) == ("rejected", "invalid_message")
    assert again == lamp
    assert [code for code, *_ in run.letters] == ["rejected", "invalid_message", "unhandled_exception"]
    assert run.booked == [{"sold": item, "by": ".order.created"} for item in ("lamp", "sofa")]
    assert told["django"] == run
    assert told["fastapi"] == run
