"""The Redis store: its steps, its leases, and odd states of Redis and of the store."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from autosell_rmq.exceptions import ClosedError, InProgress, StoreUnavailable
from autosell_rmq.idempotency import Claim, Note, Record
from tests.contract.lease_cases import (  # noqa: F401 - the cases run here too
    test_a_key_that_nobody_holds_may_be_renewed_and_completed,
    test_only_the_holder_may_do_anything,
)
from tests.contract.store_fixtures import REDIS_URL, Work
from tests.integration.redis_fixtures import (
    KEY,
    Connect,
    connecting,
    takes_over,
)
from tests.support.waiting import eventually

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


async def test_a_note_is_there_again_when_a_lease_has_run_out(connect: Connect) -> None:
    store = await connect(lease=0.05)
    await store.note(KEY, Note(state="failed", fingerprint="f", data=b"{}"))
    await store.claim(a_claim("of a worker that dies"))

    async def uncovered() -> bool:
        record = await store.lookup(KEY)
        return record is not None and (record.state, record.data) == ("failed", b"{}")

    await eventually(uncovered)


async def test_a_note_expires_with_the_ttl_and_leaves_nothing(
    connect: Connect, raw: redis.asyncio.Redis
) -> None:
    store = await connect(lease=60.0, ttl=0.05)
    note = Note(state="accepted", fingerprint="f")
    await store.note(KEY, note)

    async def forgotten() -> bool:
        return await store.lookup(KEY) is None

    await eventually(forgotten)
    store = await connect(lease=60.0)
    await store.note(KEY, note)
    await store.run_once(KEY, "f", Work().call)
    await store.note(KEY, note)  # nor does it outlive the result
    names = [name async for name in raw.scan_iter(match=f"{connect.prefix}*", count=1000)]
    assert names == [f"{connect.prefix}{KEY}".encode()]


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


# --- together ------------------------------------------------------------------------------------


async def test_steps_of_one_trip_get_their_own_answers(connect: Connect, raw: redis.asyncio.Redis) -> None:
    store = await connect(lease=60.0)
    await store.complete(Claim(key="done", fingerprint="theirs", token="theirs"), b"\x00\xff")
    await store.claim(Claim(key="held", fingerprint="theirs", token="theirs"))
    await store.claim(Claim(key="released", fingerprint="mine", token="mine"))
    await store.note("noted", Note(state="failed", fingerprint="theirs"))
    await raw.set(f"{connect.prefix}foreign", "a string", ex=60)

    def mine(key: str) -> Claim:
        return Claim(key=key, fingerprint="mine", token="mine")

    ended = await asyncio.gather(
        *(store.claim(mine(key)) for key in ("new", "done", "foreign", "held", "noted")),
        store.complete(mine("gone"), b"data"),
        store.release(mine("released")),
        return_exceptions=True,
    )

    [new, done, foreign, held, noted, gone, released] = ended
    assert [new, noted, gone, released] == [None, None, True, None]
    assert done == Record(state="done", fingerprint="theirs", data=b"\x00\xff")
    assert held == Record(state="processing", fingerprint="theirs")
    assert isinstance(foreign, StoreUnavailable)
    assert "WRONGTYPE" in str(foreign)
    assert await store.lookup("released") is None
    assert not await store.complete(mine("held"), b"data")


async def test_many_messages_take_two_calls(connect: Connect) -> None:
    store = await connect(lease=60.0)

    await asyncio.gather(*(store.run_once(str(number), "f", Work().call) for number in range(80)))

    assert store.trips == [80, 80]


async def test_the_end_of_the_store_waits_for_what_is_under_way(connect: Connect) -> None:
    store, other = await connect(lease=60.0), await connect()
    claims = [asyncio.create_task(store.claim(a_claim("mine")))]
    await asyncio.sleep(0)

    await store.close()

    assert await claims[0] is None
    assert await other.lookup(KEY) is not None


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
