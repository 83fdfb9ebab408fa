"""FastStream, as its documentation shows it: a quorum queue, persistent messages, a prefetch."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from faststream import FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue
from peer import PREFETCH, Spec, say, send, work

SPEC = Spec.given()
broker = RabbitBroker(SPEC.url, default_channel=Channel(prefetch_count=PREFETCH))
queue = RabbitQueue(SPEC.queue, durable=True, queue_type=QueueType.QUORUM)


async def worker() -> None:
    app = FastStream(broker)

    @broker.subscriber(queue)
    async def handle(data: dict[str, Any]) -> None:
        await work(SPEC, data["key"])

    @app.after_startup
    async def ready() -> None:
        say("ready")

    await app.run()


async def sender() -> None:
    await broker.start()
    await send(SPEC, lambda data: broker.publish(data, queue, persist=True, mandatory=True))
    await broker.stop()


if __name__ == "__main__":
    asyncio.run(worker() if sys.argv[1] == "worker" else sender())
