"""What every idempotency store promises, run against each of them."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

import pytest

from autosell_rmq.exceptions import InProgress
from autosell_rmq.idempotency import IdempotencyStore, MemoryStore, Note, Record, RedisStore, Stored
from tests.contract.store_fixtures import REDIS_URL, Work, redis_prefix

KEY = "k" * 64
FIRST = "1" * 64
OTHER = "2" * 64

type Another = Callable[[], Awaitable[IdempotencyStore]]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def another(request: pytest.FixtureRequest) -> AsyncIterator[Another]:
    """Opens one more store on the same data, as another process would; in memory there is only the one."""
    if request.param == "memory":
        memory = MemoryStore()

        async def same() -> IdempotencyStore:
            return memory

        yield same
        return
    opened: list[RedisStore] = []
    with redis_prefix() as prefix:

        async def connect() -> IdempotencyStore:
            store = RedisStore(REDIS_URL, prefix=prefix)
            opened.append(store)
            await store.open()
            return store

        yield connect
        for store in opened:
            await store.close()


@pytest.fixture
async def store(another: Another) -> IdempotencyStore:
    return await another()


@pytest.fixture
async def twin(another: Another) -> IdempotencyStore:
    return await another()


async def test_the_first_runs(store: IdempotencyStore) -> None:
    work = Work(b'{"n":1}')

    stored = await store.run_once(KEY, FIRST, work.call)

    assert stored == Stored(data=b'{"n":1}', fingerprint=FIRST, duplicate=False)
    assert work.runs == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"null", bytes(range(256)), b"\x00" * 3, bytes(range(256)) * 4096],
    ids=["empty", "null", "binary", "zeros", "1MiB"],
)
async def test_a_duplicate_gets_the_same_bytes_and_runs_nothing(
    store: IdempotencyStore, twin: IdempotencyStore, data: bytes
) -> None:
    await store.run_once(KEY, FIRST, Work(data).call)
    work = Work(b"another result")

    for each in (twin, store, twin):
        stored = await each.run_once(KEY, FIRST, work.call)
        assert stored == Stored(data=data, fingerprint=FIRST, duplicate=True)

    assert work.runs == 0


async def test_of_many_at_once_exactly_one_runs(store: IdempotencyStore, twin: IdempotencyStore) -> None:
    gate = asyncio.Event()
    work = Work(gate=gate)
    tasks = {
        asyncio.create_task(each.run_once(KEY, FIRST, work.call)) for _ in range(10) for each in (store, twin)
    }
    refused: set[asyncio.Task[Stored]] = set()
    while len(refused) < len(tasks) - 1:
        done, _ = await asyncio.wait(tasks - refused, return_when=asyncio.FIRST_COMPLETED)
        refused |= done
        assert all(isinstance(task.exception(), InProgress) for task in refused)
    assert work.runs == 1

    gate.set()
    (winner,) = tasks - refused
    assert await winner == Stored(data=work.result, fingerprint=FIRST, duplicate=False)
    assert (await twin.run_once(KEY, FIRST, work.call)).duplicate
    assert work.runs == 1


async def test_of_many_at_once_none_is_lost_when_nothing_waits(
    store: IdempotencyStore, twin: IdempotencyStore
) -> None:
    work = Work()

    ended = await asyncio.gather(
        *(each.run_once(KEY, FIRST, work.call) for _ in range(25) for each in (store, twin)),
        return_exceptions=True,
    )

    assert work.runs == 1
    results = [each for each in ended if isinstance(each, Stored)]
    assert sum(not each.duplicate for each in results) == 1
    assert {each.data for each in results} == {work.result}
    assert all(isinstance(each, Stored | InProgress) for each in ended)


class Odd(BaseException):
    """Not an `Exception`, like SystemExit."""


@pytest.mark.parametrize(
    "error", [ValueError("no"), TimeoutError("the handler's own"), InProgress("the handler's own"), Odd()]
)
async def test_a_failure_goes_on_and_releases(
    store: IdempotencyStore, twin: IdempotencyStore, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught:
        await store.run_once(KEY, FIRST, Work(error=error).call)
    assert caught.value is error
    assert await twin.lookup(KEY) is None

    again = await twin.run_once(KEY, FIRST, Work(b"second run").call)

    assert again == Stored(data=b"second run", fingerprint=FIRST, duplicate=False)


async def test_a_cancellation_goes_on_and_releases(store: IdempotencyStore, twin: IdempotencyStore) -> None:
    work = Work(gate=asyncio.Event())
    task = asyncio.create_task(store.run_once(KEY, FIRST, work.call))
    await work.started.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert work.cancelled
    assert await twin.lookup(KEY) is None
    assert not (await twin.run_once(KEY, FIRST, Work().call)).duplicate


async def test_a_refused_duplicate_leaves_the_claim_alone(
    store: IdempotencyStore, twin: IdempotencyStore
) -> None:
    gate = asyncio.Event()
    holder = Work(gate=gate)
    task = asyncio.create_task(store.run_once(KEY, FIRST, holder.call))
    await holder.started.wait()

    for each in (twin, store, twin):
        with pytest.raises(InProgress):
            await each.run_once(KEY, OTHER, Work().call)
        record = await each.lookup(KEY)
        assert record is not None
        assert (record.state, record.fingerprint) == ("processing", FIRST)

    gate.set()
    assert not (await task).duplicate


async def test_keys_are_independent(store: IdempotencyStore, twin: IdempotencyStore) -> None:
    gate = asyncio.Event()
    held = Work(gate=gate)
    task = asyncio.create_task(store.run_once(KEY, FIRST, held.call))
    await held.started.wait()

    for key in ("K" * 64, "k" * 63, f"{KEY} ", "ключ\r\n\x00*"):
        assert not (await twin.run_once(key, FIRST, Work(key.encode()).call)).duplicate
        assert (await store.run_once(key, FIRST, Work().call)).data == key.encode()

    gate.set()
    assert not (await task).duplicate


async def test_lookup_tells_the_states_apart(store: IdempotencyStore, twin: IdempotencyStore) -> None:
    assert await twin.lookup(KEY) is None

    gate = asyncio.Event()
    work = Work(b"\xff\x00", gate=gate)
    task = asyncio.create_task(store.run_once(KEY, FIRST, work.call))
    await work.started.wait()
    record = await twin.lookup(KEY)
    assert record is not None
    assert (record.state, record.fingerprint, record.data) == ("processing", FIRST, None)

    gate.set()
    await task
    record = await twin.lookup(KEY)
    assert record is not None
    assert (record.state, record.fingerprint, record.data) == ("done", FIRST, b"\xff\x00")
    assert record.expires_at is not None
    assert record.expires_at > dt.datetime.now(dt.UTC) + dt.timedelta(minutes=30)


async def test_the_first_fingerprint_stays(store: IdempotencyStore, twin: IdempotencyStore) -> None:
    await store.run_once(KEY, FIRST, Work(b"first").call)

    stored = await twin.run_once(KEY, OTHER, Work(b"other").call)

    assert stored == Stored(data=b"first", fingerprint=FIRST, duplicate=True)


async def test_a_failed_first_leaves_no_fingerprint(store: IdempotencyStore, twin: IdempotencyStore) -> None:
    with pytest.raises(ValueError, match="no"):
        await store.run_once(KEY, FIRST, Work(error=ValueError("no")).call)

    await twin.run_once(KEY, OTHER, Work().call)

    assert (await store.run_once(KEY, FIRST, Work().call)).fingerprint == OTHER


ACCEPTED = Note(state="accepted", fingerprint=FIRST, queue="orders", correlation_id="id", attempt=0)
FAILED = Note(state="failed", fingerprint=FIRST, data=b'{"error":"no"}', queue="orders", attempt=4)


async def known(store: IdempotencyStore) -> tuple[str, str, bytes | None] | None:
    record = await store.lookup(KEY)
    return None if record is None else (record.state, record.fingerprint, record.data)


async def test_a_note_is_found_and_a_later_one_replaces_it(
    store: IdempotencyStore, twin: IdempotencyStore
) -> None:
    await store.note(KEY, ACCEPTED)
    assert await known(twin) == ("accepted", FIRST, None)
    record: Record | None = await twin.lookup(KEY)
    assert record is not None
    assert record.expires_at is not None
    assert record.expires_at > dt.datetime.now(dt.UTC) + dt.timedelta(minutes=30)

    await twin.note(KEY, FAILED)
    assert await known(store) == ("failed", FIRST, b'{"error":"no"}')

    await store.note(KEY, Note(state="accepted", fingerprint=OTHER))
    assert await known(twin) == ("accepted", OTHER, None)
    assert await twin.lookup(OTHER) is None


@pytest.mark.parametrize("note", [ACCEPTED, FAILED], ids=["accepted", "failed"])
async def test_a_note_answers_no_duplicate_and_ends_with_the_result(
    store: IdempotencyStore, twin: IdempotencyStore, note: Note
) -> None:
    await store.note(KEY, note)

    stored = await twin.run_once(KEY, OTHER, Work(b"result").call)

    assert stored == Stored(data=b"result", fingerprint=OTHER, duplicate=False)
    assert await known(store) == ("done", OTHER, b"result")


async def test_a_result_is_not_noted_over(store: IdempotencyStore, twin: IdempotencyStore) -> None:
    await store.run_once(KEY, FIRST, Work(b"result").call)

    for note in (FAILED, ACCEPTED):
        await twin.note(KEY, note)

    assert await known(store) == ("done", FIRST, b"result")
    assert (await twin.run_once(KEY, FIRST, Work().call)).duplicate


@pytest.mark.parametrize("note", [ACCEPTED, FAILED], ids=["accepted", "failed"])
async def test_a_note_outlives_a_run_that_fails(
    store: IdempotencyStore, twin: IdempotencyStore, note: Note
) -> None:
    await store.note(KEY, note)

    with pytest.raises(ValueError, match="no"):
        await twin.run_once(KEY, FIRST, Work(error=ValueError("no")).call)

    assert await known(store) == (note.state, FIRST, note.data or None)
    assert not (await twin.run_once(KEY, FIRST, Work().call)).duplicate


async def test_a_note_lies_beneath_a_claim(store: IdempotencyStore, twin: IdempotencyStore) -> None:
    for noted_before in (False, True):
        if noted_before:
            await store.note(KEY, ACCEPTED)
        work = Work(gate=asyncio.Event())
        task = asyncio.create_task(store.run_once(KEY, FIRST, work.call))
        await work.started.wait()

        await twin.note(KEY, FAILED)

        assert await known(twin) == ("processing", FIRST, None)
        with pytest.raises(InProgress):
            await twin.run_once(KEY, FIRST, Work().call)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await known(twin) == ("failed", FIRST, b'{"error":"no"}')

    gate = asyncio.Event()
    work = Work(b"result", gate=gate)
    task = asyncio.create_task(store.run_once(KEY, FIRST, work.call))
    await work.started.wait()
    await twin.note(KEY, FAILED)
    gate.set()
    await task
    assert await known(twin) == ("done", FIRST, b"result")


async def test_of_many_at_once_on_a_note_exactly_one_runs(
    store: IdempotencyStore, twin: IdempotencyStore
) -> None:
    await store.note(KEY, FAILED)
    work = Work()

    ended = await asyncio.gather(
        *(each.run_once(KEY, FIRST, work.call) for _ in range(10) for each in (store, twin)),
        return_exceptions=True,
    )

    assert work.runs == 1
    assert all(isinstance(each, Stored | InProgress) for each in ended)
    assert await known(twin) == ("done", FIRST, work.result)


@pytest.mark.parametrize("state", ["accepted", "failed"])
async def test_a_note_may_hold_anything(
    store: IdempotencyStore, twin: IdempotencyStore, state: Literal["accepted", "failed"]
) -> None:
    data = bytes(range(256)) * 64
    odd = Note(state=state, fingerprint=FIRST, data=data, queue="очередь", correlation_id="\x00\ud800'%s")

    await store.note(KEY, odd)

    assert await known(twin) == (state, FIRST, data)


async def test_opening_and_closing_twice_is_harmless(store: IdempotencyStore) -> None:
    await store.open()
    await store.run_once(KEY, FIRST, Work(b"kept").call)
    await store.close()
    await store.close()

    await store.open()

    assert (await store.run_once(KEY, FIRST, Work().call)).data == b"kept"


async def test_nothing_is_left_behind(store: IdempotencyStore) -> None:
    before = asyncio.all_tasks()
    await store.run_once(KEY, FIRST, Work().call)
    with pytest.raises(ValueError, match="no"):
        await store.run_once(OTHER, FIRST, Work(error=ValueError("no")).call)

    left = asyncio.all_tasks() - before
    if left:
        await asyncio.wait(left, timeout=5)

    assert asyncio.all_tasks() == before
