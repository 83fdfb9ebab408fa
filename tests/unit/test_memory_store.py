"""The store in memory stays within its bounds: count, bytes and age."""

import asyncio
import datetime as dt
import logging
import tracemalloc
from itertools import islice
from typing import Literal

import pytest

from autosell_rmq.exceptions import ConfigError, InProgress
from autosell_rmq.idempotency import Abandoned, Call, MemoryStore, Note


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def result(data: bytes = b"{}") -> Call:
    async def run() -> bytes:
        return data

    return Call(run=run)


async def known(store: MemoryStore, *keys: str) -> list[str]:
    return [key for key in keys if await store.lookup(key) is not None]


async def hold(store: MemoryStore, key: str, gate: asyncio.Event) -> asyncio.Task[object]:
    """Start handling `key` until `gate` opens."""
    started = asyncio.Event()

    async def run() -> bytes:
        started.set()
        await gate.wait()
        return b"held"

    task: asyncio.Task[object] = asyncio.create_task(store.run_once(key, "f", Call(run=run)))
    await started.wait()
    return task


def test_it_says_that_it_is_not_durable() -> None:
    assert MemoryStore().durable is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ttl", 0),
        ("lease", -1),
        ("ttl", float("inf")),
        ("max_entries", 0),
        ("max_bytes", 0),
        ("max_entries", 1.5),
    ],
)
def test_a_wrong_bound_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        MemoryStore(**{name: value})  # type: ignore[arg-type]


@pytest.mark.timeout(120)  # tracemalloc makes it slow
async def test_a_flood_of_ids_stays_bounded() -> None:
    store = MemoryStore(max_entries=500)
    call = result()
    flood = iter(range(1_000_000))
    for number in islice(flood, 1_000):
        await store.run_once(str(number), "f", call)
    tracemalloc.start()
    try:
        for number in islice(flood, 20_000):
            await store.run_once(str(number), "f", call)
        early, _ = tracemalloc.get_traced_memory()
        for number in islice(flood, 40_000):
            await store.run_once(str(number), "f", call)
        late, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert store.entries == 500
    assert (
        late - early < 500_000
    )  # 40,000 keys alone would be four times that; other tests leave something, too
    assert await known(store, "60499", "60500", "60999") == ["60500", "60999"]


