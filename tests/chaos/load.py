"""A steady stream of requests and messages, as a service would send them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Unpack

from autosell_rmq import RabbitMQProducer, ReplyTimeout, SettingsKwargs
from tests.chaos.ledger import Ledger
from tests.support.waiting import eventually

PATIENCE = 60.0  # seconds that a request waits for its reply: any outage here is shorter


class Load:
    """Sends at a steady rate until it is stopped, whatever happens to what it has sent.

    By turns a request and a message without an answer, each with a key; every fifth is sent twice at once.
    """

    def __init__(
        self, producer: RabbitMQProducer, queue: str, *, rate: float, seconds: float, padding: int
    ) -> None:
        self.ledger = Ledger()
        self.producer = producer
        self._queue = queue
        self._rate = rate
        self._data = {"seconds": seconds, "padding": "x" * padding}
        self._run = f"{queue}.{uuid.uuid4().hex[:8]}"
        self._sending: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._source = asyncio.create_task(self._send_steadily())

    async def accepted(self, number: float) -> None:
        """Wait for so many more messages to be accepted."""
        enough = self.ledger.accepted.total() + number
        await eventually(lambda: self.ledger.accepted.total() >= enough, within=PATIENCE)

    async def stop(self) -> Ledger:
        """Send nothing new; wait for what is under way, which ends within its own time."""
        self._stopped.set()
        await self._source
        await asyncio.gather(*self._sending)
        return self.ledger

    async def _send_steadily(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number in count():
            if self._stopped.is_set():
                return
            for _ in range(2 if number % 5 == 0 else 1):
                self.send(f"{self._run}.{number}", request=number % 2 == 0)
            pause = begun + (number + 1) / self._rate - loop.time()
            await asyncio.sleep(max(pause, 0))

    def send(self, key: str, *, request: bool, **data: object) -> asyncio.Task[None]:
        """One message, in a task of its own."""
        given = {"key": key, **self._data, **data}
        self.ledger.attempted += 1
        task = asyncio.create_task(self._ask(key, given) if request else self._tell(key, given))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    async def _ask(self, key: str, data: dict[str, Any]) -> None:
        async def ask() -> None:
            reply = await self.producer.send_message(self._queue, data, timeout=PATIENCE, correlation_id=key)
            self.ledger.on_reply(key, reply)

        self.ledger.requests[key] += 1
        await self._noted(key, ask)

    async def _tell(self, key: str, data: dict[str, Any]) -> None:
        async def tell() -> None:
            await self.producer.send_fire_and_forget(self._queue, data, correlation_id=key)
            self.ledger.on_accepted(key)

        await self._noted(key, tell)

    async def _noted(self, key: str, send: Callable[[], Awaitable[None]]) -> None:
        """Note how a send ends. Nobody cancels these tasks: a cancellation would be the client library's."""
        try:
            await send()
        except ReplyTimeout:  # it is accepted all the same
            self.ledger.failed["ReplyTimeout"] += 1
            self.ledger.accepted[key] += 1
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the ledger judges which may come
            self.ledger.failed[type(error).__name__] += 1


@asynccontextmanager
async def load(
    url: str,
    queue: str,
    *,
    rate: float = 20.0,
    seconds: float = 0.05,
    padding: int = 0,
    settled: bool = True,
    **settings: Unpack[SettingsKwargs],
) -> AsyncGenerator[Load]:
    """A running load, warmed up.

    Args:
        url: of the broker.
        queue: an existing one.
        rate: sends a second, duplicates not counted.
        seconds: that the handler takes.
        padding: bytes in each body.
        settled: wait until the first of them are accepted.
        settings: of the producer.
    """
    given: SettingsKwargs = {"max_backoff": 2.0, **settings}
    async with RabbitMQProducer(url, **given) as producer:
        running = Load(producer, queue, rate=rate, seconds=seconds, padding=padding)
        try:
            if settled:
                await running.accepted(min(20, 2 * rate))
            yield running
        finally:
            await running.stop()
