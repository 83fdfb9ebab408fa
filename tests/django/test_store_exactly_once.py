"""Claim, handler and result in one transaction: what is seen when, and who waits for whom."""

import asyncio
import contextlib
import datetime as dt
import threading
import uuid
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from autosell_rmq import ConfigError, InProgress, Reject, RetryLater
from autosell_rmq_django.models import IdempotencyRecord
from autosell_rmq_django.store import DatabaseStore
from tests.django.shop.models import Effect
from tests.django.store_fixtures import (
    FIRST,
    KEY,
    OTHER,
    Connect,
    Threads,
    Work,
    connect,
    done,
    effects,
    elsewhere,
    exactly_once,
    needs,
    record,
    records,
    reply,
    short_waits,
    started,
    threads,
)

__all__ = ["connect", "short_waits", "threads"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]


async def test_effect_and_result_come_in_one_commit(connect: Connect, threads: Threads) -> None:
    store = await connect()
    gate = threading.Event()
    work = Work(b"result", gate=gate)
    running = asyncio.create_task(store.run_once(KEY, FIRST, threads.call(work)))
    await started(work)

    assert await elsewhere(effects) == []
    assert await elsewhere(records) == 0
    assert await store.lookup(KEY) is None

    gate.set()
    assert await running == done(b"result", duplicate=False)
    assert await elsewhere(effects) == ["1"]
    found = await store.lookup(KEY)
    assert found is not None
    assert (found.state, found.data, found.fingerprint) == ("done", b"result", FIRST)


async def test_the_record_says_what_it_was(connect: Connect, threads: Threads) -> None:
    store = await connect(ttl=1000.0)
    call = threads.call(Work(b"result"), queue="orders.новые", correlation_id="id-ж", attempt=3)

    await store.run_once(KEY, FIRST, call)

    row = await elsewhere(record)
    assert (row.key, row.queue, row.correlation_id, row.attempt) == (KEY, "orders.новые", "id-ж", 3)
    assert (row.state, row.fingerprint) == ("done", FIRST)
    assert await elsewhere(reply) == b"result"
    assert row.completed is not None
    now = timezone.now()
    for moment in (row.created, row.completed):
        assert abs((now - moment).total_seconds()) < 60
    assert 990 < (row.expires - row.completed).total_seconds() < 1010


async def test_a_duplicate_gets_the_result_and_runs_nothing(connect: Connect, threads: Threads) -> None:
    store, twin = await connect(), await connect()
    await store.run_once(KEY, FIRST, threads.call(Work(b"result")))
    late = Work()

    assert await twin.run_once(KEY, OTHER, threads.call(late)) == done(b"result", duplicate=True)
    assert late.runs == 0


class Odd(BaseException):
    """Not an `Exception`, like SystemExit."""


@pytest.mark.parametrize(
    "error", [ValueError("no"), Reject("no"), RetryLater("no"), InProgress("no"), Odd("no"), SystemExit(1)]
)
async def test_a_failure_leaves_nothing(connect: Connect, threads: Threads, error: BaseException) -> None:
    store = await connect()

    def fail() -> None:
        raise error

    call = threads.call(Work(then=fail))
    with pytest.raises(type(error)) as caught:
        await elsewhere(lambda: exactly_once().run(KEY, FIRST, call))
    assert caught.value is error
    assert (await elsewhere(effects), await elsewhere(records)) == ([], 0)

    again = Work(b"second")
    assert await store.run_once(KEY, OTHER, threads.call(again)) == done(
        b"second", duplicate=False, fingerprint=OTHER
    )
    assert await elsewhere(effects) == ["1"]


# --- concurrent duplicates ---------------------------------------------------------------------------


async def test_a_concurrent_duplicate_waits_for_the_winner(
    connect: Connect, threads: Threads, short_waits: None
) -> None:
    store, twin = await connect(lock_timeout=30.0), await connect(lock_timeout=30.0)
    gate = threading.Event()
    winner, loser = Work(b"won", gate=gate), Work(b"lost")
    first = asyncio.create_task(store.run_once(KEY, FIRST, threads.call(winner)))
    await started(winner)
    second = asyncio.create_task(twin.run_once(KEY, OTHER, threads.call(loser)))
    assert not (await asyncio.wait([second], timeout=0.3))[0]

    gate.set()

    assert await first == done(b"won", duplicate=False)
    assert await second == done(b"won", duplicate=True)
    assert loser.runs == 0
    assert await elsewhere(effects) == ["1"]


async def test_when_the_winner_fails_a_waiting_duplicate_runs(connect: Connect, threads: Threads) -> None:
    store = await connect(lock_timeout=30.0)
    gate = threading.Event()

    def fail() -> None:
        raise ValueError("the first one fails")

    failing, others = Work(gate=gate, then=fail), [Work(b"ran", key=str(n)) for n in range(4)]
    first = asyncio.create_task(store.run_once(KEY, FIRST, threads.call(failing)))
    await started(failing)
    waiting = [asyncio.create_task(store.run_once(KEY, FIRST, threads.call(work))) for work in others]
    assert not (await asyncio.wait(waiting, timeout=0.3))[0]

    gate.set()

    with pytest.raises(ValueError, match="the first one fails"):
        await first
    ended = await asyncio.gather(*waiting)
    assert sorted(each.duplicate for each in ended) == [False, True, True, True]
    assert {each.data for each in ended} == {b"ran"}
    assert len(await elsewhere(effects)) == 1


