"""Where a fault happens: a queue, worker processes, and the place where their effects can be counted."""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack, override

from redis.asyncio import Redis

from autosell_rmq import SettingsKwargs
from tests.acceptance.markdown import ROOT
from tests.acceptance.processes import Running, running
from tests.chaos.ledger import Figures, Ledger
from tests.chaos.postgres import ChaosDatabase
from tests.support.names import unique
from tests.support.waiting import eventually

HERE = Path(__file__).parent
COMMAND = (sys.executable, "-m", "autosell_rmq")
REDIS_URL = os.environ.get("REDIS_URL") or "redis://127.0.0.1:6379/0"
_SHOWN = 10_000  # characters of a worker's output
_SETTLED = 90.0  # seconds for the effects of what was accepted; only a lost message uses them up
# The longest wait between two attempts, so that the time to recover says something of the code.
BACKOFF: SettingsKwargs = {"max_backoff": 2.0}
RECOVERY = 2.0 + 2.0  # seconds


@dataclass(eq=False)
class World(ABC):
    """A queue of one test; `url` is its broker's, as the workers reach it."""

    url: str
    prefix: str = field(default_factory=lambda: unique("chaos"))

    mode = ""

    @property
    def queue(self) -> str:
        return f"{self.prefix}.pay"

    @abstractmethod
    def process(
        self, *, url: str | None, settings: Mapping[str, Any], options: Mapping[str, Any], stubborn: bool
    ) -> AbstractAsyncContextManager[Running]:
        """A worker process that may be ready or not."""

    @abstractmethod
    async def effects(self) -> list[tuple[str, float]]:
        """Every effect so far: its key, and when."""

    @asynccontextmanager
    async def worker(
        self,
        *,
        url: str | None = None,
        options: Mapping[str, Any] | None = None,
        stubborn: bool = False,
        **settings: Unpack[SettingsKwargs],
    ) -> AsyncGenerator[Running]:
        """A worker process that consumes; killed at the end, if it still runs.

        Args:
            url: another one than the world's.
            options: of the handler.
            stubborn: its handler never returns.
            settings: of the app.
        """
        given: SettingsKwargs = {**BACKOFF, **settings}
        async with self.process(url=url, settings=given, options=options or {}, stubborn=stubborn) as process:
            try:
                await process.until("ready")
                yield process
            except BaseException:
                sys.stdout.write(process.transcript[-_SHOWN:])  # pytest shows it with the failure
                raise

    async def settled(self, ledger: Ledger, *, healed: float | None = None) -> Figures:
        """Wait for the effects of everything accepted, then count. What does not come is lost."""

        async def complete() -> bool:
            return ledger.accepted.keys() <= {key for key, _ in await self.effects()}

        with suppress(TimeoutError):  # the figures say what is missing
            await eventually(complete, within=_SETTLED)
        return ledger.figures(await self.effects(), healed=healed)


@dataclass(eq=False, kw_only=True)
class ExactlyOnce(World):
    """``manage.py rmq_consume`` with a sync handler: claim, effect and reply in one transaction."""

    database: ChaosDatabase

    mode = "exactly once"

    @override
    def process(
        self, *, url: str | None, settings: Mapping[str, Any], options: Mapping[str, Any], stubborn: bool
    ) -> AbstractAsyncContextManager[Running]:
        assert not stubborn
        given = {
            "URL": url or self.url,
            "OUTBOX": {"RELAY": False},
            **{name.upper(): value for name, value in settings.items()},
            "QUEUES": {self.queue: {name.upper(): value for name, value in options.items()}},
        }
        return self.database.manage(
            "rmq_consume", self.queue, "--no-reload", prefix=self.prefix, settings=given
        )

    @override
    async def effects(self) -> list[tuple[str, float]]:
        return await self.database.effects(self.prefix)


@dataclass(eq=False, kw_only=True)
class Leased(World):
    """An async handler under a lease in Redis; its effect is there too, but in no transaction with it."""

    redis: Redis

    mode = "lease"

    @override
    def process(
        self, *, url: str | None, settings: Mapping[str, Any], options: Mapping[str, Any], stubborn: bool
    ) -> AbstractAsyncContextManager[Running]:
        spec = {
            "url": url or self.url,
            "redis": REDIS_URL,
            "prefix": f"{self.prefix}.",
            "queue": self.queue,
            "settings": settings,
            "options": options,
            "stubborn": stubborn,
        }
        environment = {"CHAOS_WORKER": json.dumps(spec), "PYTHONPATH": str(ROOT)}
        return running(sys.executable, HERE / "leased_worker.py", env=environment)

    @override
    async def effects(self) -> list[tuple[str, float]]:
        lines = await self.redis.lrange(f"{self.prefix}.effects", 0, -1)
        return [(key, float(at)) for key, at in (str(line).split() for line in lines)]

    async def clean(self) -> None:
        async for key in self.redis.scan_iter(f"{self.prefix}.*"):
            await self.redis.delete(key)
