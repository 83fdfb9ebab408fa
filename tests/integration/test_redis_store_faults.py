"""The Redis store when workers die, stand still or lose their Redis."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from autosell_rmq.exceptions import InProgress, LeaseLost, StoreUnavailable
from autosell_rmq.idempotency import Call, RedisStore
from tests.contract.store_fixtures import REDIS_URL, Work
from tests.integration.redis_fixtures import (
    KEY,
    LEASE,
    Connect,
    Proxy,
    connecting,
    proxying,
    takes_over,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.redis


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    async with connecting() as connect:
        yield connect


@pytest.fixture
async def proxy(connect: Connect) -> AsyncIterator[Proxy]:
    async with proxying() as proxy:
        yield proxy


async def test_the_completion_of_a_zombie_is_discarded(connect: Connect, proxy: Proxy) -> None:
    zombie, other = await connect(proxy.url, timeout=1.0), await connect()
    returns = asyncio.Event()
    work = Work(b"the zombie's", gate=returns)
    call = Call(run=work.run, cancellable=False)
    task = asyncio.create_task(zombie.run_once(KEY, "f", call))
    await work.started.wait()
    proxy.flowing.clear()

    assert (await takes_over(other, Work(b"the other's"))).data == b"the other's"
    proxy.flowing.set()
    returns.set()

    with pytest.raises(LeaseLost):
        await task
    assert (await other.run_once(KEY, "f", Work().call)).data == b"the other's"


@pytest.mark.parametrize("how", ["gone", "silent"])
async def test_without_redis_for_a_lease_the_call_is_cancelled(
    connect: Connect, proxy: Proxy, how: str
) -> None:
    store = await connect(proxy.url, timeout=1.0)
    work = Work(gate=asyncio.Event())
    task = asyncio.create_task(store.run_once(KEY, "f", work.call))
    await work.started.wait()

    if how == "gone":
        await proxy.stop()
    else:
        proxy.flowing.clear()

    with pytest.raises(LeaseLost):
        await task
    assert work.cancelled


async def test_a_short_absence_of_redis_is_survived(connect: Connect, proxy: Proxy) -> None:
    store = await connect(proxy.url, lease=3.0)
    gate = asyncio.Event()
    work = Work(gate=gate)
    task = asyncio.create_task(store.run_once(KEY, "f", work.call))
    await work.started.wait()
    await proxy.stop()
    gate.set()  # the result is there, Redis is not
    await asyncio.sleep(0)
    assert not task.done()

    await proxy.start()

    assert not (await task).duplicate
    assert (await store.run_once(KEY, "f", Work(b"no").call)).data == work.result


async def test_without_redis_nothing_runs(connect: Connect, proxy: Proxy) -> None:
    store = await connect(proxy.url, timeout=1.0)
    work = Work()

    proxy.flowing.clear()
    with pytest.raises(StoreUnavailable, match=r"did not answer in 1 s"):
        await store.run_once(KEY, "f", work.call)
    await proxy.stop()
    with pytest.raises(StoreUnavailable):
        await store.run_once(KEY, "f", work.call)
    assert work.runs == 0

    proxy.flowing.set()
    await proxy.start()
    await takes_over(store, work)  # the silent claim may have arrived


async def test_connections_that_died_unnoticed_are_replaced(connect: Connect, proxy: Proxy) -> None:
    store = await connect(proxy.url)
    await asyncio.gather(*(store.lookup(str(number)) for number in range(10)))
    assert proxy.connections > 1
    proxy.reset_connections()

    ended = await asyncio.gather(*(store.run_once(str(number), "f", Work().call) for number in range(10)))

    assert not any(each.duplicate for each in ended)


async def test_a_redis_that_is_down_at_the_start_is_named_without_its_password(
    connect: Connect, proxy: Proxy
) -> None:
    url = proxy.url.replace("redis://", "redis://app:s3cret@")
    refused = RedisStore(url, prefix=connect.prefix)
    with pytest.raises(StoreUnavailable) as wrong_login:
        await refused.open()
    await proxy.stop()
    with pytest.raises(StoreUnavailable) as down:
        await refused.open()

    for error in (wrong_login, down):
        assert f"redis://app:***@127.0.0.1:{proxy.port}" in str(error.value)
        assert "s3cret" not in str(error.value)
    await refused.close()


async def test_a_cancelled_step_does_not_mix_up_answers(connect: Connect, proxy: Proxy) -> None:
    store = await connect(proxy.url, max_connections=1)
    for number in range(5):
        await store.run_once(str(number), "f", Work(str(number).encode()).call)
    for number in range(5):
        proxy.flowing.clear()
        task = asyncio.create_task(store.lookup(str(number)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        proxy.flowing.set()

        record = await store.lookup(str((number + 1) % 5))
        assert record is not None
        assert record.data == str((number + 1) % 5).encode()


WORKER = """
import asyncio, os, sys
from autosell_rmq.exceptions import LeaseLost
from autosell_rmq.idempotency import Call, RedisStore

async def run():
    print("started", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    return b"the worker's"

async def main():
    store = RedisStore(os.environ["URL"], prefix=os.environ["PREFIX"], lease=float(os.environ["LEASE"]))
    await store.open()
    try:
        print((await store.run_once("key", "f", Call(run=run))).data.decode(), flush=True)
    except LeaseLost:
        print("lost", flush=True)
    finally:
        await store.close()

asyncio.run(main())
"""


class Worker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()

    async def finish(self) -> None:
        """Let its handler return."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()


@pytest.fixture
async def worker(connect: Connect) -> AsyncIterator[Worker]:
    """A process in the middle of its handler."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WORKER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "URL": REDIS_URL, "PREFIX": connect.prefix, "LEASE": str(LEASE)},
    )
    worker = Worker(process)
    assert await worker.line() == "started"
    yield worker
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def test_a_worker_killed_in_its_handler_is_replaced(connect: Connect, worker: Worker) -> None:
    store, work = await connect(), Work()
    with pytest.raises(InProgress):
        await store.run_once(KEY, "f", work.call)

    worker.process.kill()
    await worker.process.wait()

    assert not (await takes_over(store, work)).duplicate
    assert work.runs == 1


async def test_a_worker_that_stood_still_finds_its_lease_lost(connect: Connect, worker: Worker) -> None:
    store = await connect()
    worker.process.send_signal(signal.SIGSTOP)

    assert (await takes_over(store, Work(b"the other's"))).data == b"the other's"
    worker.process.send_signal(signal.SIGCONT)
    await worker.finish()

    assert await worker.line() == "lost"
    assert (await store.run_once(KEY, "f", Work().call)).data == b"the other's"


async def test_a_worker_that_stood_still_unmissed_keeps_its_result(connect: Connect, worker: Worker) -> None:
    store = await connect()
    worker.process.send_signal(signal.SIGSTOP)
    await eventually(lambda: is_free(store))

    worker.process.send_signal(signal.SIGCONT)
    await worker.finish()

    assert await worker.line() == "the worker's"
    assert (await store.run_once(KEY, "f", Work().call)).data == b"the worker's"


async def is_free(store: RedisStore) -> bool:
    return await store.lookup(KEY) is None