async def test_a_duplicate_waits_no_longer_than_the_lock_timeout(
    connect: Connect, threads: Threads, short_waits: None
) -> None:
    store = await connect(lock_timeout=1.0)
    gate = threading.Event()
    winner, loser = Work(b"won", gate=gate), Work(b"lost")
    first = asyncio.create_task(store.run_once(KEY, FIRST, threads.call(winner)))
    await started(winner)
    clock = asyncio.get_running_loop().time
    asked = clock()

    with pytest.raises(InProgress):
        await store.run_once(KEY, FIRST, threads.call(loser))

    assert 0.5 < clock() - asked < 8
    assert not first.done()
    gate.set()
    await first
    assert loser.runs == 0


@needs("postgres", "mariadb", why="SQLite has one writer for all keys")
async def test_other_keys_do_not_wait(connect: Connect, threads: Threads) -> None:
    store = await connect()
    gate = threading.Event()
    holder = Work(gate=gate)
    first = asyncio.create_task(store.run_once(uuid.uuid4().hex * 2, FIRST, threads.call(holder)))
    await started(holder)

    for number in range(30):
        work = Work(key=f"other-{number}")
        stored = await store.run_once(uuid.uuid4().hex * 2, FIRST, threads.call(work))
        assert not stored.duplicate

    assert not first.done()
    gate.set()
    await first


async def test_late_duplicates_do_not_wait_for_anybody(
    connect: Connect, threads: Threads, short_waits: None
) -> None:
    """Not even on SQLite, where a handler's transaction keeps all other writers out."""
    store = await connect()
    await store.run_once(KEY, FIRST, threads.call(Work(b"result")))
    gate = threading.Event()
    holder = Work(gate=gate)
    running = asyncio.create_task(store.run_once(OTHER, FIRST, threads.call(holder)))
    await started(holder)

    for _ in range(20):
        assert (await store.run_once(KEY, FIRST, threads.call(Work()))).duplicate

    assert not running.done()
    gate.set()
    await running


# --- what the handler may do -------------------------------------------------------------------------


async def test_savepoints_and_hooks_of_the_handler(connect: Connect, threads: Threads) -> None:
    store = await connect()
    seen: list[object] = []

    def handler() -> bytes:
        with transaction.atomic():
            Effect.objects.create(key="kept")
        with contextlib.suppress(IntegrityError), transaction.atomic():
            kept = Effect.objects.create(key="undone")
            Effect.objects.create(id=kept.id, key="the same")
        transaction.on_commit(lambda: seen.append([row.key for row in Effect.objects.all()]))
        seen.append("end of the handler")
        return b"result"

    await store.run_once(KEY, FIRST, threads.call(handler))

    assert seen == ["end of the handler", ["kept"]]


async def test_hooks_of_a_failed_handler_are_forgotten(connect: Connect, threads: Threads) -> None:
    store = await connect()
    seen: list[str] = []

    def fail() -> None:
        transaction.on_commit(lambda: seen.append("never"))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.run_once(KEY, FIRST, threads.call(Work(then=fail)))
    await store.run_once(KEY, FIRST, threads.call(Work()))

    assert seen == []


