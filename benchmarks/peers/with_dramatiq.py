"""dramatiq: eight threads, its default; it declares the queue itself, with arguments of its own."""

from __future__ import annotations

import os
import threading

from measured import Run, main, payload, sequential, told

RUN = told()
os.environ["dramatiq_queue_prefetch"] = str(RUN.prefetch)  # noqa: SIM112 - as dramatiq spells it, at import

import dramatiq  # noqa: E402
from dramatiq.brokers.rabbitmq import RabbitmqBroker  # noqa: E402

broker = RabbitmqBroker(url=RUN.url, confirm_delivery=True, middleware=[])
dramatiq.set_broker(broker)
lock = threading.Lock()
left = RUN.n
done = threading.Event()


@dramatiq.actor(queue_name=RUN.queue)
def task(user_id: int, text: str, items: list[int]) -> None:
    """Do nothing."""
    global left
    with lock:
        left -= 1
        if left == 0:
            done.set()


def publish(run: Run) -> None:
    """One after the other: its producer blocks."""
    broker.declare_queue(run.queue, ensure=True)
    sequential(run, lambda: task.send(**payload(0)))


def consume(run: Run) -> None:
    """A worker with its threads."""
    worker = dramatiq.Worker(broker, worker_threads=8, worker_timeout=100)
    run.start()
    worker.start()
    done.wait()
    run.stop()


if __name__ == "__main__":
    main({"publish": publish, "consume": consume}, RUN)
