"""aio-pika as its documentation shows it: robust connection, `queue.consume`, `message.ack`, JSON RPC."""

from __future__ import annotations

import json
import uuid
from typing import Any

import aio_pika
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.patterns import JsonRPC
from measured import Countdown, Run, main, payload, serve, windowed


async def _channel(run: Run) -> AbstractChannel:
    connection = await aio_pika.connect_robust(run.url)
    channel = await connection.channel(on_return_raises=True)
    await channel.set_qos(prefetch_count=run.prefetch)
    return channel


async def publish(run: Run) -> None:
    """Each publish awaited by one of the window's tasks."""
    channel = await _channel(run)
    data = payload(run.size)

    async def call() -> None:
        message = Message(
            json.dumps(data).encode(),
            delivery_mode=DeliveryMode.PERSISTENT,
            content_type="application/json",
            message_id=uuid.uuid4().hex,
        )
        await channel.default_exchange.publish(message, run.queue, mandatory=True)

    await windowed(run, call)


async def consume(run: Run) -> None:
    """A callback that decodes, calls a handler that does nothing, and acks."""
    channel = await _channel(run)
    count = Countdown(run)

    async def handle(data: dict[str, Any]) -> None:
        count.one()

    async def on_message(message: AbstractIncomingMessage) -> None:
        await handle(json.loads(message.body))
        await message.ack()

    queues = [await channel.declare_queue(name, passive=True) for name in run.queues]

    async def subscribe() -> None:
        for queue in queues:
            await queue.consume(on_message)

    await count.over(subscribe)


async def answer(run: Run) -> None:
    """The server of the requests."""
    rpc = await JsonRPC.create(await _channel(run))

    async def handle(**data: object) -> dict[str, bool]:
        return {"ok": True}

    await rpc.register(run.queue, handle, durable=True)
    await serve()


async def request(run: Run) -> None:
    """The client of the requests."""
    rpc = await JsonRPC.create(await _channel(run))
    data = payload(run.size)
    await windowed(run, lambda: rpc.call(run.queue, data, delivery_mode=DeliveryMode.PERSISTENT))


if __name__ == "__main__":
    main({"publish": publish, "consume": consume, "serve": answer, "request": request})
