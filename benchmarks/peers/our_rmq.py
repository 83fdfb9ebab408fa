"""autosell-rmq: handlers on an app object, sends by its producer.

Options: ``store`` (``none`` turns idempotency off, ``memory``, ``redis``), ``typed`` (a pydantic model as
payload), ``queue_type``, ``many`` (`send_many`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from itertools import repeat
from typing import Any

import pydantic
from measured import WARM_UP, Countdown, Run, main, payload, serve, windowed

from autosell_rmq import HandlerKwargs, IdempotencyStore, MemoryStore, RabbitMQ, RabbitMQProducer, RedisStore


class Order(pydantic.BaseModel):
    """The payload, typed."""

    user_id: int
    text: str
    items: list[int]


def _app(run: Run) -> tuple[RabbitMQ, HandlerKwargs]:
    kind = run.options.get("store", "memory")
    store: IdempotencyStore = (
        RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
        if kind == "redis"
        else MemoryStore()
    )
    options: HandlerKwargs = {"declare": False, "queue_type": run.options.get("queue_type", "classic")}
    if kind == "none":
        options["idempotency_key"] = None
    return RabbitMQ(run.url, prefetch=run.prefetch, store=store), options


async def publish(run: Run) -> None:
    """Each publish awaited by one of the window's tasks."""
    async with RabbitMQProducer(run.url) as producer:
        data = payload(run.size)
        if run.options.get("many"):
            await _send_many(run, producer, data)
        else:
            await windowed(run, lambda: producer.send_fire_and_forget(run.queue, data))


async def _send_many(run: Run, producer: RabbitMQProducer, data: object) -> None:
    """The same window, kept by the producer."""

    async def send(n: int) -> None:
        failures = await producer.send_many(run.queue, repeat(data, n), window=run.window, only_failures=True)
        assert not failures, failures

    run.warmed = WARM_UP
    await send(WARM_UP)
    run.start()
    await send(run.n)
    run.stop()


async def consume(run: Run) -> None:
    """An async handler that does nothing, on one queue or on many."""
    rmq, options = _app(run)
    count = Countdown(run)

    async def typed(order: Order) -> None:
        count.one()

    async def untyped(data: dict[str, Any]) -> None:
        count.one()

    for queue in run.queues:
        rmq.handler(queue, **options)(typed if run.options.get("typed") else untyped)
    async with rmq:
        await count.over(rmq.start_consuming)


async def answer(run: Run) -> None:
    """The server of the requests."""
    rmq, options = _app(run)

    @rmq.handler(run.queue, **options)
    async def handle(data: dict[str, Any]) -> dict[str, bool]:
        return {"ok": True}

    async with rmq:
        await rmq.start_consuming()
        await serve()


async def request(run: Run) -> None:
    """The client of the requests."""
    async with RabbitMQProducer(run.url) as producer:
        data = payload(run.size)
        await windowed(run, lambda: producer.send_message(run.queue, data))


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):
        main({"publish": publish, "consume": consume, "serve": answer, "request": request})
