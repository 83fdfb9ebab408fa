"""What a worker process uses: processor, memory, files; what it says of itself."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.acceptance.processes import Running
from tests.support.waiting import eventually

_TICK = os.sysconf("SC_CLK_TCK")
_REDIS_PORT = urlsplit(os.environ.get("REDIS_URL") or "redis://127.0.0.1:6379").port or 6379
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """At one moment; `processor` is in seconds since the process began, `memory` in bytes.

    `files` are those that are open, but for the connections to Redis, whose pool grows with the load.
    """

    at: float
    processor: float
    memory: int
    files: int

    @classmethod
    def of(cls, process: Running) -> Usage:
        folder = Path(f"/proc/{process.process.pid}")
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        return cls(
            at=time.monotonic(),
            processor=(int(fields[11]) + int(fields[12])) / _TICK,
            memory=int((folder / "statm").read_text().split()[1]) * _PAGE,
            files=len(list((folder / "fd").iterdir())) - _connections(folder, _REDIS_PORT),
        )

    def busy_since(self, before: Usage) -> float:
        """The share of one processor."""
        return (self.processor - before.processor) / (self.at - before.at)


def _connections(folder: Path, port: int) -> int:
    """Sockets of the process whose other end has this port."""
    rows = [line.split() for line in (folder / "net/tcp").read_text().splitlines()[1:]]
    theirs = {f"socket:[{row[9]}]" for row in rows if int(row[2].rpartition(":")[2], 16) == port}
    found = 0
    for entry in (folder / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            found += os.readlink(entry) in theirs
    return found


async def tasks(worker: Running) -> int:
    """How many a leased worker has right now."""
    before = sum(line.startswith("tasks ") for line in worker.lines)
    await worker.say()
    await worker.until("tasks ", times=before + 1)
    return int([line for line in worker.lines if line.startswith("tasks ")][-1].split()[1])


def begun(worker: Running) -> list[str]:
    """The keys of the handlers begun so far."""
    return [line.partition(" ")[2] for line in worker.lines if line.startswith("begun ")]


@dataclass(frozen=True)
class Problems:
    """What a leased worker's app called its problems, from a moment on."""

    at: float
    texts: tuple[str, ...]


def problems(worker: Running) -> list[Problems]:
    """Each change so far."""
    found = []
    for line in worker.lines:
        word, _, rest = line.partition(" ")
        if word == "problems":
            at, _, texts = rest.partition(" ")
            found.append(Problems(float(at), tuple(json.loads(texts))))
    return found


async def problem(worker: Running, *, since: float, within: float, text: str = "") -> Problems:
    """Wait until a leased worker has a problem, with this in it."""

    def seen() -> list[Problems]:
        return [
            each
            for each in problems(worker)
            if each.at >= since and any(text.lower() in one.lower() for one in each.texts)
        ]

    await eventually(lambda: bool(seen()), within=within)
    return seen()[0]


async def healthy(worker: Running, *, within: float) -> None:
    """Wait until a leased worker has no problem."""
    await eventually(lambda: not problems(worker) or not problems(worker)[-1].texts, within=within)
