"""FastStream over its RabbitMQ broker."""

from __future__ import annotations

from typing import Any

from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue
from measured import Countdown, Run, main, payload, serve, windowed


def _broker(run: Run) -> RabbitBroker:
    return RabbitBroker(run.url, logger=None, default_channel=Channel(prefetch_count=run.prefetch))


def _queue(name: str) -> RabbitQueue:
    return RabbitQueue(name, declare=False)


async def publish(run: Run) -> None:
    """Each publish awaited by one of the window's tasks."""
    broker, queue, data = _broker(run), _queue(run.queue), payload(run.size)
    await broker.start()
    await windowed(run, lambda: broker.publish(data, queue, persist=True, mandatory=True))


async def consume(run: Run) -> None:
    """A subscriber that does nothing."""
    broker = _broker(run)
    count = Countdown(run)

    async def handle(data: dict[str, Any]) -> None:
        count.one()

    for name in run.queues:
        broker.subscriber(_queue(name), ack_policy=AckPolicy.NACK_ON_ERROR)(handle)
    await count.over(broker.start)


async def answer(run: Run) -> None:
    """The server of the requests."""
    broker = _broker(run)

    @broker.subscriber(_queue(run.queue))
    async def handle(data: dict[str, Any]) -> dict[str, bool]:
        return {"ok": True}

    await broker.start()
    await serve()


async def request(run: Run) -> None:
    """The client of the requests."""
    broker, queue, data = _broker(run), _queue(run.queue), payload(run.size)
    await broker.start()

    async def call() -> None:
        reply = await broker.request(data, queue, timeout=60, persist=True, mandatory=True)
        await reply.decode()

    await windowed(run, call)


if __name__ == "__main__":
    main({"publish": publish, "consume": consume, "serve": answer, "request": request})
