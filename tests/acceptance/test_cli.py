"""The command line: what it does when all is well."""

import asyncio
import json
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from autosell_rmq import RabbitMQProducer
from tests.acceptance.consumers import consuming
from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import running
from tests.support.waiting import eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(90)]

SCRIPT = (str(Path(sys.executable).with_name("autosell-rmq")),)
MODULE = (sys.executable, "-m", "autosell_rmq")

SHOP = """\
import asyncio, sys
from autosell_rmq import RabbitMQ

rmq = RabbitMQ()

@rmq.handler("{queue}")
async def create_order(order: dict) -> dict:
    if order.get("wait"):
        print("started", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print("finished", flush=True)
    return {{"total": order["price"] * 2}}

@rmq.handler("{queue}.failing", dlq="{queue}_dlq", max_retries=0)
async def fail(order: dict) -> None:
    raise ValueError("нет товара")
"""

ON_A_LOOP = """\
import asyncio
from autosell_rmq import RabbitMQ

rmq = RabbitMQ()

@rmq.handler("{queue}")
async def tell(number: int) -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]
"""


@pytest.fixture(params=[SCRIPT, MODULE], ids=["script", "module"])
def command(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Either way to start it."""
    words: tuple[str, ...] = request.param
    return words


async def test_version(command: tuple[str, ...]) -> None:
    async with running(*command, "version") as run:
        assert await run.exit_code() == 0, run.transcript

    assert run.lines == [f"autosell-rmq {version('autosell-rmq')}"]


async def test_help_names_the_commands(command: tuple[str, ...]) -> None:
    async with running(*command, "--help") as run:
        assert await run.exit_code() == 0, run.transcript

    assert all(f" {name} " in run.output for name in ("run", "send", "asyncapi", "version"))


@pytest.mark.rabbitmq
async def test_send_prints_the_reply(rabbit: RabbitPlace, command: tuple[str, ...]) -> None:
    queue = rabbit.queue("cli")
    async with (
        consuming(rabbit, queue),
        running(
            *command, "send", queue, '{"text": "Привет"}', "--correlation-id", "c-1", "--url", rabbit.url
        ) as run,
    ):
        assert await run.exit_code() == 0, run.transcript

    assert json.loads(run.output) == {"success": True, "data": {"text": "Привет"}, "correlation_id": "c-1"}
    assert "Привет" in run.output
    assert run.errors == []


@pytest.mark.rabbitmq
async def test_send_reads_standard_input_and_the_environment(rabbit: RabbitPlace) -> None:
    queue = rabbit.queue("cli")
    async with (
        consuming(rabbit, queue),
        running(*SCRIPT, "send", queue, "-", env={"RABBITMQ_URL": rabbit.url}) as run,
    ):
        await run.say('{"n": 1}')
        assert run.process.stdin is not None
        run.process.stdin.close()
        assert await run.exit_code() == 0, run.transcript

    assert json.loads(run.output)["data"] == {"n": 1}


@pytest.mark.rabbitmq
async def test_send_without_waiting(rabbit: RabbitPlace) -> None:
    queue = await rabbit.declared("cli")
    async with running(*SCRIPT, "send", queue, '{"n": 1}', "--no-wait", "--url", rabbit.url) as run:
        assert await run.exit_code() == 0, run.transcript
    message = await rabbit.take(queue)

    assert message.body == b'{"n":1}'
    assert json.loads(run.output) == {"correlation_id": message.correlation_id, "sent": True}


@pytest.mark.rabbitmq
async def test_run_serves_and_drains_on_sigterm(
    rabbit: RabbitPlace, command: tuple[str, ...], tmp_path: Path
) -> None:
    queue = rabbit.queue("cli")
    rabbit.queues.append(f"{queue}.failing")
    (tmp_path / "shop.py").write_text(SHOP.format(queue=queue), encoding="utf-8")

    async with (
        running(*command, "run", "shop:rmq", cwd=tmp_path, env={"RABBITMQ_URL": rabbit.url}) as run,
        RabbitMQProducer(rabbit.url) as producer,
    ):
        await run.until(f"consuming queue {queue}.failing")
        assert (await producer.send_message(queue, {"price": 2}))["data"] == {"total": 4}
        reply = asyncio.create_task(producer.send_message(queue, {"price": 3, "wait": True}))
        await run.until("started")
        run.signal(signal.SIGTERM)
        await run.until("SIGTERM: stopping gracefully")
        await run.say()
        assert await run.exit_code() == 0, run.transcript
        assert (await reply)["data"] == {"total": 6}

    assert run.lines == ["started", "finished"]
    assert any("INFO autosell_rmq.pipeline.process: queue" in line for line in run.errors)


@pytest.mark.rabbitmq
async def test_run_keeps_a_health_file(rabbit: RabbitPlace, tmp_path: Path) -> None:
    queue, file = rabbit.queue("cli"), tmp_path / "health.json"
    rabbit.queues.append(f"{queue}.failing")
    (tmp_path / "shop.py").write_text(SHOP.format(queue=queue), encoding="utf-8")
    arguments = ("run", "shop:rmq", "--health-file", str(file))

    async with running(*SCRIPT, *arguments, cwd=tmp_path, env={"RABBITMQ_URL": rabbit.url}) as run:
        await eventually(file.exists, within=60)
        read = json.loads(file.read_text())
        assert [each["attached"] for each in read["consumers"]] == [True, True]
        first = file.stat().st_mtime_ns
        await eventually(lambda: file.stat().st_mtime_ns > first)
        run.signal(signal.SIGTERM)
        assert await run.exit_code() == 0, run.transcript
    assert not file.exists()

    arguments = ("run", "shop:rmq", "--health-file", str(tmp_path / "nowhere" / "file"))
    async with running(*SCRIPT, *arguments, cwd=tmp_path, env={"RABBITMQ_URL": rabbit.url}) as run:
        assert await run.exit_code() == 1
    assert "cannot be written: No such file or directory" in run.transcript.replace("\n", " ")


@pytest.mark.rabbitmq
async def test_run_on_uvloop(rabbit: RabbitPlace, tmp_path: Path) -> None:
    queue = rabbit.queue("cli")
    (tmp_path / "shop.py").write_text(ON_A_LOOP.format(queue=queue), encoding="utf-8")
    env = {"RABBITMQ_URL": rabbit.url}

    for options, loop in (((), "asyncio"), (("--uvloop",), "uvloop")):
        async with running(*SCRIPT, "run", "shop:rmq", *options, cwd=tmp_path, env=env) as server:
            await rabbit.is_consumed(queue)
            async with running(*SCRIPT, "send", queue, "1", cwd=tmp_path, env=env) as sender:
                assert await sender.exit_code() == 0, sender.transcript
            assert f'"{loop}"' in sender.output
            server.signal(signal.SIGTERM)
            assert await server.exit_code() == 0, server.transcript


async def test_uvloop_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError", encoding="utf-8")
    env = {"PYTHONPATH": str(tmp_path)}
    async with running(*SCRIPT, "run", "shop:rmq", "--uvloop", cwd=tmp_path, env=env) as run:
        assert await run.exit_code() == 1
    assert "pip install 'autosell-rmq[uvloop]'" in run.transcript


@pytest.mark.rabbitmq
async def test_send_exits_with_1_on_an_error_reply(rabbit: RabbitPlace, tmp_path: Path) -> None:
    queue = rabbit.queue("cli")
    rabbit.queues.append(f"{queue}.failing")
    (tmp_path / "shop.py").write_text(SHOP.format(queue=queue), encoding="utf-8")
    env = {"RABBITMQ_URL": rabbit.url}

    async with running(*SCRIPT, "run", "shop:rmq", "--log-level", "warning", cwd=tmp_path, env=env) as server:
        await rabbit.is_consumed(f"{queue}.failing")
        async with running(*SCRIPT, "send", f"{queue}.failing", "{}", env=env) as run:
            assert await run.exit_code() == 1, run.transcript
        server.signal(signal.SIGINT)
        assert await server.exit_code() == 0, server.transcript

    assert json.loads(run.output)["error"] == "ValueError: нет товара"
    assert run.errors == []
    assert not any(" INFO " in line for line in server.errors)
