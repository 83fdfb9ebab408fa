"""The lease mode on the database: its steps, its clock, fencing, takeover."""

import asyncio
import datetime as dt
import threading
import time
from collections.abc import Iterator

import pytest
from django.db import connection, connections
from django.utils import timezone

from autosell_rmq import (
    Call,
    Claim,
    ClosedError,
    ConfigError,
    InProgress,
    LeaseLost,
    Note,
    Record,
    StoreUnavailable,
)
from autosell_rmq_django.models import IdempotencyRecord
from tests.contract.lease_cases import (  # noqa: F401 - the cases run here too
    test_a_key_that_nobody_holds_may_be_renewed_and_completed,
    test_only_the_holder_may_do_anything,
)
from tests.contract.store_fixtures import Work as AsyncWork
from tests.django import settings
from tests.django.store_fixtures import (
    FIRST,
    KEY,
    OTHER,
    Connect,
    Threads,
    Work,
    connect,
    done,
    elsewhere,
    needs,
    record,
    records,
    short_waits,
    started,
    threads,
)
from tests.support.waiting import eventually

__all__ = ["connect", "short_waits", "threads"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]


def a_claim(token: str) -> Claim:
    return Claim(key=KEY, fingerprint=f"fingerprint of {token}", token=token)


def leased(work: AsyncWork) -> Call:
    return Call(run=work.run, queue="orders", correlation_id="id-1", attempt=2)


async def expired() -> None:
    """As if the lease of the only record had run out."""
    past = timezone.now() - dt.timedelta(seconds=1)
    await elsewhere(lambda: IdempotencyRecord.objects.update(expires=past))


# --- the steps ---------------------------------------------------------------------------------------


async def test_each_step_may_be_repeated(connect: Connect) -> None:
    store = await connect()
    mine = a_claim("mine")

    for _ in range(2):
        assert await store.claim(mine) is None
        assert await store.renew(mine)
    for _ in range(2):
        assert await store.complete(mine, b"data")
    for _ in range(2):
        await store.release(mine)  # a result stays

    assert not await store.renew(mine)
    found = await store.claim(a_claim("late"))
    assert found is not None
    assert (found.state, found.fingerprint, found.data) == ("done", "fingerprint of mine", b"data")


async def test_the_record_says_what_it_is(connect: Connect) -> None:
    store = await connect(lease=60.0, ttl=1000.0)
    gate = asyncio.Event()
    work = AsyncWork(b"result", gate=gate)
    running = asyncio.create_task(store.run_once(KEY, FIRST, leased(work)))
    await work.started.wait()

    row = await elsewhere(record)
    assert (row.state, row.queue, row.correlation_id, row.attempt) == ("processing", "orders", "id-1", 2)
    assert 50 < (row.expires - row.created).total_seconds() < 61
    gate.set()
    await running

    row = await elsewhere(record)
    assert (row.state, row.queue, row.correlation_id, row.attempt) == ("done", "orders", "id-1", 2)
    assert row.completed is not None
    assert 999 < (row.expires - row.completed).total_seconds() < 1001


# --- leases ------------------------------------------------------------------------------------------


async def test_a_crashed_workers_key_is_taken_over_after_its_lease(connect: Connect) -> None:
    store = await connect(lease=1.0)
    await store.claim(a_claim("of a worker that crashed"))
    work = AsyncWork(b"result")
    with pytest.raises(InProgress):
        await store.run_once(KEY, FIRST, work.call)

    async def taken_over() -> bool:
        try:
            return not (await store.run_once(KEY, FIRST, work.call)).duplicate
        except InProgress:
            return False

    await eventually(taken_over)
    assert work.runs == 1


async def test_renewal_keeps_a_long_call_alive(connect: Connect) -> None:
    store, twin = await connect(lease=1.5), await connect(lease=1.5)
    gate = asyncio.Event()
    work = AsyncWork(gate=gate)
    running = asyncio.create_task(store.run_once(KEY, FIRST, work.call))
    await work.started.wait()
    first = await twin.lookup(KEY)
    assert first is not None
    assert first.expires_at is not None
    end = first.expires_at + dt.timedelta(seconds=3)  # two leases more

    async def renewed() -> bool:
        found = await twin.lookup(KEY)
        assert found is not None
        assert found.expires_at is not None
        return found.expires_at > end

    await eventually(renewed)
    with pytest.raises(InProgress):
        await twin.run_once(KEY, FIRST, AsyncWork().call)
    gate.set()

    assert not (await running).duplicate
    assert (await twin.run_once(KEY, FIRST, AsyncWork().call)).duplicate


