"""Celery: the solo pool, one task at a time, in this process."""

from __future__ import annotations

import os
import sys
import time

from celery import Celery
from celery.signals import worker_ready
from measured import WARM_UP, Run, main, payload, ready, sequential, told

RUN = told()
IS_RPC = RUN.work in ("serve", "request")
app = Celery("bench", broker=RUN.url, backend="rpc://" if IS_RPC else None)
app.conf.update(
    task_default_queue=RUN.queue,
    task_acks_late=True,
    task_ignore_result=not IS_RPC,
    task_serializer="json",
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    worker_prefetch_multiplier=RUN.prefetch,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=False,
)
left = RUN.n


@app.task(name="task")
def task(user_id: int, text: str, items: list[int]) -> dict[str, bool]:
    """Do nothing; the clock runs from the first message, without the start of the worker."""
    global left
    if not IS_RPC:
        if left == RUN.n:
            RUN.start()
        left -= 1
        if left == 0:
            RUN.stop()
            RUN.report()
            sys.stdout.flush()
            os._exit(0)
    return {"ok": True}


def publish(run: Run) -> None:
    """One after the other: its producer blocks."""
    sequential(run, lambda: task.apply_async(kwargs=payload(0)))


def work(run: Run) -> None:
    """A worker that consumes, or answers."""
    options = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True, "quiet": True}
    worker = app.Worker(pool="solo", concurrency=1, loglevel="CRITICAL", **options)
    if IS_RPC:
        worker_ready.connect(lambda **_: ready(), weak=False)
    worker.start()


def request(run: Run) -> None:
    """A window is sent, then all of its results are waited for."""
    data, clock = payload(0), time.perf_counter
    run.warmed = WARM_UP
    for _ in range(WARM_UP):
        task.apply_async(kwargs=data).get(timeout=30)
    run.start()
    for _ in range(0, run.n, run.window):
        sent = [(clock(), task.apply_async(kwargs=data)) for _ in range(run.window)]
        for began, result in sent:
            result.get(timeout=60)
            run.latencies.append(clock() - began)
    run.stop()


if __name__ == "__main__":
    main({"publish": publish, "consume": work, "serve": work, "request": request}, RUN)