async def test_the_estimate_covers_what_python_takes() -> None:
    store = MemoryStore(max_entries=5_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(5_000):
            await store.run_once(f"{number:064}", f"{number:064x}", result(b"%0100d" % number))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 0.7 * (after - before) < store.size < 1.5 * (after - before)


async def test_bytes_are_bounded() -> None:
    store = MemoryStore(max_bytes=100_000)
    for number in range(100):
        await store.run_once(str(number), "f", result(bytes(10_000)))
        assert store.size <= 100_000

    assert store.entries == 9
    assert (await known(store, *map(str, range(100)))) == [str(number) for number in range(91, 100)]


async def test_size_returns_to_nothing() -> None:
    clock = Clock()
    store = MemoryStore(ttl=10, clock=clock)
    gate = asyncio.Event()
    task = await hold(store, "a", gate)
    assert store.size > 0
    gate.set()
    await task
    clock.now += 11

    await store.lookup("a")

    assert (store.entries, store.size) == (0, 0)


async def test_the_least_recently_asked_for_goes_first() -> None:
    store = MemoryStore(max_entries=3)
    for key in "abc":
        await store.run_once(key, "f", result())
    assert (await store.run_once("a", "f", result())).duplicate
    await store.lookup("b")  # looking is not using

    await store.run_once("d", "f", result())

    assert await known(store, *"abcd") == ["a", "c", "d"]


async def test_what_is_handled_is_never_evicted() -> None:
    store = MemoryStore(max_entries=2)
    gate = asyncio.Event()
    task = await hold(store, "held", gate)
    for number in range(50):
        await store.run_once(str(number), "f", result())
        assert store.entries <= 2
    with pytest.raises(InProgress):
        await store.run_once("held", "f", result())

    gate.set()
    await task

    assert (await store.run_once("held", "f", result(b"no"))).data == b"held"


async def test_full_of_what_is_handled_refuses_new_keys() -> None:
    store = MemoryStore(max_entries=2)
    await store.run_once("done", "f", result())
    gate = asyncio.Event()
    tasks = [await hold(store, "a", gate), await hold(store, "b", gate)]

    with pytest.raises(InProgress, match="full"):
        await store.run_once("c", "f", result())

    gate.set()
    await asyncio.gather(*tasks)
    assert not (await store.run_once("c", "f", result())).duplicate


async def test_full_by_bytes_refuses_new_keys() -> None:
    store = MemoryStore(max_bytes=1200)
    gate = asyncio.Event()
    tasks = [await hold(store, "a", gate), await hold(store, "b", gate)]

    with pytest.raises(InProgress, match="full"):
        await store.run_once("c", "f", result())

    gate.set()
    await asyncio.gather(*tasks)
    assert await known(store, "a", "b") == ["a", "b"]


async def test_a_result_over_the_bound_is_returned_not_kept_and_evicts_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore(max_bytes=10_000)
    await store.run_once("small", "f", result())

    with caplog.at_level(logging.WARNING):
        stored = await store.run_once("large", "f", result(bytes(20_000)))

    assert (len(stored.data), stored.duplicate) == (20_000, False)
    assert await known(store, "small", "large") == ["small"]
    (record,) = caplog.records
    assert "large" in record.getMessage()
    assert "max_bytes=10000" in record.getMessage()
    assert not (await store.run_once("large", "f", result(b"again"))).duplicate


async def test_a_result_is_forgotten_after_its_ttl() -> None:
    clock = Clock()
    store = MemoryStore(ttl=60, clock=clock)
    await store.run_once("a", "f", result(b"first"))
    clock.now += 59.9
    assert (await store.run_once("a", "f", result(b"second"))).data == b"first"

    clock.now += 0.2  # having been asked for does not lengthen its life

    assert await store.lookup("a") is None
    assert (await store.run_once("a", "f", result(b"second"))).data == b"second"


async def test_old_results_go_without_being_asked_for() -> None:
    clock = Clock()
    store = MemoryStore(ttl=60, clock=clock)
    for key in "abc":
        await store.run_once(key, "f", result())
        clock.now += 20
    assert (await store.run_once("b", "f", result())).duplicate  # the order of use is not the order of age

    clock.now += 25
    await store.run_once("x", "f", result())

    assert store.entries == 2
    assert await known(store, *"abcx") == ["c", "x"]


async def test_what_is_handled_does_not_age() -> None:
    clock = Clock()
    store = MemoryStore(ttl=60, clock=clock)
    gate = asyncio.Event()
    task = await hold(store, "a", gate)
    clock.now += 1_000_000

    with pytest.raises(InProgress):
        await store.run_once("a", "f", result())

    gate.set()
    await task
    record = await store.lookup("a")
    assert record is not None
    assert record.state == "done"
    assert record.expires_at is not None
    left = record.expires_at - dt.datetime.now(dt.UTC)
    assert dt.timedelta(seconds=50) < left <= dt.timedelta(seconds=60)


async def test_an_abandoned_key_stays_claimed_for_a_lease() -> None:
    clock = Clock()
    store = MemoryStore(lease=60, clock=clock)

    async def abandoned() -> bytes:
        raise Abandoned

    with pytest.raises(Abandoned):
        await store.run_once("a", "f", Call(run=abandoned))
    clock.now += 59
    with pytest.raises(InProgress):
        await store.run_once("a", "f", result())
    clock.now += 2

    assert await store.lookup("a") is None
    assert store.size == 0
    assert not (await store.run_once("a", "f", result())).duplicate


def note(state: Literal["accepted", "failed"] = "accepted", data: bytes = b"") -> Note:
    return Note(state=state, fingerprint="f", data=data)


async def test_a_note_is_forgotten_after_the_ttl_of_the_last_one() -> None:
    clock = Clock()
    store = MemoryStore(ttl=10, clock=clock)
    await store.note("a", note())
    clock.now += 9
    await store.note("a", note("failed"))
    await store.note("b", note())
    clock.now += 9
    assert await known(store, "a", "b") == ["a", "b"]
    clock.now += 1
    assert await known(store, "a", "b") == []
    assert (store.entries, store.size) == (0, 0)


async def test_a_flood_of_notes_stays_bounded_and_forgets_no_result() -> None:
    store = MemoryStore(max_entries=10)
    await store.run_once("done", "f", result())
    for number in range(100):
        await store.note(str(number), note())
        assert store.entries <= 10

    assert await known(store, "done", "90", "91", "99") == ["done", "91", "99"]


async def test_notes_make_room_for_claims_and_results() -> None:
    store = MemoryStore(max_entries=3)
    await store.run_once("done", "f", result())
    await store.note("a", note())
    await store.note("b", note())

    await store.run_once("c", "f", result())
    assert await known(store, "done", "a", "b", "c") == ["done", "b", "c"]

    await store.run_once("b", "f", result())
    assert await known(store, "done", "a", "b", "c") == ["done", "b", "c"]
    assert store.entries == 3


async def test_a_note_without_room_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(max_bytes=5_000)
    await store.run_once("done", "f", result(bytes(3_000)))
    size = store.size

    await store.note("a", note("failed", bytes(2_000)))

    assert await known(store, "done", "a") == ["done"]
    assert store.size == size
    assert "no room" in caplog.text


async def test_a_note_gives_its_bytes_back() -> None:
    store = MemoryStore()
    await store.note("a", note("failed", bytes(1_000)))
    await store.note("a", note())
    await store.run_once("a", "f", result())
    plain = MemoryStore()
    await plain.run_once("a", "f", result())

    assert store.size == plain.size
    assert store.entries == 1


async def test_a_note_on_a_result_does_not_outlive_it() -> None:
    clock = Clock()
    store = MemoryStore(ttl=10, clock=clock)
    await store.run_once("a", "f", result())
    clock.now += 9
    await store.note("a", note("failed"))
    clock.now += 2

    assert await known(store, "a") == []