async def test_a_zombies_result_is_discarded(connect: Connect) -> None:
    """A worker was stopped for longer than its lease; another has handled the message meanwhile."""
    zombie, other = await connect(), await connect()
    gate = asyncio.Event()
    work = AsyncWork(b"the zombie's", gate=gate)
    running = asyncio.create_task(zombie.run_once(KEY, FIRST, work.call))
    await work.started.wait()
    await expired()

    assert await other.run_once(KEY, FIRST, AsyncWork(b"the other's").call) == done(
        b"the other's", duplicate=False
    )
    gate.set()

    with pytest.raises(LeaseLost):
        await running
    assert await elsewhere(records) == 1
    assert (await zombie.run_once(KEY, FIRST, AsyncWork().call)).data == b"the other's"


async def test_a_zombie_does_not_release_the_others_claim(connect: Connect) -> None:
    zombie, other = await connect(), await connect()
    await zombie.claim(a_claim("the zombie's"))
    await expired()
    await other.claim(a_claim("the other's"))

    await zombie.release(a_claim("the zombie's"))

    assert not await zombie.renew(a_claim("the zombie's"))
    assert await other.renew(a_claim("the other's"))


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_the_clock_of_the_worker_does_not_matter(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    right, wrong = await connect(lease=60.0), await connect(lease=60.0)
    await right.claim(a_claim("right"))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + skew)
    monkeypatch.setattr(timezone, "now", lambda: dt.datetime.now(dt.UTC) + dt.timedelta(seconds=skew))

    with pytest.raises(InProgress):
        await wrong.run_once(KEY, FIRST, AsyncWork().call)
    await right.release(a_claim("right"))
    await wrong.claim(a_claim("wrong"))
    await wrong.complete(a_claim("wrong"), b"data")
    monkeypatch.undo()

    found = await right.lookup(KEY)
    assert found is not None
    assert found.data == b"data"
    assert found.expires_at is not None
    week = (found.expires_at - dt.datetime.now(dt.UTC)).total_seconds()
    assert abs(week - 7 * 24 * 3600) < 60


async def test_a_claim_waits_for_a_transaction_no_longer_than_the_lock_timeout(
    connect: Connect, threads: Threads, short_waits: None
) -> None:
    """The handler of this queue was sync before the deployment, and one of its runs is not over."""
    store = await connect(lock_timeout=1.0)
    gate = threading.Event()
    work = Work(b"result", gate=gate)
    running = asyncio.create_task(store.run_once(KEY, FIRST, threads.call(work)))
    await started(work)

    with pytest.raises(InProgress):
        await store.run_once(KEY, OTHER, AsyncWork().call)

    gate.set()
    await running
    assert await store.run_once(KEY, OTHER, AsyncWork().call) == done(b"result", duplicate=True)


async def test_a_locked_record_is_no_answer_and_is_asked_again(
    connect: Connect, threads: Threads, short_waits: None
) -> None:
    store = await connect(lock_timeout=1.0, lease=60.0)
    mine = a_claim("mine")
    await store.claim(mine)
    locked, over = threading.Event(), threading.Event()
    locking = asyncio.create_task(elsewhere(lambda: hold_rows(locked, over)))
    await asyncio.to_thread(locked.wait, 15)

    with pytest.raises(StoreUnavailable):
        await store.complete(mine, b"data")

    over.set()
    await locking
    assert await store.complete(mine, b"data")


def hold_rows(locked: threading.Event, over: threading.Event) -> None:
    from django.db import transaction

    with transaction.atomic():
        IdempotencyRecord.objects.update(attempt=7)
        locked.set()
        assert over.wait(15)


# --- the store's life --------------------------------------------------------------------------------


async def test_steps_use_threads_of_the_stores_own_and_leave_none(connect: Connect) -> None:
    store = await connect(threads=2)
    for key in ("a" * 64, "b" * 64, "c" * 64):
        await store.run_once(key, FIRST, AsyncWork().call)
    assert 1 <= len(own_threads()) <= 2
    assert all(thread.daemon for thread in own_threads())

    await store.close()

    assert own_threads() == []


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("autosell-rmq-store")]


@needs("postgres", "mariadb", why="SQLite has no sessions to count")
async def test_a_closed_store_leaves_no_connection(connect: Connect, persistent: None) -> None:
    before = await elsewhere(sessions)
    store = await connect(threads=3)
    await asyncio.gather(*(store.lookup(KEY) for _ in range(20)))
    assert await elsewhere(sessions) > before

    await store.close()

    async def gone() -> bool:
        return await elsewhere(sessions) <= before

    await eventually(gone)


