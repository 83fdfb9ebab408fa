"""The programs and commands of both READMEs, as processes on a real RabbitMQ."""

import json
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tests.acceptance.markdown import ROOT, Block, blocks, rewritten
from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import running, running_script
from tests.acceptance.test_cli import SCRIPT
from tests.acceptance.test_readme import PAGES, is_program

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]


def programs(page: str) -> list[Block]:
    return [block for block in blocks(ROOT / page, "python") if is_program(block)]


def quick_start(page: str) -> Block:
    [found] = [block for block in programs(page) if block.filename == "quickstart.py"]
    return found


@pytest.mark.parametrize("page", PAGES)
async def test_quick_start_prints_what_the_page_shows(page: str, tmp_path: Path) -> None:
    program = quick_start(page)
    shown = next(block for block in blocks(ROOT / page, "text") if block.line > program.line)

    async with running_script(tmp_path / "quickstart.py", program.code) as run:
        assert await run.exit_code() == 0, run.transcript

    ids = re.compile("[0-9a-f]{32}")
    assert ids.sub("ID", run.output) == ids.sub("ID", shown.code.strip())


@pytest.mark.rabbitmq
@pytest.mark.parametrize("page", PAGES)
async def test_the_two_processes(page: str, rabbit: RabbitPlace, tmp_path: Path) -> None:
    """Every program of the page but the quick start; a consumer is stopped by Ctrl+C."""
    [consumer, producer] = [p for p in programs(page) if p.filename != "quickstart.py"]
    assert "RabbitMQConsumer(" in consumer.code
    assert "RabbitMQProducer(" in producer.code
    [name] = set(re.findall(r'queue_name="(\w+)"', consumer.code))
    queue = rabbit.queue("readme")
    names = {f'"{name}"': f'"{queue}"'}
    urls = {'"amqp://guest:guest@localhost/"': repr(rabbit.url)}
    dlq = {f'"{name}_dlq"': f'"{queue}_dlq"'}
    env = {"RABBITMQ_URL": rabbit.url}

    def prepared(code: str) -> str:
        return rewritten(code, {old: new for old, new in (names | urls | dlq).items() if old in code})

    async with running_script(tmp_path / "consumer.py", prepared(consumer.code), env=env) as first:
        await rabbit.is_consumed(queue)
        async with running_script(tmp_path / "producer.py", prepared(producer.code), env=env) as second:
            assert await second.exit_code() == 0, second.transcript
        await rabbit.has(queue, 0)
        first.signal(signal.SIGINT)
        assert await first.exit_code() == 0, first.transcript

    assert len(first.lines) == 2, first.transcript
    assert second.lines, second.transcript
    assert second.errors == []


def commands(page: str) -> list[list[str]]:
    lines = [line for block in blocks(ROOT / page, "sh", "bash") for line in block.code.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("autosell-rmq ")]


@pytest.mark.rabbitmq
@pytest.mark.parametrize("page", PAGES)
async def test_the_commands(page: str, rabbit: RabbitPlace, tmp_path: Path) -> None:
    [shop] = [block for block in blocks(ROOT / page, "python") if block.filename == "shop.py"]
    queue = rabbit.queue("readme")
    (tmp_path / "shop.py").write_text(rewritten(shop.code, {'"orders"': f'"{queue}"'}), encoding="utf-8")
    env = {"RABBITMQ_URL": rabbit.url}

    async with running(*SCRIPT, "run", "shop:rmq", cwd=tmp_path, env=env) as server:
        await rabbit.is_consumed(queue)
        for words in commands(page):
            if words[1] == "run":
                assert words[2:] == ["shop:rmq"]
                continue
            arguments = [queue if word == "orders" else word for word in words[1:]]
            async with running(*SCRIPT, *arguments, cwd=tmp_path, env=env) as run:
                assert await run.exit_code() == 0, run.transcript
            if words[1] == "send":
                reply = json.loads(run.output)
                assert reply.get("sent") or reply["success"], reply
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0, server.transcript

    assert {words[1] for words in commands(page)} == {"run", "send", "version"}


def test_programs_are_found() -> None:
    assert [block.filename for block in programs("README.md")] == [
        "quickstart.py",
        "consumer.py",
        "producer.py",
    ]
    assert sys.version_info >= (3, 13)
