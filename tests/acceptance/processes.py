"""Processes of the tests' own: started, listened to line by line, signalled, never left behind."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.markdown import ROOT
from tests.support.waiting import eventually

PATIENCE = 30.0  # seconds; a process of its own on a busy machine needs some to start


@dataclass(eq=False)
class Running:
    """A process and what it has written so far."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _readers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def error_output(self) -> str:
        return "\n".join(self.errors)

    def listen(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            asyncio.create_task(_collect(self.process.stdout, self.lines)),
            asyncio.create_task(_collect(self.process.stderr, self.errors)),
        ]

    async def until(self, text: str, *, times: int = 1) -> None:
        """Wait until so many lines of its output or error output have this text."""

        def seen() -> bool:
            count = sum(text in line for line in [*self.lines, *self.errors])
            # Its children may write on where it has been killed.
            ended = self.process.returncode is not None and all(reader.done() for reader in self._readers)
            assert count >= times or not ended, (
                f"the process ended with {self.process.returncode} before it said {text!r}: {self.transcript}"
            )
            return count >= times

        try:
            await eventually(seen, within=PATIENCE)
        except TimeoutError:
            raise AssertionError(f"the process never said {text!r}: {self.transcript}") from None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def say(self, line: str = "") -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def exit_code(self) -> int:
        """Wait for its end."""
        try:
            async with asyncio.timeout(PATIENCE):
                code = await self.process.wait()
                await asyncio.gather(*self._readers)
        except TimeoutError:
            raise AssertionError(f"the process did not end: {self.transcript}") from None
        return code

    @property
    def transcript(self) -> str:
        return f"\n--- stdout\n{self.output}\n--- stderr\n{self.error_output}\n---"

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await asyncio.gather(*self._readers)


async def _collect(stream: asyncio.StreamReader, lines: list[str]) -> None:
    async for line in stream:
        lines.append(line.decode().rstrip("\n"))  # noqa: PERF401 - each line is seen as it comes


@asynccontextmanager
async def running(
    *command: str | Path, cwd: Path = ROOT, env: Mapping[str, str | None] | None = None
) -> AsyncGenerator[Running]:
    """Start a process; kill it at the end if it still runs. In `env` a None removes a variable."""
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **(env or {})}
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env={name: value for name, value in environ.items() if value is not None},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    run = Running(process)
    run.listen()
    try:
        yield run
    finally:
        await run.kill()


@asynccontextmanager
async def running_script(
    path: Path, code: str, *, env: Mapping[str, str | None] | None = None
) -> AsyncGenerator[Running]:
    """Write a script and run it with this very Python."""
    path.write_text(code, encoding="utf-8")  # noqa: ASYNC240 - a few lines, before anything runs
    async with running(sys.executable, path, cwd=path.parent, env=env) as run:
        yield run
