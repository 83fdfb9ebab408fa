"""The Redis store: its steps, its leases, and odd states of Redis and of the store."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from autosell_rmq.exceptions import ClosedError, InProgress, StoreUnavailable
from autosell_rmq.idempotency import Claim, Record, Stored
from tests.contract.store_fixtures import REDIS_URL, Work
from tests.integration.redis_fixtures import (
    KEY,
    Connect,
    connecting,
    takes_over,
)

pytestmark = pytest.mark.redis


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    async with connecting() as connect:
        yield connect


@pytest.fixture
async def raw() -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(REDIS_URL) as client:
        yield client


def a_claim(token: str) -> Claim:
    return Claim(key=KEY, fingerprint=f"fingerprint of {token}", token=token)


# --- the primitives ------------------------------------------------------------------------------


async def test_each_step_may_be_repeated(connect: Connect) -> None:
    store = await connect(lease=60.0)
    mine = a_claim("mine")

    for _ in range(2):
        assert await store.claim(mine) is None
        assert await store.renew(mine)
    for _ in range(2):
        assert await store.complete(mine, b"data")
    for _ in range(2):
        await store.release(mine)  # a result stays

    assert not await store.renew(mine)
    assert await store.claim(a_claim("late")) == Record(
        state="done", fingerprint="fingerprint of mine", data=b"data"
    )


async def test_only_the_holder_may_do_anything(connect: Connect) -> None:
    store = await connect(lease=60.0)
    mine, other = a_claim("mine"), a_claim("other")
    await store.claim(mine)

    assert await store.claim(other) == Record(state="processing", fingerprint="fingerprint of mine")
    assert not await store.renew(other)
    assert not await store.complete(other, b"theirs")
    await store.release(other)

    record = await store.lookup(KEY)
    assert record is not None
    assert (record.state, record.fingerprint) == ("processing", "fingerprint of mine")
    await store.complete(mine, b"data")
    assert not await store.complete(other, b"theirs")
    record = await store.lookup(KEY)
    assert record is not None
    assert record.data == b"data"


async def test_a_key_that_nobody_holds_may_be_renewed_and_completed(connect: Connect) -> None:
    store = await connect(lease=60.0)
    mine = a_claim("mine")

    assert await store.renew(mine)
    with pytest.raises(InProgress):
        await store.run_once(KEY, "f", Work().call)
    await store.release(mine)
    assert await store.complete(mine, b"data")

    assert await store.run_once(KEY, "f", Work().call) == Stored(
        data=b"data", fingerprint="fingerprint of mine", duplicate=True
    )


async def test_every_key_expires(connect: Connect, raw: redis.asyncio.Redis) -> None:
    store = await connect(lease=60.0, ttl=1000.0)
    mine = a_claim("mine")

    await store.claim(mine)
    assert 59_000 < await raw.pttl(connect.prefix + KEY) <= 60_000
    await raw.pexpire(connect.prefix + KEY, 5_000)
    await store.renew(mine)
    assert 59_000 < await raw.pttl(connect.prefix + KEY) <= 60_000
    await store.complete(mine, b"")
    assert 999_000 < await raw.pttl(connect.prefix + KEY) <= 1_000_000


# --- leases --------------------------------------------------------------------------------------


async def test_a_crashed_workers_key_is_taken_over_after_its_lease(connect: Connect) -> None:
    store = await connect()
    await store.claim(a_claim("of a worker that crashed"))
    work = Work()
    with pytest.raises(InProgress):
        await store.run_once(KEY, "f", work.call)

    assert not (await takes_over(store, work)).duplicate


async def test_renewal_keeps_a_long_call_alive(connect: Connect) -> None:
    store, twin = await connect(), await connect()
    gate = asyncio.Event()
    work = Work(gate=gate)
    task = asyncio.create_task(store.run_once(KEY, "f", work.call))
    await work.started.wait()

    while store.renewals < 6:  # two leases
        with pytest.raises(InProgress):
            await twin.run_once(KEY, "f", Work().call)
        await asyncio.sleep(0.02)
    gate.set()

    assert not (await task).duplicate
    assert (await twin.run_once(KEY, "f", Work().call)).duplicate


# --- odd states of Redis and of the store --------------------------------------------------------


async def test_scripts_that_redis_forgot_are_sent_again(connect: Connect, raw: redis.asyncio.Redis) -> None:
    store = await connect()
    await store.run_once(KEY, "f", Work(b"data").call)

    await raw.script_flush()

    assert (await store.run_once(KEY, "f", Work().call)).data == b"data"
    await raw.script_flush()
    assert not (await store.run_once("other", "f", Work().call)).duplicate


async def test_a_foreign_value_under_the_key_is_an_error_of_the_store(
    connect: Connect, raw: redis.asyncio.Redis
) -> None:
    store = await connect()
    await raw.set(connect.prefix + KEY, "a string", ex=60)
    work = Work()

    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.run_once(KEY, "f", work.call)

    assert work.runs == 0


async def test_more_calls_than_connections_take_turns(connect: Connect) -> None:
    store = await connect(max_connections=3, lease=60.0)

    ended = await asyncio.gather(*(store.run_once(str(number), "f", Work().call) for number in range(200)))

    assert len(ended) == 200


async def test_a_store_that_is_not_open_says_so(connect: Connect) -> None:
    store = await connect()
    await store.close()

    with pytest.raises(ClosedError, match="not open"):
        await store.run_once(KEY, "f", Work().call)


async def test_a_store_belongs_to_the_loop_that_opened_it(connect: Connect) -> None:
    store = await connect()

    def elsewhere() -> None:
        with pytest.raises(ClosedError, match="another event loop"):
            asyncio.run(store.run_once(KEY, "f", Work().call))

    await asyncio.to_thread(elsewhere)
