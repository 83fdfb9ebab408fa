"""What the tests of the idempotency stores share: work to run once, and a corner of a Redis for each test."""

import asyncio
import contextlib
import os
from collections.abc import Generator

import redis

from autosell_rmq.idempotency import Call
from tests.support import services
from tests.support.names import unique

REDIS_URL = os.environ.get("REDIS_URL") or "redis://127.0.0.1:6379/0"


class Work:
    """A handler: counts its runs, and holds at `gate` when it has one."""

    def __init__(
        self,
        result: bytes = b'{"n":1}',
        *,
        error: BaseException | None = None,
        gate: asyncio.Event | None = None,
    ) -> None:
        self.result = result
        self.error = error
        self.gate = gate
        self.runs = 0
        self.started = asyncio.Event()
        self.cancelled = False

    async def run(self) -> bytes:
        self.runs += 1
        self.started.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error
        return self.result

    @property
    def call(self) -> Call:
        return Call(run=self.run)


@contextlib.contextmanager
def redis_prefix() -> Generator[str]:
    """A key prefix of its own in the Redis of the tests, emptied afterwards; skips or fails without Redis."""
    services.require("redis")
    prefix = f"{unique('store')}:"
    try:
        yield prefix
    finally:
        with redis.Redis.from_url(REDIS_URL) as client:
            for key in client.scan_iter(match=f"{prefix}*", count=1000):
                client.delete(key)