@pytest.fixture
def persistent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    yield
    monkeypatch.undo()


def sessions() -> int:
    queries = {
        "postgres": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()",
        "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE db = database()",
    }
    with connection.cursor() as cursor:
        cursor.execute(queries[settings.KIND])
        return int(cursor.fetchone()[0])


async def test_a_store_that_is_not_open_says_so(connect: Connect) -> None:
    store = await connect()
    await store.close()

    with pytest.raises(ClosedError, match="not open"):
        await store.run_once(KEY, FIRST, AsyncWork().call)


async def test_a_store_serves_one_loop_after_the_other(connect: Connect) -> None:
    store = await connect()

    def elsewhere_run() -> Record | None:
        return asyncio.run(store.lookup(KEY))

    assert await asyncio.to_thread(elsewhere_run) is None
    assert await store.lookup(KEY) is None


def test_a_database_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from autosell_rmq_django.store import DatabaseStore

    monkeypatch.setattr(connection, "vendor", "oracle")
    with pytest.raises(ConfigError, match="PostgreSQL, MariaDB, MySQL or SQLite"):
        DatabaseStore()


# --- notes -----------------------------------------------------------------------------------------


async def test_a_note_is_there_again_when_a_lease_has_run_out(connect: Connect) -> None:
    store = await connect()
    await store.note(KEY, Note(state="accepted", fingerprint=FIRST, queue="orders", correlation_id="id-1"))
    await store.claim(a_claim("of a worker that dies"))
    await store.note(KEY, Note(state="failed", fingerprint=FIRST, data=b"{}"))
    found = await store.lookup(KEY)
    assert found is not None
    assert found.state == "processing"

    await expired()

    found = await store.lookup(KEY)
    assert found is not None
    assert (found.state, found.data) == ("failed", b"{}")
    assert found.expires_at is not None
    assert found.expires_at > timezone.now() + dt.timedelta(days=6)
    assert await store.claim(a_claim("next")) is None


async def test_what_a_note_says_of_its_message_is_in_the_record(connect: Connect) -> None:
    store = await connect()
    failed = Note(
        state="failed",
        fingerprint=FIRST,
        data=b'{"error":"no"}',
        queue="orders",
        correlation_id="c",
        attempt=4,
    )
    await store.note(KEY, failed)
    row = await elsewhere(record)
    assert (row.state, row.queue, row.correlation_id, row.attempt) == ("failed", "orders", "c", 4)
    assert bytes(row.note_data or b"") == b'{"error":"no"}'
    assert row.note_expires is not None
    assert abs(row.expires - row.note_expires) < dt.timedelta(seconds=1)  # two looks at the clock

    await store.note(KEY, Note(state="accepted", fingerprint=OTHER, queue="orders", correlation_id="d"))
    row = await elsewhere(record)
    assert (row.state, row.correlation_id, row.attempt, row.fingerprint) == ("accepted", "d", 0, OTHER)

    await store.run_once(KEY, FIRST, leased(AsyncWork(b"result")))
    await store.note(KEY, failed)  # it would come to light when the result has expired
    row = await elsewhere(record)
    assert (row.state, row.note_state, row.note_data, row.note_expires) == ("done", "", None, None)


async def test_a_note_expires(connect: Connect) -> None:
    store = await connect()
    await store.note(KEY, Note(state="accepted", fingerprint=FIRST))
    past = timezone.now() - dt.timedelta(seconds=1)
    await elsewhere(lambda: IdempotencyRecord.objects.update(expires=past, note_expires=past))

    assert await store.lookup(KEY) is None
    with pytest.raises(ValueError, match="no"):
        await store.run_once(KEY, FIRST, leased(AsyncWork(error=ValueError("no"))))
    assert await elsewhere(records) == 0


async def test_a_note_on_a_locked_record_is_refused_in_time(
    connect: Connect, threads: Threads, short_waits: None
) -> None:
    store = await connect(lock_timeout=0.5)
    gate = threading.Event()
    work = Work(gate=gate)
    running = asyncio.create_task(store.run_once(KEY, FIRST, threads.call(work)))
    await started(work)

    with pytest.raises(StoreUnavailable, match="locked"):
        await store.note(KEY, Note(state="accepted", fingerprint=FIRST))

    gate.set()
    assert not (await running).duplicate
    assert await elsewhere(record) is not None
