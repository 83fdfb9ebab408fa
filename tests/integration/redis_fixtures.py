"""Redis stores for the integration tests: on a test's own keys, through a proxy that fails on demand."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, override
from urllib.parse import urlsplit

from autosell_rmq.exceptions import InProgress
from autosell_rmq.idempotency import Claim, RedisStore, Stored
from tests.contract.store_fixtures import REDIS_URL, Work, redis_prefix

KEY = "key"
LEASE = 1.0  # seconds; long enough that a busy machine renews in time


class Counting(RedisStore):
    """Counts its renewals, and the steps of each trip."""

    renewals = 0

    def __init__(self, url: str, **options: Any) -> None:  # noqa: ANN401
        super().__init__(url, **options)
        self.trips: list[int] = []

    @override
    async def _carry_out(self, steps: Sequence[Any]) -> Any:
        self.trips.append(len(steps))
        return await super()._carry_out(steps)

    @override
    async def renew(self, claim: Claim) -> bool:
        self.renewals += 1
        return await super().renew(claim)


class Connect:
    """Opens stores that share the test's keys."""

    def __init__(self, prefix: str, stack: contextlib.AsyncExitStack) -> None:
        self.prefix = prefix
        self._stack = stack

    async def __call__(self, url: str = REDIS_URL, **options: float) -> Counting:
        store = Counting(url, prefix=self.prefix, **{"lease": LEASE, **options})
        await store.open()
        self._stack.push_async_callback(store.close)
        return store


@contextlib.asynccontextmanager
async def connecting() -> AsyncGenerator[Connect]:
    with redis_prefix() as prefix:
        async with contextlib.AsyncExitStack() as stack:
            yield Connect(prefix, stack)


class Proxy:
    """Stands between a store and Redis: passes on, holds back, or is gone."""

    def __init__(self) -> None:
        upstream = urlsplit(REDIS_URL)
        self.upstream = upstream.hostname or "127.0.0.1", upstream.port or 6379
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self.server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return urlsplit(REDIS_URL)._replace(netloc=f"127.0.0.1:{self.port}").geturl()

    def reset_connections(self) -> None:
        for writer in self.writers:
            writer.transport.abort()

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            self.reset_connections()
            await self.server.wait_closed()
            self.server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection(*self.upstream)
        both = {writer, there_writer}
        self.writers |= both
        try:
            pumps = [self._pump(reader, there_writer), self._pump(there_reader, writer)]
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self.writers -= both
            for each in both:
                each.transport.abort()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self.flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def proxying() -> AsyncGenerator[Proxy]:
    proxy = Proxy()
    await proxy.start()
    yield proxy
    proxy.flowing.set()
    await proxy.stop()


async def takes_over(store: RedisStore, work: Work) -> Stored:
    """Run as soon as the key is free."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(InProgress):
                return await store.run_once(KEY, "f", work.call)
            await asyncio.sleep(0.02)
