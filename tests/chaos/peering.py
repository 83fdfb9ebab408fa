"""The peers as processes, in the environment of the benchmarks, and what came of their messages."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.install import peers_python, versions
from tests.acceptance.processes import Running, running
from tests.chaos.ledger import Figures, Ledger
from tests.support.names import unique
from tests.support.waiting import eventually

PROGRAMS = Path(__file__).parent / "peers"
PEERS = {
    "autosell-rmq": "with_autosell_rmq",
    "faststream": "with_faststream",
    "taskiq-aio-pika": "with_taskiq",
}
_SETTLED = 60.0  # seconds


@dataclass(eq=False)
class Peer:
    """One of them, with a queue of its own.

    Attributes:
        name: of its package.
        url: of the broker.
        folder: for the file of the effects.
        seconds: that its handler takes.
        number: of the messages; 0 for no limit.
    """

    name: str
    url: str
    folder: Path
    seconds: float = 0.2
    number: int = 0
    queue: str = field(default_factory=lambda: unique("peer"))

    @property
    def python(self) -> Path:
        return Path(sys.executable) if self.name == "autosell-rmq" else peers_python()

    @property
    def title(self) -> str:
        if self.name == "autosell-rmq":
            return self.name
        return f"{self.name} {versions(self.python)[self.name]}"

    def process(self, part: str) -> AbstractAsyncContextManager[Running]:
        spec = {
            "url": self.url,
            "queue": self.queue,
            "effects": str(self.folder / "effects"),
            "seconds": self.seconds,
            "rate": 20.0 if not self.number else 200.0,
            "number": self.number,
        }
        environment = {"CHAOS_PEER": json.dumps(spec), "PYTHONPATH": str(PROGRAMS), "RABBITMQ_URL": None}
        program = PROGRAMS / f"{PEERS[self.name]}.py"
        return running(self.python, program, part, cwd=PROGRAMS, env=environment)

    @asynccontextmanager
    async def worker(self) -> AsyncGenerator[Running]:
        """A worker that is ready. It is told to stop in the end: a killed one may leave children behind."""
        async with self.process("worker") as worker:
            try:
                await worker.until("ready")
                yield worker
            finally:
                if worker.process.returncode is None:
                    worker.signal(signal.SIGTERM)
                    await worker.exit_code()

    def effects(self) -> list[tuple[str, float]]:
        file = self.folder / "effects"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(key, float(at)) for key, at in (line.split() for line in lines)]

    async def settled(self, sender: Running, *, healed: float | None = None) -> Figures:
        """Wait for the effects of everything accepted, and for second ones; then count."""
        ledger = ledger_of(sender)

        def complete() -> bool:
            return ledger.accepted.keys() <= {key for key, _ in self.effects()}

        with suppress(TimeoutError):  # the figures say what is missing
            await eventually(complete, within=_SETTLED)
        await asyncio.sleep(self.seconds + 1.0)  # a second effect comes after the first
        return ledger.figures(self.effects(), healed=healed)


def ledger_of(sender: Running) -> Ledger:
    """What a sender has said so far."""
    ledger = Ledger()
    for line in sender.lines:
        match line.split():
            case ["accepted", key, at]:
                ledger.accepted[key] += 1
                ledger.accepted_at.append(float(at))
            case ["failed", _, error]:
                ledger.failed[error] += 1
    return ledger
