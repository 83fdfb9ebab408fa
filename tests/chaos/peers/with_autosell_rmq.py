"""autosell-rmq, with what it remembers in the process's memory, as it is without a setting."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from peer import PREFETCH, Spec, say, send, work

from autosell_rmq import RabbitMQ, RabbitMQProducer

SPEC = Spec.given()


async def worker() -> None:
    rmq = RabbitMQ(SPEC.url, prefetch=PREFETCH)

    @rmq.handler(SPEC.queue)
    async def handle(data: dict[str, Any]) -> None:
        await work(SPEC, data["key"])

    async with rmq:
        await rmq.start_consuming()
        say("ready")
        await rmq.run()


async def sender() -> None:
    async with RabbitMQProducer(SPEC.url) as producer:
        await send(SPEC, lambda data: producer.send_fire_and_forget(SPEC.queue, data))


if __name__ == "__main__":
    asyncio.run(worker() if sys.argv[1] == "worker" else sender())
