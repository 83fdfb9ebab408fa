"""Steps of leases that travel together: one statement for many keys, and to each its own answer."""

import asyncio
import datetime as dt
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from django.db import DataError, transaction
from django.utils import timezone

from autosell_rmq import Call, Claim, InProgress, Note, Stored, StoreUnavailable
from autosell_rmq_django.models import IdempotencyRecord
from autosell_rmq_django.store.lease import Leases, Step
from autosell_rmq_django.store.row import Row
from tests.contract.store_fixtures import Work
from tests.django.store_fixtures import (
    FIRST,
    Connect,
    connect,
    elsewhere,
    needs,
    short_waits,
)
from tests.support.waiting import PATIENCE

__all__ = ["connect", "short_waits"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What went together: the kinds of the steps."""
    seen: list[list[str]] = []
    carry_out = Leases.carry_out

    def watched(self: Leases, steps: Sequence[Step], *, patience: float) -> list[Row | None]:
        seen.append([step.kind for step in steps])
        return carry_out(self, steps, patience=patience)

    monkeypatch.setattr(Leases, "carry_out", watched)
    return seen


def keys(number: int) -> list[str]:
    """In no order, and never used before."""
    return [secrets.token_hex(32) for _ in range(number)]


def claim_of(key: str, token: str = "mine") -> Claim:
    return Claim(key=key, fingerprint=f"fingerprint of {token}", token=token)


def called(run: Callable[[], object] = lambda: None, queue: str = "orders") -> Call:
    async def handler() -> bytes:
        run()
        return b"{}"

    return Call(run=handler, queue=queue)


async def test_many_messages_take_two_trips(connect: Connect, trips: list[list[str]]) -> None:
    store = await connect()
    many = keys(60)

    stored = await asyncio.gather(*(store.run_once(key, FIRST, called()) for key in many))

    assert stored == [Stored(data=b"{}", fingerprint=FIRST, duplicate=False)] * 60
    assert trips == [["claim"] * 60, ["complete"] * 60]
    again = await asyncio.gather(*(store.run_once(key, FIRST, called()) for key in many))
    assert all(each.duplicate for each in again)


async def test_each_step_of_a_trip_gets_its_own_answer(connect: Connect, trips: list[list[str]]) -> None:
    store, other = await connect(), await connect()
    new, held, done, noted, expired, gone = keys(6)
    mine_held, mine_lost, mine_released, mine_done = keys(4)
    for key in (held, expired, mine_lost):
        await other.claim(claim_of(key, "theirs"))
    await other.complete(claim_of(done, "theirs"), b"\x00'%s\xff\\")
    await other.note(noted, Note(state="failed", fingerprint=FIRST, data=b"{}"))
    for key in (mine_held, mine_released):
        await store.claim(claim_of(key))
    await store.complete(claim_of(mine_done), b"first")
    past = timezone.now() - dt.timedelta(seconds=1)
    await elsewhere(lambda: IdempotencyRecord.objects.filter(key=expired).update(expires=past))
    trips.clear()

    claims = [store.claim(claim_of(key)) for key in (new, held, done, noted, expired, mine_held)]
    results = [store.complete(claim_of(key), b"result \x00'%s\xff\\") for key in (gone, mine_lost, mine_done)]
    claimed, completed, _ = await asyncio.gather(
        asyncio.gather(*claims), asyncio.gather(*results), store.release(claim_of(mine_released))
    )

    assert trips == [["claim"] * 6 + ["complete"] * 3 + ["release"]]
    assert [each and each.state for each in claimed] == [None, "processing", "done", None, None, None]
    assert claimed[2] is not None
    assert claimed[2].data == b"\x00'%s\xff\\"
    assert completed == [True, False, True]
    rows = {row.key: row for row in await elsewhere(lambda: list(IdempotencyRecord.objects.all()))}
    assert mine_released not in rows
    assert {rows[key].lease_token for key in (held, done, mine_lost)} == {"theirs"}
    assert {rows[key].lease_token for key in (new, noted, expired, gone, mine_held, mine_done)} == {"mine"}
    for key in (gone, mine_done):
        assert bytes(rows[key].reply or b"") == b"result \x00'%s\xff\\"
        assert rows[key].completed is not None
    for key in (new, noted, expired, mine_held):
        row = rows[key]
        assert (row.state, row.reply, row.completed) == ("processing", None, None)
    assert (rows[noted].note_state, bytes(rows[noted].note_data or b"")) == ("failed", b"{}")


async def test_a_claim_begun_anew_keeps_when_it_was_first_seen(connect: Connect) -> None:
    store = await connect()
    [key] = keys(1)
    await store.claim(claim_of(key))
    before = await elsewhere(IdempotencyRecord.objects.get)

    assert await store.renew(claim_of(key))
    await store.complete(claim_of(key), b"{}")

    after = await elsewhere(IdempotencyRecord.objects.get)
    assert (after.id, after.created) == (before.id, before.created)
    past = timezone.now() - dt.timedelta(seconds=1)
    await elsewhere(lambda: IdempotencyRecord.objects.update(expires=past))
    await store.claim(claim_of(key, "another"))
    assert (await elsewhere(IdempotencyRecord.objects.get)).created > before.created


@needs("postgres", "mariadb", why="SQLite stores what does not fit")
async def test_what_the_database_refuses_is_the_failure_of_one(connect: Connect) -> None:
    store = await connect()
    good, bad = keys(2)

    ended = await asyncio.gather(
        store.run_once(good, FIRST, called()),
        store.run_once(bad, FIRST, called(queue="x" * 300)),
        return_exceptions=True,
    )

    assert isinstance(ended[0], Stored)
    assert isinstance(ended[1], DataError)


@needs("postgres", why="on InnoDB who waits for a row blocks the gap before it, on SQLite everything")
async def test_a_locked_key_holds_no_other_up(connect: Connect) -> None:
    store = await connect(lock_timeout=20.0)
    locked, *free = keys(20)
    await store.claim(claim_of(locked, "theirs"))
    taken, over = threading.Event(), threading.Event()
    locking = asyncio.create_task(elsewhere(lambda: hold(locked, taken, over)))
    await asyncio.to_thread(taken.wait, PATIENCE)

    waits = asyncio.create_task(store.run_once(locked, FIRST, called()))
    await asyncio.gather(*(store.run_once(key, FIRST, called()) for key in free))
    await asyncio.gather(*(store.run_once(key, FIRST, called()) for key in keys(20)))
    assert not waits.done()
    over.set()
    await locking
    with pytest.raises(InProgress):
        await waits


def hold(key: str, taken: threading.Event, over: threading.Event) -> None:
    with transaction.atomic():
        IdempotencyRecord.objects.filter(key=key).update(attempt=7)
        taken.set()
        assert over.wait(PATIENCE)


async def test_without_the_database_a_trip_fails_as_a_whole(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await connect()
    many = keys(10)
    runs: list[str] = []

    def lost(self: Leases, steps: Sequence[Step], *, patience: float) -> list[Row | None]:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Leases, "carry_out", lost)
        ended = await asyncio.gather(
            *(store.run_once(key, FIRST, called(lambda: runs.append("run"))) for key in many),
            return_exceptions=True,
        )

    assert all(isinstance(each, StoreUnavailable) for each in ended)
    assert runs == []
    assert not (await store.run_once(many[0], FIRST, called())).duplicate


async def test_a_claim_whose_caller_is_gone_is_released_and_harms_no_other(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await connect()
    begun, go_on = threading.Event(), threading.Event()
    carry_out = Leases.carry_out

    def held_up(self: Leases, steps: Sequence[Step], *, patience: float) -> list[Row | None]:
        begun.set()
        assert go_on.wait(PATIENCE)
        return carry_out(self, steps, patience=patience)

    monkeypatch.setattr(Leases, "carry_out", held_up)
    mine, other = keys(2)
    work = Work()
    running = asyncio.create_task(store.run_once(mine, FIRST, work.call))
    beside = asyncio.create_task(store.run_once(other, FIRST, called()))
    await asyncio.to_thread(begun.wait, PATIENCE)

    running.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert not (await beside).duplicate
    assert work.runs == 0
    assert await store.lookup(mine) is None


async def test_of_workers_that_meet_on_many_keys_each_key_has_one_that_runs(connect: Connect) -> None:
    """The keys come to each in another order; nobody fails, and the busy ones come again."""
    stores = [await connect(lock_timeout=20.0) for _ in range(3)]
    shared = keys(40)
    runs: Counter[str] = Counter()

    async def until_done(number: int, key: str) -> Stored:
        while True:
            try:
                return await stores[number].run_once(key, FIRST, called(lambda: runs.update([key])))
            except InProgress:
                await asyncio.sleep(0.01)

    orders = [shared, shared[::-1], sorted(shared)]
    ended = await asyncio.gather(*(until_done(n, key) for n, order in enumerate(orders) for key in order))

    assert runs == Counter(shared)
    assert sum(not each.duplicate for each in ended) == 40


async def test_the_end_of_a_store_waits_for_its_trips(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await connect()
    many = keys(30)
    claims = [asyncio.create_task(store.claim(claim_of(key))) for key in many]
    await asyncio.sleep(0)

    await store.close()

    assert [await each for each in claims] == [None] * 30
    assert await elsewhere(IdempotencyRecord.objects.count) == 30


async def test_large_results_do_not_travel_together(connect: Connect, trips: list[list[str]]) -> None:
    store = await connect()
    many = keys(5)
    data = b"'" * (200 * 1024)  # doubled by escapes; MariaDB's max_allowed_packet may be as small as 1 MiB

    async def handler() -> bytes:
        return data

    await asyncio.gather(*(store.run_once(key, FIRST, Call(run=handler)) for key in many))

    assert trips[0] == ["claim"] * 5
    assert [trip for trip in trips if "complete" in trip] == [["complete"]] * 5
