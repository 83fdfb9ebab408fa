"""taskiq over taskiq-aio-pika, as its documentation shows it; the worker is its own command."""

from __future__ import annotations

import asyncio
import sys

from peer import PREFETCH, Spec, say, send, work
from taskiq import TaskiqEvents, TaskiqState
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue
from taskiq_aio_pika.queue import QueueType

SPEC = Spec.given()
broker = AioPikaBroker(
    SPEC.url,
    qos=PREFETCH,
    exchange=Exchange(name=f"{SPEC.queue}.exchange"),
    task_queues=[Queue(name=SPEC.queue, type=QueueType.QUORUM)],
    dead_letter_queue=Queue(name=f"{SPEC.queue}_dlq", type=QueueType.QUORUM),
)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def ready(_: TaskiqState) -> None:
    say("ready")


@broker.task(task_name="work")
async def handle(key: str) -> None:
    await work(SPEC, key)


async def sender() -> None:
    await broker.startup()
    await send(SPEC, lambda data: handle.kiq(**data))
    await broker.shutdown()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        from taskiq.__main__ import main

        sys.argv = ["taskiq", "worker", "with_taskiq:broker", "--workers", "1"]
        main()
    else:
        asyncio.run(sender())