@pytest.mark.parametrize("error", [ValueError("a hook"), asyncio.CancelledError(), Odd()])
async def test_an_error_after_the_commit_changes_nothing(
    connect: Connect, threads: Threads, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    store = await connect()

    def hook() -> None:
        raise error

    work = Work(b"result", then=lambda: transaction.on_commit(hook))

    assert await store.run_once(KEY, FIRST, threads.call(work)) == done(b"result", duplicate=False)

    assert await elsewhere(effects) == ["1"]
    assert "after the commit" in caplog.text
    assert await store.run_once(KEY, FIRST, threads.call(Work())) == done(b"result", duplicate=True)


async def test_a_durable_block_is_refused_inside(connect: Connect, threads: Threads) -> None:
    store = await connect()

    def handler() -> bytes:
        with transaction.atomic(durable=True):
            raise AssertionError

    with pytest.raises(RuntimeError, match="durable"):
        await store.run_once(KEY, FIRST, threads.call(handler))
    assert await elsewhere(records) == 0


@needs("postgres", why="the test makes a constraint that PostgreSQL checks at the commit")
async def test_a_constraint_that_breaks_at_the_commit_is_a_failure(
    connect: Connect, threads: Threads
) -> None:
    store = await connect()

    def break_it() -> None:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
            cursor.execute("INSERT INTO once VALUES (1), (1)")

    with pytest.raises(IntegrityError):
        await store.run_once(KEY, FIRST, threads.call(Work(then=break_it)))
    assert (await elsewhere(effects), await elsewhere(records)) == ([], 0)


async def test_a_rollback_that_the_handler_asks_for_is_a_failure(connect: Connect, threads: Threads) -> None:
    store = await connect()

    def handler() -> bytes:
        Effect.objects.create(key="effect")
        transaction.set_rollback(True)
        return b"result"

    with pytest.raises(transaction.TransactionManagementError):
        await store.run_once(KEY, FIRST, threads.call(handler))
    assert (await elsewhere(effects), await elsewhere(records)) == ([], 0)


async def test_a_handler_that_closes_its_connection_has_failed(connect: Connect, threads: Threads) -> None:
    store = await connect()

    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever Django says of it
        await store.run_once(KEY, FIRST, threads.call(Work(then=lambda: connection.close())))

    assert not isinstance(caught.value, InProgress | ConnectionError)
    assert (await elsewhere(effects), await elsewhere(records)) == ([], 0)
    assert not (await store.run_once(KEY, FIRST, threads.call(Work()))).duplicate


@needs("postgres", "mariadb", why="SQLite has no timeout of a lock")
async def test_the_lock_timeout_is_the_claims_alone(threads: Threads) -> None:
    """The handler's own statements wait as long as the project has said."""
    query = {
        "postgresql": "SELECT current_setting('lock_timeout')",
        "mysql": "SELECT @@innodb_lock_wait_timeout",
    }[connection.vendor]
    given = {"postgresql": "SET lock_timeout = '77s'", "mysql": "SET SESSION innodb_lock_wait_timeout = 77"}
    seen: list[object] = []

    def look() -> None:
        with connection.cursor() as cursor:
            cursor.execute(query)
            seen.append(cursor.fetchone()[0])

    def run() -> None:
        """Several runs on one connection, whose session has a timeout of its own."""
        with connection.cursor() as cursor:
            cursor.execute(given[connection.vendor])
        connection.close_at = None
        for key in ("a" * 64, "b" * 64):
            exactly_once().run(key, FIRST, threads.call(Work(then=look)))
            look()

    await elsewhere(run)

    assert seen == (["77s"] * 4 if connection.vendor == "postgresql" else [77] * 4)


# --- keys that have a row already --------------------------------------------------------------------


def expire(**changes: object) -> None:
    IdempotencyRecord.objects.update(expires=timezone.now() - dt.timedelta(hours=1), **changes)


async def test_an_expired_result_counts_as_absent(connect: Connect, threads: Threads) -> None:
    store = await connect()
    await store.run_once(KEY, FIRST, threads.call(Work(b"old"), correlation_id="old"))
    before = await elsewhere(record)
    await elsewhere(expire)

    assert await store.lookup(KEY) is None
    stored = await store.run_once(KEY, OTHER, threads.call(Work(b"new"), correlation_id="new", attempt=2))

    assert stored == done(b"new", duplicate=False, fingerprint=OTHER)
    row = await elsewhere(record)
    assert row.id == before.id
    assert (row.fingerprint, row.correlation_id, row.attempt) == (OTHER, "new", 2)
    assert row.created > before.created
    assert len(await elsewhere(effects)) == 2


async def test_of_many_who_find_an_expired_result_one_runs(connect: Connect, threads: Threads) -> None:
    store = await connect(lock_timeout=30.0)
    await store.run_once(KEY, FIRST, threads.call(Work(b"old")))
    await elsewhere(expire)
    works = [Work(b"new") for _ in range(8)]

    ended = await asyncio.gather(*(store.run_once(KEY, FIRST, threads.call(work)) for work in works))

    assert sum(work.runs for work in works) == 1
    assert {each.data for each in ended} == {b"new"}
    assert sum(not each.duplicate for each in ended) == 1


async def test_a_failure_brings_an_expired_result_back(connect: Connect, threads: Threads) -> None:
    """Its row was overwritten in the transaction that is rolled back; it stays expired."""
    store = await connect()
    await store.run_once(KEY, FIRST, threads.call(Work(b"old")))
    await elsewhere(expire)

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.run_once(KEY, FIRST, threads.call(Work(then=fail)))

    assert await elsewhere(reply) == b"old"
    assert await store.lookup(KEY) is None


async def test_a_live_lease_stands_in_the_way_and_a_dead_one_does_not(
    connect: Connect, threads: Threads
) -> None:
    """The handler of this queue was async before the deployment."""
    store = await connect()
    await store.run_once(KEY, FIRST, threads.call(Work(b"old")))
    held = {"state": "processing", "lease_token": "another", "reply": None}
    hour = dt.timedelta(hours=1)
    await elsewhere(lambda: IdempotencyRecord.objects.update(expires=timezone.now() + hour, **held))
    work = Work(b"new")

    with pytest.raises(InProgress):
        await store.run_once(KEY, FIRST, threads.call(work))
    assert work.runs == 0

    await elsewhere(expire)
    assert not (await store.run_once(KEY, FIRST, threads.call(work))).duplicate


# ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lock_timeout": 0}, "lock_timeout"),
        ({"lock_timeout": float("inf")}, "lock_timeout"),
        ({"threads": 0}, "threads"),
        ({"database": "nowhere"}, "no such alias"),
        ({"ttl": -1}, "ttl"),
        ({"lease": 0}, "lease"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DatabaseStore(**options)
