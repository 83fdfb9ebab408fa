"""Processes: a blocked loop, threads that never return, forks, lifespans, other loops."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
from fastapi import FastAPI

from autosell_rmq import ClosedError, RabbitMQ, RabbitMQProducer
from autosell_rmq_fastapi import rmq_lifespan
from tests.acceptance.processes import running_script
from tests.chaos import wire
from tests.chaos.load import load
from tests.chaos.nodes import Node
from tests.chaos.report import Row
from tests.chaos.test_stopping import ended
from tests.chaos.worlds import Leased
from tests.support.footprint import Footprint
from tests.support.names import unique
from tests.support.waiting import eventually

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180)]

FORKS = """
import os
from autosell_rmq import SyncRabbitMQProducer

with SyncRabbitMQProducer() as producer:
    queue = os.environ["QUEUE"]
    producer.send_fire_and_forget(queue, "before")
    child = os.fork()
    for number in range(40):
        producer.send_fire_and_forget(queue, number)
    if child == 0:
        os._exit(0)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


# I1, I2: the broker gives the connection up, the message comes again, and gets the stored result. Mutant: the
# result is not stored once the connection is gone.
@pytest.mark.chaos
@pytest.mark.row("66e", "a handler blocks the event loop for 15 s (heartbeat=2)")
async def test_a_blocked_loop(leased: Leased, node: Node, row: Row) -> None:
    async with (
        leased.worker(heartbeat=2) as worker,
        load(node.url, leased.queue, rate=5.0) as stream,
    ):
        key = f"{leased.queue}.blocks"
        blocking = stream.send(key, request=True, seconds=15.0, how="block")
        await worker.until(f"begun {key}")
        await blocking
        healed = time.monotonic()
        await stream.accepted(20)
        row.figures = await leased.settled(await stream.stop(), healed=healed)
        runs = worker.lines.count(f"begun {key}")

    row.seen.append(f"{runs} run(s)")
    row.figures.check()


# I4: one queue's stuck threads do not keep another queue's handlers. Mutant: one pool for all the work of the
# process, the store's included.
@pytest.mark.chaos
@pytest.mark.row("66f", "every thread of the pool is stuck, another queue's handlers go on")
async def test_a_starved_pool(node: Node, row: Row) -> None:
    stuck, free = unique("stuck"), unique("free")
    hold = asyncio.Event()
    loop = asyncio.get_running_loop()
    app = RabbitMQ(node.url, threads=2, drain_timeout=5.0)
    held: list[int] = []

    @app.handler(stuck, prefetch=4)
    def wait(data: int) -> None:
        held.append(data)
        asyncio.run_coroutine_threadsafe(hold.wait(), loop).result()

    @app.handler(free)
    async def work(data: int) -> int:
        return data

    async with app:
        await app.start_consuming()
        waiting = [asyncio.create_task(app.producer.send_message(stuck, n)) for n in range(4)]
        await eventually(lambda: len(held) == 2)
        begun = time.monotonic()
        replies = [await app.producer.send_message(free, n) for n in range(20)]
        took = time.monotonic() - begun
        hold.set()
        await asyncio.gather(*waiting)
    await wire.delete(node.url, [stuck, f"{stuck}_dlq", free, f"{free}_dlq"])

    assert [reply["data"] for reply in replies] == list(range(20))
    assert sorted(held) == [0, 1, 2, 3]
    row.seen.append(f"20 answers of the other queue in {took:.1f} s")


# I1, I4: the process leaves at its deadline, and the message comes back. Mutant: joining the thread at exit.
@pytest.mark.row("66g", "SIGTERM with a thread that never returns (drain_timeout=1)")
async def test_a_thread_that_never_returns(leased: Leased, node: Node, row: Row) -> None:
    key = f"{leased.queue}.stuck"
    async with leased.worker(stubborn=True, drain_timeout=1.0) as worker:
        await wire.put(node.url, leased.queue, {"key": key, "seconds": 0}, correlation_id=key)
        await worker.until(f"begun {key}")
        code, gone = await ended(worker, signal.SIGTERM)

    row.seen.append(f"exit {code} after {gone:.2f} s")
    assert code == 0, worker.transcript
    assert gone < 10.0
    assert await wire.take(node.url, leased.queue)


# I1: the child has a connection of its own, the parent's is left alone. Mutant: an inherited socket.
@pytest.mark.chaos
@pytest.mark.row("66h", "fork after connecting, then 40 sends by each side")
async def test_a_fork(node: Node, tmp_path: Path, row: Row) -> None:
    queue = unique("fork")
    await wire.declare(node.url, queue)

    environment = {"RABBITMQ_URL": node.url, "QUEUE": queue}
    async with running_script(tmp_path / "forks.py", FORKS, env=environment) as process:
        code = await process.exit_code()
    stored = await wire.depth(node.url, queue)
    await wire.delete(node.url, [queue])

    assert code == 0, process.transcript
    assert stored == 81
    row.seen.append("81 of 81 stored")


# I5. Mutant: a task or a connection that a stop leaves behind.
@pytest.mark.chaos
@pytest.mark.row("66i", "an ASGI lifespan started and stopped 20 times")
async def test_a_lifespan_again_and_again(node: Node, row: Row) -> None:
    queue = unique("lifespan")
    app = RabbitMQ(node.url)

    @app.handler(queue)
    async def work(data: int) -> int:
        return data

    service = FastAPI(lifespan=rmq_lifespan(app))
    before = Footprint()
    for number in range(20):
        async with service.router.lifespan_context(service):
            assert (await app.producer.send_message(queue, number))["data"] == number
    await before.is_restored()
    await wire.delete(node.url, [queue, f"{queue}_dlq"])
    row.seen.append("no task, thread or socket left")


# Mutant: a future of another loop that never ends.
@pytest.mark.chaos
@pytest.mark.row("66j", "a producer used on another event loop, and after its loop has ended")
async def test_another_loop(node: Node, row: Row) -> None:
    queue = unique("loop")
    await wire.declare(node.url, queue)
    producer = RabbitMQProducer(node.url)
    await producer.send_fire_and_forget(queue, 1)

    def elsewhere() -> None:
        asyncio.run(producer.send_fire_and_forget(queue, 2))

    with pytest.raises(ClosedError, match="another event loop"):
        await asyncio.to_thread(elsewhere)
    await producer.send_fire_and_forget(queue, 3)
    await producer.close()
    await wire.delete(node.url, [queue])
    row.seen.append("ClosedError that says so; its own loop goes on")
