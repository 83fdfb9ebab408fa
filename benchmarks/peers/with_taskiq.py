"""taskiq over taskiq-aio-pika; it declares the queue itself, with arguments of its own."""

from __future__ import annotations

import asyncio

from measured import Countdown, Run, main, payload, windowed
from taskiq import AsyncTaskiqDecoratedTask
from taskiq.receiver import Receiver
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue
from taskiq_aio_pika.queue import QueueType


def _broker(run: Run, count: Countdown) -> tuple[AioPikaBroker, AsyncTaskiqDecoratedTask[..., None]]:
    kind = QueueType.QUORUM if run.options.get("queue_type") == "quorum" else QueueType.CLASSIC
    broker = AioPikaBroker(
        run.url,
        qos=run.prefetch,
        exchange=Exchange(name=f"{run.queue}.exchange"),
        task_queues=[Queue(name=run.queue, type=kind)],
        dead_letter_queue=Queue(name=f"{run.queue}.dlq", type=kind),
    )

    @broker.task(task_name="task")
    async def task(user_id: int, text: str, items: list[int]) -> None:
        count.one()

    return broker, task


async def publish(run: Run) -> None:
    """Each publish awaited by one of the window's tasks."""
    broker, task = _broker(run, Countdown(run))
    await broker.startup()
    data = payload(0)
    await windowed(run, lambda: task.kiq(**data))


async def consume(run: Run) -> None:
    """A task that does nothing."""
    count = Countdown(run)
    broker, _ = _broker(run, count)
    broker.is_worker_process = True
    receiver = Receiver(broker, max_async_tasks=run.prefetch, max_prefetch=0)
    listening: set[asyncio.Task[None]] = set()

    async def subscribe() -> None:
        listening.add(asyncio.create_task(receiver.listen(asyncio.Event())))

    await count.over(subscribe)


if __name__ == "__main__":
    main({"publish": publish, "consume": consume})
