"""The predecessor, autosell-rmq 0.1.4, in an environment of its own, and services that run it."""

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pika  # type: ignore[import-untyped]
import pytest
from pika.exceptions import ChannelClosedByBroker  # type: ignore[import-untyped]

from autosell_rmq.codec import Envelope, restore
from tests.support.services import RABBITMQ_URL
from tests.support.waiting import PATIENCE, eventually

OLD = ("autosell-rmq==0.1.4", "aio-pika==9.6.2", "aiormq==6.9.4", "pamqp==3.3.0")
RETRY_OF_OLD = 5.0  # seconds that 0.1.4 lets a failed message wait

_SERVICE = Path(__file__).with_name("service_014.py")
_TOOLS = Path(__file__).resolve().parents[2] / ".venv-tools" / "bin"  # where the set-up may have put uv
_INSTALL_TIMEOUT = 120.0


def old_python(folder: Path) -> Path:
    """A Python with 0.1.4 in `folder`: the one of an earlier run, or a new one from PyPI."""
    python = folder / "bin" / "python"
    if _versions(python) != sorted(OLD):
        shutil.rmtree(folder, ignore_errors=True)
        problem = next(filter(None, map(_run, _install(folder, python))), None)
        if problem is not None or _versions(python) != sorted(OLD):
            shutil.rmtree(folder, ignore_errors=True)
            missing = f"autosell-rmq 0.1.4 cannot be had from PyPI: {problem}"
            if os.environ.get("AUTOSELL_RMQ_REQUIRE_SERVICES") == "1":
                pytest.fail(missing, pytrace=False)
            pytest.skip(missing)
    return python


def _install(folder: Path, python: Path) -> list[list[str]]:
    uv = shutil.which("uv", path=os.pathsep.join([os.environ.get("PATH", ""), str(_TOOLS)]))
    if uv is not None:
        make = [uv, "venv", "--quiet", "--python", sys.executable, str(folder)]
        return [make, [uv, "pip", "install", "--quiet", "--python", str(python), *OLD]]
    return [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *OLD],
    ]


def _versions(python: Path) -> list[str]:
    names = [requirement.partition("==")[0] for requirement in OLD]
    code = f"import importlib.metadata as m; print(*(f'{{n}}=={{m.version(n)}}' for n in {names!r}))"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return []
    return sorted(done.stdout.split())


def _run(command: list[str]) -> str | None:
    """What went wrong, or None."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else f"{command[0]}: {lines[-1] if lines else done.returncode}"


class OldError(Exception):
    """What 0.1.4 raised: its class and its words."""


class OldService:
    """A process that runs 0.1.4, asked over a pipe."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    async def __call__(self, verb: str, **arguments: object) -> Any:  # noqa: ANN401 - whatever the verb returns
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([number, verb, arguments]).encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            return await answer

    async def consume(self, queue: str, *, max_retries: int = 3) -> None:
        """Start its consumer, which declares as 0.1.4 does."""
        await self("consume", queue=queue, dlq=f"{queue}_dlq", max_retries=max_retries)

    async def until_seen(self, count: int) -> list[Any]:
        """What its handler was called with, once it is `count` messages."""
        seen: list[Any] = []

        async def enough() -> bool:
            seen[:] = await self("seen")
            return len(seen) >= count

        await eventually(enough)
        return seen

    async def kill(self) -> None:
        """SIGKILL: what it had in hand goes back to its queue."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            number, result, error = json.loads(line)
            answer = self._answers.pop(number)
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(OldError(error))


@asynccontextmanager
async def old_service(python: Path) -> AsyncGenerator[OldService]:
    """A running process, killed at the end."""
    process = await asyncio.create_subprocess_exec(
        python,
        _SERVICE,
        RABBITMQ_URL,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=2**24,
    )
    service = OldService(process)
    try:
        yield service
    finally:
        await service.kill()


# --- what is seen from outside ---------------------------------------------------------------------


def on_channel[T](use: Callable[[Any], T]) -> T:
    connection = pika.BlockingConnection(pika.URLParameters(RABBITMQ_URL))
    try:
        return use(connection.channel())
    finally:
        if connection.is_open:
            connection.close()


def depth(queue: str) -> int:
    """How many messages are ready in a queue."""
    return on_channel(lambda channel: int(channel.queue_declare(queue, passive=True).method.message_count))


def exists(queue: str) -> bool:
    try:
        depth(queue)
    except ChannelClosedByBroker:
        return False
    return True


def take(queue: str) -> tuple[Any, bytes]:
    """The next message of a queue, properties and body; it is acked."""
    got = on_channel(lambda channel: channel.basic_get(queue, auto_ack=True))
    assert got[0] is not None, f"{queue} is empty"
    return got[1], got[2]


def take_letter(dlq: str) -> Envelope:
    return restore(take(dlq)[1])


def publish(queue: str, body: bytes, **properties: Any) -> None:  # noqa: ANN401 - as pika takes them
    def use(channel: Any) -> None:  # noqa: ANN401
        channel.confirm_delivery()
        about = pika.BasicProperties(delivery_mode=2, **properties)
        channel.basic_publish("", queue, body, about, mandatory=True)

    on_channel(use)


def delete(queue: str) -> None:
    """Everything that either version declares for a queue."""

    def use(channel: Any) -> None:  # noqa: ANN401
        for name in (queue, f"{queue}_dlq", f"{queue}.retry.temp"):
            channel.queue_delete(name)
        channel.exchange_delete(f"{queue}.retry")

    on_channel(use)
