"""`make demo`: on RabbitMQ in several processes, without one in memory; the README shows its output."""

import os
import re
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest

from tests.acceptance.markdown import ROOT, blocks
from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import Running, running
from tests.support.services import RABBITMQ_URL

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(90)]

DEMO = ROOT / "examples" / "demo" / "demo.py"
NOBODY = "amqp://guest:secret@127.0.0.1:1/"

# In this order; between them other lines may come. Those of a set are printed by two processes, in any order.
STORY: list[str | set[str]] = [
    "consuming queue demo.orders.",
    "1. An order is answered",
    "handler: order for 2 × lamp, receipt 1",
    '"number": 1, "item": "lamp", "total": 49.0}, "correlation_id": "order-1"}',
    "2. A duplicate gets the same reply",
    '"number": 1, "item": "lamp", "total": 49.0}, "correlation_id": "order-1"}',
    "runs of the handler meanwhile: 0",
    "3. A failure is retried, then kept",
    "attempt 1 of 3 failed: LookupError: no such item: unicorn",
    "attempt 2 of 3 failed: LookupError: no such item: unicorn",
    "attempt 3 of 3 failed: LookupError: no such item: unicorn",
    {
        "(max_retries_exceeded): no such item: unicorn; correlation_id=order-2",
        '"error_code": "max_retries_exceeded", "correlation_id": "order-2"}',
    },
    "Превышено максимальное количество попыток",
    "4. A graceful stop",
    "handler: a sofa: packing takes a while",
    "SIGTERM to the consumer",
    "SIGTERM: stopping gracefully",
    "handler: order for 1 × sofa, receipt 2",
    '"item": "sofa", "total": 890.0}, "correlation_id": "order-3"}',
    "5. ",
    'POST /orders, Idempotency-Key "click-1"',
    '201 {"number": 1, "customer": "ann@example.com", "total": "49.00"}',
    "the same again",
    '201 {"number": 1, "customer": "ann@example.com", "total": "49.00"}',
    'GET /events, what it has consumed: {"number": 1,',
    "GET /health/ready: 200 ready",
    "Done in",
]


def in_order(output: str, story: list[str | set[str]]) -> None:
    position = 0
    for scene in story:
        start = position
        for text in {scene} if isinstance(scene, str) else scene:
            found = output.find(text, start)
            assert found >= 0, f"{text!r} is not after position {start} of\n{output}"
            position = max(position, found + len(text))


@asynccontextmanager
async def demo(url: str) -> AsyncGenerator[Running]:
    async with running(sys.executable, DEMO, env={"RABBITMQ_URL": url, "COLUMNS": "100"}) as run:
        try:
            yield run
        finally:
            if run.process.returncode is None:  # killed, it would leave its services behind
                run.signal(signal.SIGINT)
                await run.exit_code()


async def play(url: str) -> Running:
    started = time.monotonic()
    async with demo(url) as run:
        assert await run.exit_code() == 0, run.transcript
    assert time.monotonic() - started < 60
    assert run.errors == []
    in_order(run.output, STORY)
    return run


def masked(text: str) -> list[str]:
    """Lines without what differs from run to run."""
    text = re.sub(r"demo\.orders\.[0-9a-f]{6}", "demo.orders.ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.+]+", "TIME", text)
    text = re.sub(r"process \d+", "process N", text)
    text = re.sub(r"RabbitMQ [\d.]+\S* at \S+", "RabbitMQ", text)
    text = re.sub(r"Done in \d+ s", "Done", text)
    text = re.sub(r"in \d\.\d s", "in N s", text)
    # Two processes print: neighbouring lines may change places. The story's order is checked by itself.
    return sorted(re.sub(r"[\s─]+", " ", line).strip() for line in text.strip().splitlines())


async def has_exchange(rabbit: RabbitPlace, name: str) -> bool:
    assert rabbit.connection is not None
    channel = await rabbit.connection.channel()
    try:
        await channel.get_exchange(name)
    except aio_pika.exceptions.ChannelNotFoundEntity:
        return False
    finally:
        await channel.close()
    return True


@pytest.mark.rabbitmq
async def test_on_rabbitmq_in_several_processes(rabbit: RabbitPlace) -> None:
    run = await play(RABBITMQ_URL)

    assert re.search(r"on RabbitMQ [34]\.\d+", run.lines[1])
    assert re.search(r"producer: process (\d+), consumer: process (?!\1\b)\d+", run.output)
    assert "the consumer process ended with code 0" in run.output
    assert re.search(r"gateway: process (\d+), shop: process (?!\1\b)\d+", run.output)
    assert "orders in the shop's database: 1" in run.output
    [name] = set(re.findall(r"consuming queue demo\.orders\.(\w+)", run.output))
    services = ("orders", "prices", "mails", "gateway.batches", "gateway.events")
    for queue in (f"demo.orders.{name}", *(f"demo.{name}.{service}" for service in services)):
        assert not await rabbit.exists(queue)
        assert not await rabbit.exists(f"{queue}_dlq")
    assert not await has_exchange(rabbit, f"demo.{name}.events")
    for page in ("README.md", "README.ru.md"):
        [shown] = [b.code for b in blocks(ROOT / page, "text") if "An order is answered" in b.code]
        assert masked(shown) == masked(run.output), f"{page} shows another output"


async def test_without_rabbitmq_in_memory() -> None:
    run = await play(NOBODY)

    assert "on memory://demo (in memory)" in run.lines[1]
    assert "no RabbitMQ: amqp://guest:***@127.0.0.1:1 does not answer; both sides in this one" in run.lines[2]
    assert "shop's database" not in run.output
    assert "secret" not in run.output


@pytest.mark.rabbitmq
async def test_with_a_wrong_password_it_says_so() -> None:
    url = re.sub(r"//.*@", "//guest:secret@", RABBITMQ_URL)
    async with demo(url) as run:
        await run.until("refuses the login")

    assert "secret" not in run.output


@pytest.mark.rabbitmq
async def test_ctrl_c_leaves_nothing_behind(rabbit: RabbitPlace, tmp_path: Path) -> None:
    environment = {"RABBITMQ_URL": RABBITMQ_URL, "TMPDIR": str(tmp_path)}
    async with running(sys.executable, DEMO, env=environment) as run:
        await run.until("attempt 2 of 3 failed")
        [name] = set(re.findall(r"consuming queue demo\.orders\.(\w+)", run.output))
        run.signal(signal.SIGINT)
        assert await run.exit_code() == 130, run.transcript

    for queue in (f"demo.orders.{name}", f"demo.{name}.orders", f"demo.{name}.gateway.events"):
        assert not await rabbit.exists(queue)
    assert os.listdir(tmp_path) == []
    assert run.errors == []


async def test_make_demo_runs_it(tmp_path: Path) -> None:
    async with running("make", "--no-print-directory", "--dry-run", "demo") as run:
        assert await run.exit_code() == 0, run.transcript

    assert run.lines[-1] == ".venv/bin/python examples/demo/demo.py"
