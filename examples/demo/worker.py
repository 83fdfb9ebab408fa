"""The consuming side. As a program of its own it serves one queue: ``python worker.py QUEUE``."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from screen import console, pass_on, say, show_log, transcript

from autosell_rmq import RabbitMQ
from shop import shop


class Worker(Protocol):
    """A running consumer, as the scenes see it."""

    def terminate(self) -> None:
        """Send it SIGTERM."""
        ...

    async def ended(self) -> str:
        """Wait for its end, and say how it ended."""
        ...


async def serve(url: str, queue: str) -> None:
    """Consume until SIGTERM, then drain: all that a service's ``main`` has to do."""
    rmq = RabbitMQ(url, drain_timeout=20)
    rmq.include(shop(queue))
    async with rmq:
        await rmq.run()


class OtherProcess:
    """The worker as a process of its own; what it prints is passed on as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._listening = asyncio.create_task(self._listen())

    def terminate(self) -> None:
        self._process.terminate()

    async def ended(self) -> str:
        code = await self._process.wait()
        await self._listening
        return f"the consumer process ended with code {code}"

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            pass_on(line.decode().rstrip("\n"))

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()


class ThisProcess:
    """The worker beside the producer, for a broker that lives in this process."""

    def __init__(self, serving: asyncio.Task[None]) -> None:
        self._serving = serving
        self._demo = asyncio.current_task()
        serving.add_done_callback(self.interrupted)

    def interrupted(self, _: object) -> None:
        """Ctrl+C has gone to the consumer, which has drained: there is nobody left to show."""
        assert self._demo is not None
        self._demo.cancel()

    def terminate(self) -> None:
        self._serving.remove_done_callback(self.interrupted)
        os.kill(os.getpid(), signal.SIGTERM)

    async def ended(self) -> str:
        await self._serving
        return "rmq.run() returned"


@asynccontextmanager
async def working(url: str, queue: str) -> AsyncGenerator[Worker]:
    """A worker that consumes `queue`, where the broker is."""
    if url.startswith("memory:"):
        show_log()
        serving = asyncio.create_task(serve(url, queue))
        worker = ThisProcess(serving)
        try:
            await _ready(serving)
            yield worker
        finally:
            serving.remove_done_callback(worker.interrupted)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__)),
        queue,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "RABBITMQ_URL": url, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        | ({"FORCE_COLOR": "1"} if console.is_terminal else {}),
    )
    other = OtherProcess(process)
    try:
        say("demo", f"producer: process {os.getpid()}, consumer: process {process.pid}", "dim")
        await _ready(asyncio.create_task(process.wait()))
        yield other
    finally:
        await other.kill()


async def _ready(end: asyncio.Task[object] | asyncio.Task[None]) -> None:
    """Wait until it consumes; it may also fail before that."""
    consuming = asyncio.create_task(transcript.has("consuming queue"))
    await asyncio.wait([consuming, end], return_when=asyncio.FIRST_COMPLETED)
    if not consuming.done():
        consuming.cancel()
        raise SystemExit("demo: the consumer ended before it consumed")


if __name__ == "__main__":
    show_log()
    asyncio.run(serve(os.environ["RABBITMQ_URL"], sys.argv[1]))
