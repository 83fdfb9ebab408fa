"""Consumer processes that die and come back, requests for them, and the ledger of it all."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from autosell_rmq import topology
from autosell_rmq.broker import Broker, Delivery
from autosell_rmq.brokers import create_broker
from autosell_rmq.config import HandlerOptions, Settings
from autosell_rmq.ids import new_id
from autosell_rmq.message import NO_HEADERS, Properties, Publication
from autosell_rmq.topology import Queue, Topology
from tests.django import settings
from tests.django.crash.ledger import Ledger
from tests.support.names import unique
from tests.support.waiting import eventually

WORKER = Path(__file__).parent / "worker.py"
ROOT = WORKER.parents[3]
POINTS = (
    "before the claim",
    "after the claim",
    "mid handler",
    "before the commit",
    "after the commit",
    "after the reply",
)
_MOST_SKIPPED = 6  # passages of its point that a worker survives
_WORKERS = 2
_PROGRESS = 40  # replies; more than the workers have in hand
_PATIENCE = 60.0  # seconds for them


@dataclass
class Harness:
    """One run.

    Attributes:
        store: ``exactly once``, ``shared`` (the same with `batch`) or ``check then act``.
        kills: how many workers died at which point.
        others: the exit codes of those that ended in another way.
    """

    broker: Broker
    queue: str
    replies: str
    store: str
    ledger: Ledger
    kills: Counter[str] = field(default_factory=Counter)
    others: list[int] = field(default_factory=list)

    async def run(self, *, kills: int, within: float) -> None:
        """Send everything; let workers die so often; then let healthy ones finish."""
        await self._send()
        plans = [POINTS[n % len(POINTS)] for n in range(kills)]
        random.shuffle(plans)
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as places:
            for _ in range(_WORKERS):
                places.create_task(self._place(plans, stopping))
            try:
                await eventually(
                    lambda: self.ledger.is_complete and sum(self.kills.values()) >= kills, within=within
                )
            except TimeoutError:
                pass  # the verdict says what is missing
            finally:
                stopping.set()

    async def _progress(self) -> None:
        """Wait for the replies to what both workers may have in hand, or to everything."""
        enough = min(self.ledger.answered + _PROGRESS, len(self.ledger.ids) * self.ledger.copies)
        await eventually(lambda: self.ledger.answered >= enough, within=_PATIENCE)

    async def left(self) -> tuple[int, int]:
        """Messages in the queue and in its DLQ."""
        return await self.broker.depth(self.queue), await self.broker.depth(f"{self.queue}_dlq")

    async def _send(self) -> None:
        """All at once, in random order."""
        gate = asyncio.Semaphore(100)

        async def send(identity: str, data: dict[str, object]) -> None:
            properties = Properties(
                correlation_id=identity, message_id=new_id(), reply_to=self.replies, persistent=True
            )
            body = json.dumps(data).encode()
            async with gate:
                await self.broker.publish(
                    Publication(body=body, routing_key=self.queue, properties=properties), timeout=30
                )

        await asyncio.gather(*(send(*request) for request in self.ledger.requests()))

    async def _place(self, plans: list[str], stopping: asyncio.Event) -> None:
        """A place for one worker after the other."""
        async with _nursery(self.queue, self.store) as start:
            for turn in count(1):
                if stopping.is_set():
                    break
                # Now and then one that lives, or the same few messages would be in hand at 20 deaths, which
                # is their limit of deliveries.
                lives = bool(plans) and turn % 4 == 0
                point = plans.pop() if plans and not lives else ""
                worker = await start(f"{random.randint(0, _MOST_SKIPPED)} {point}")
                stopped = asyncio.create_task(self._progress() if lives else _done(stopping))
                await asyncio.wait([worker.code, stopped], return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                if not worker.code.done():
                    os.kill(worker.pid, signal.SIGTERM)
                code = await worker.code
                if code == -signal.SIGKILL:
                    self.kills[point] += 1
                else:
                    self.others.append(code)


async def _done(event: asyncio.Event) -> None:
    await event.wait()


@dataclass
class _Worker:
    pid: int
    code: asyncio.Task[int]


@asynccontextmanager
async def _nursery(queue: str, store: str) -> AsyncGenerator[Callable[[str], Awaitable[_Worker]]]:
    """A process that starts workers; see `worker.py`. None is left behind."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(WORKER), queue, store),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    last: _Worker | None = None

    async def number() -> int:
        assert process.stdout is not None
        return int(await process.stdout.readline())

    async def start(plan: str) -> _Worker:
        nonlocal last
        assert process.stdin is not None
        process.stdin.write(f"{plan}\n".encode())
        pid = await number()
        last = _Worker(pid, asyncio.create_task(number()))
        return last

    try:
        yield start
    finally:
        if last is not None and not last.code.done():
            os.kill(last.pid, signal.SIGKILL)
            last.code.cancel()
        process.kill()
        await process.wait()


@asynccontextmanager
async def harness(*, ids: int, copies: int = 3, store: str = "exactly once") -> AsyncGenerator[Harness]:
    """A queue for requests and one for replies, deleted at the end."""
    broker = create_broker(Settings.build(str(settings.AUTOSELL_RMQ["URL"])))
    await broker.open()
    queue, replies = unique("crash"), unique("crash.replies")
    ledger = Ledger([f"{queue}.{n}" for n in range(ids)], copies)
    await broker.declare(topology.of_handler(HandlerOptions.resolve(queue, Settings())))
    await broker.declare(Topology(queues=(Queue(name=replies),)))
    acks: set[asyncio.Task[None]] = set()

    def on_reply(delivery: Delivery) -> None:
        ledger.on_reply(delivery.message)
        acks.add(task := asyncio.ensure_future(delivery.ack()))
        task.add_done_callback(acks.discard)

    subscription = await broker.consume(
        replies, on_reply, prefetch=500, on_lost=lambda _: None, arguments=NO_HEADERS
    )
    try:
        yield Harness(broker, queue, replies, store, ledger)
    finally:
        await subscription.close()
        await broker.close()
        await _delete(queue, f"{queue}_dlq", replies)


async def _delete(*queues: str) -> None:
    import aio_pika

    connection = await aio_pika.connect(str(settings.AUTOSELL_RMQ["URL"]))
    async with connection, connection.channel() as channel:
        for queue in queues:
            await channel.queue_delete(queue)
