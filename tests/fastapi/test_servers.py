"""Under real servers: what a signal, a reload and a broker that is down come to. No message is lost."""

import os
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.processes import Running, running
from tests.integration.stage_fixtures import RabbitStage

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq, pytest.mark.timeout(90)]

APP = """
import asyncio, contextlib, logging, os, pathlib
from fastapi import FastAPI
from autosell_rmq import RabbitMQ
from autosell_rmq_fastapi import rmq_lifespan, rmq_router

logging.basicConfig(level="INFO")
rmq = RabbitMQ(prefetch=1, drain_timeout=60, startup_timeout=0.2)

def say(line):
    os.write(1, f"{line}\\n".encode())  # at once: two workers write to one pipe

@rmq.handler(os.environ["QUEUE"])
async def handle(number: int) -> int:
    say(f"started {number}")
    while not pathlib.Path("gate").exists():
        await asyncio.sleep(0.01)
    say(f"finished {number}")
    return number

@contextlib.asynccontextmanager
async def own(app):
    try:
        yield
    finally:
        say("left")

app = FastAPI(lifespan=rmq_lifespan(rmq, own))
app.include_router(rmq_router(rmq))
"""
DRAINING = "draining: 1 messages in hand"
UVICORN = ["uvicorn", "app:app", "--port", "0", "--no-access-log"]
HYPERCORN = ["hypercorn", "app:app", "--bind", "127.0.0.1:0"]


@asynccontextmanager
async def served(folder: Path, url: str, queue: str, *command: str) -> AsyncGenerator[Running]:
    """Start a server in a folder that has the app."""
    (folder / "app.py").write_text(APP, encoding="utf-8")
    env = {"RABBITMQ_URL": url, "QUEUE": queue, "PYTHONPATH": str(folder)}
    async with running(sys.executable, "-m", *command, cwd=folder, env=env) as run:
        try:
            yield run
        finally:
            if run.process.returncode is None:  # killed, it would leave its own subprocesses behind
                let_go(folder)
                run.signal(signal.SIGTERM)
                await run.exit_code()


def let_go(folder: Path) -> None:
    (folder / "gate").touch()


@pytest.mark.parametrize(
    ("command", "code"), [(UVICORN, -signal.SIGTERM), (HYPERCORN, 0)], ids=["uvicorn", "hypercorn"]
)
async def test_sigterm_lets_the_running_handler_finish(
    rabbit: RabbitStage, tmp_path: Path, command: list[str], code: int
) -> None:
    queue = rabbit.queue()
    async with served(tmp_path, rabbit.url, queue, *command) as run:
        await run.until(" on http://")
        address = re.findall(r"http://127.0.0.1:\d+", run.error_output)[0]
        async with httpx2.AsyncClient(base_url=address) as client:
            assert (await client.get("/health/ready")).json() == {"status": "ready", "problems": []}
        asked = await rabbit.ask(queue, 1)
        await run.until("started 1")
        await rabbit.ask(queue, 2)
        run.signal(signal.SIGTERM)
        await run.until(DRAINING)
        let_go(tmp_path)
        assert await run.exit_code() == code, run.transcript
        assert (await rabbit.reply(asked))["data"] == 1

    assert run.lines == ["started 1", "finished 1", "left"]
    assert "Traceback" not in run.error_output, run.transcript
    await rabbit.has(queue, 1)


async def test_the_second_ctrl_c_cuts_the_drain_short(rabbit: RabbitStage, tmp_path: Path) -> None:
    queue = rabbit.queue()
    async with served(tmp_path, rabbit.url, queue, *UVICORN) as run:
        await run.until("running on http://")
        await rabbit.ask(queue, 1)
        await run.until("started 1")
        run.signal(signal.SIGINT)
        await run.until(DRAINING)
        run.signal(signal.SIGINT)
        assert await run.exit_code() == 0, run.transcript

    assert run.lines == ["started 1", "left"]
    await rabbit.has(queue, 1)


async def test_each_of_several_workers_drains(rabbit: RabbitStage, tmp_path: Path) -> None:
    queue = rabbit.queue()
    async with served(tmp_path, rabbit.url, queue, *UVICORN, "--workers", "2") as run:
        await run.until("startup complete", times=2)
        asked = [await rabbit.ask(queue, number) for number in (1, 2)]
        await run.until("started", times=2)
        await rabbit.ask(queue, 3)
        run.signal(signal.SIGTERM)
        await run.until(DRAINING, times=2)
        let_go(tmp_path)
        assert await run.exit_code() in (0, -signal.SIGTERM), run.transcript
        assert [(await rabbit.reply(one))["data"] for one in asked] == [1, 2]

    assert sorted(run.lines) == ["finished 1", "finished 2", "left", "left", "started 1", "started 2"]
    await rabbit.has(queue, 1)


async def test_a_reload_drains_and_goes_on(rabbit: RabbitStage, tmp_path: Path) -> None:
    queue = rabbit.queue()
    async with served(tmp_path, rabbit.url, queue, *UVICORN, "--reload") as run:
        await run.until("startup complete")
        asked = [await rabbit.ask(queue, 1)]
        await run.until("started 1")
        asked.append(await rabbit.ask(queue, 2))
        os.utime(tmp_path / "app.py")
        await run.until(DRAINING)
        let_go(tmp_path)
        await run.until("finished 2")
        assert [(await rabbit.reply(one))["data"] for one in asked] == [1, 2]
        run.signal(signal.SIGTERM)
        await run.exit_code()

    assert run.lines == ["started 1", "finished 1", "left", "started 2", "finished 2", "left"]


async def test_a_broker_that_is_down_is_one_line_and_the_servers_end(tmp_path: Path) -> None:
    async with served(tmp_path, "amqp://guest:secret@127.0.0.1:1/", "orders", *UVICORN) as run:
        assert await run.exit_code() == 3, run.transcript

    assert run.lines == ["left"]
    told = [line for line in run.errors if "RabbitMQ was not started: BrokerUnavailable:" in line]
    assert len(told) == 1, run.transcript
    assert "aiormq" not in run.error_output, run.transcript
    assert "secret" not in run.error_output
