"""Deadlocks and serialization failures: the whole transaction runs again, and no attempt is counted."""

import asyncio
import contextlib
import secrets
import sqlite3
import threading
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction

from autosell_rmq import InProgress, Reject, Stored
from tests.django import settings
from tests.django.shop.models import Effect
from tests.django.store_fixtures import (
    FIRST,
    KEY,
    Connect,
    Threads,
    Work,
    connect,
    effects,
    elsewhere,
    needs,
    other_way,
    record,
    records,
    short_waits,
    threads,
)
from tests.support.waiting import PATIENCE

__all__ = ["connect", "short_waits", "threads"]

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.timeout(60),
]
locks_rows = needs("postgres", "mariadb", why="SQLite has one writer, so nothing deadlocks")


class Swap:
    """Two handlers that update two rows in opposite order, meeting in between on their first run.

    Attributes:
        swallows: the handler hides the deadlock, and goes on.
    """

    def __init__(self, *, swallows: bool = False) -> None:
        self.meeting = threading.Barrier(2)
        self.swallows = swallows
        self.runs: list[str] = []

    def handler(self, first: str, second: str) -> Any:  # noqa: ANN401
        met = False

        def run() -> bytes:
            nonlocal met
            self.runs.append(first)
            update(first)
            if not met:
                met = True
                self.meeting.wait(PATIENCE)
            with contextlib.suppress(*((OperationalError,) if self.swallows else ())):
                update(second)
            update("both")
            return first.encode()

        return run


def new_keys() -> tuple[str, str]:
    """Keys that no test before has deleted.

    InnoDB keeps a deleted key in the index for a while, and whoever inserts it anew locks the gap up to the
    next one: there the other claim of the test would wait for a handler that waits for it.
    """
    return secrets.token_hex(32), secrets.token_hex(32)


def update(key: str) -> None:
    for row in Effect.objects.filter(key=key):
        Effect.objects.filter(id=row.id).update(note=f"{row.note}+")


def make_rows() -> None:
    for key in ("one", "two", "both"):
        Effect.objects.create(key=key)


@locks_rows
async def test_a_deadlock_in_handlers_is_run_again(connect: Connect, threads: Threads) -> None:
    store = await connect()
    await elsewhere(make_rows)
    key, other = new_keys()
    swap = Swap()

    ended = await asyncio.gather(
        store.run_once(key, FIRST, threads.call(swap.handler("one", "two"))),
        store.run_once(other, FIRST, threads.call(swap.handler("two", "one"))),
    )

    assert [each.data for each in ended] == [b"one", b"two"]
    assert len(swap.runs) > 2
    assert await elsewhere(lambda: effects("one") + effects("two")) == ["++", "++"]


@needs("mariadb", why="only MariaDB undoes a whole transaction and takes further statements")
async def test_so_is_one_that_the_handler_hid(connect: Connect, threads: Threads) -> None:
    """Or the effects from before the deadlock, and the claim, would be missing from the commit."""
    store = await connect()
    await elsewhere(make_rows)
    key, other = new_keys()
    swap = Swap(swallows=True)

    ended = await asyncio.gather(
        store.run_once(key, FIRST, threads.call(swap.handler("one", "two"))),
        store.run_once(other, FIRST, threads.call(swap.handler("two", "one"))),
    )

    assert [each.data for each in ended] == [b"one", b"two"]
    assert len(swap.runs) > 2
    assert await elsewhere(lambda: effects("one") + effects("two") + effects("both")) == ["++", "++", "++"]


@needs("postgres", why="MariaDB's serializable locks what it reads, as any other")
async def test_a_serialization_failure_is_run_again(connect: Connect, threads: Threads) -> None:
    import psycopg

    with other_way(OPTIONS={"isolation_level": psycopg.IsolationLevel.SERIALIZABLE}) as alias:
        store = await connect(database=alias)
        meeting, runs = threading.Barrier(2), []

        def handler(name: str) -> Any:  # noqa: ANN401
            def run() -> bytes:
                """Each counts what the other is about to write."""
                runs.append(name)
                count = Effect.objects.using(alias).count()
                if len(runs) <= 2:
                    meeting.wait(PATIENCE)
                Effect.objects.using(alias).create(key="skew", note=str(count))
                return name.encode()

            return run

        ended = await asyncio.gather(
            store.run_once("a" * 64, FIRST, threads.call(handler("one"))),
            store.run_once("b" * 64, FIRST, threads.call(handler("two"))),
        )

        assert [each.data for each in ended] == [b"one", b"two"]
        assert len(runs) == 3
        assert await elsewhere(effects) == ["0", "1"]
        await asyncio.to_thread(threads.end)
        await store.close()


LEVELS = ["read committed", "repeatable read", "serializable"]


@locks_rows
@pytest.mark.parametrize("level", LEVELS)
async def test_duplicates_under_every_isolation_level(connect: Connect, threads: Threads, level: str) -> None:
    """Under a snapshot the winner's row cannot be seen by those that waited for it."""
    with other_way(OPTIONS={"isolation_level": _level(level)}) as alias:
        stores = [await connect(database=alias, lock_timeout=20.0) for _ in range(2)]
        works = [Work(str(n).encode(), using=alias) for n in range(8)]

        async def until_done(number: int, work: Work) -> Stored:
            while True:
                try:
                    return await stores[number % 2].run_once(KEY, FIRST, threads.call(work))
                except InProgress:
                    continue

        ended = await asyncio.gather(*(until_done(*each) for each in enumerate(works)))

        assert len({each.data for each in ended}) == 1
        assert sum(not each.duplicate for each in ended) == 1
        assert len(await elsewhere(effects)) == 1
        await asyncio.to_thread(threads.end)
        for store in stores:
            await store.close()


def _level(name: str) -> object:
    if settings.KIND == "mariadb":
        return name
    import psycopg

    return psycopg.IsolationLevel[name.upper().replace(" ", "_")]


# --- how often ---------------------------------------------------------------------------------------


def given_up() -> OperationalError:
    """What the driver of the run says of a deadlock."""
    if settings.KIND == "mariadb":
        return OperationalError(1213, "Deadlock found")
    error = OperationalError("given up")
    if settings.KIND == "postgres":
        import psycopg

        error.__cause__ = psycopg.errors.DeadlockDetected()
    else:
        error.__cause__ = cause = sqlite3.OperationalError("database is locked")
        cause.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


class Unlucky:
    """A handler that deadlocks so many times."""

    def __init__(self, times: int, *, wraps: bool = False) -> None:
        self.left = times
        self.runs = 0
        self.wraps = wraps

    def __call__(self) -> None:
        self.runs += 1
        self.left -= 1
        if self.left < 0:
            return
        try:
            raise given_up()
        except OperationalError as error:
            if not self.wraps:
                raise
            raise ValueError("the order could not be stored") from error


@pytest.mark.parametrize("wraps", [False, True])
async def test_a_transaction_is_run_again_a_few_times(
    connect: Connect, threads: Threads, wraps: bool
) -> None:
    store = await connect()
    unlucky = Unlucky(3, wraps=wraps)

    stored = await store.run_once(KEY, FIRST, threads.call(Work(then=unlucky)))

    assert not stored.duplicate
    assert unlucky.runs == 4
    assert len(await elsewhere(effects)) == 1
    assert (await elsewhere(record)).attempt == 1


async def test_then_it_takes_the_delay_line(connect: Connect, threads: Threads) -> None:
    store = await connect()
    unlucky = Unlucky(100)

    with pytest.raises(InProgress, match="6 times"):
        await store.run_once(KEY, FIRST, threads.call(Work(then=unlucky)))

    assert unlucky.runs == 6
    assert (await elsewhere(effects), await elsewhere(records)) == ([], 0)


async def test_a_decision_of_the_handler_stands(connect: Connect, threads: Threads) -> None:
    store = await connect()
    runs = []

    def decide() -> None:
        runs.append(1)
        try:
            raise given_up()
        except OperationalError as error:
            raise Reject("too much going on") from error

    with pytest.raises(Reject):
        await store.run_once(KEY, FIRST, threads.call(Work(then=decide)))
    assert len(runs) == 1


async def test_no_thread_waits_in_between(connect: Connect) -> None:
    """Neither for the next run, nor for another key."""
    store = await connect()
    one = Threads(1)
    unlucky = Unlucky(4)
    running = asyncio.create_task(store.run_once(KEY, FIRST, one.call(Work(then=unlucky))))

    others = 0
    while not running.done():
        assert await asyncio.wait_for(one.run(lambda: 1), 5) == 1
        others += 1

    assert others > 5
    await running
    await asyncio.to_thread(one.end)


@needs("sqlite", why="the one writer is SQLite's")
async def test_another_writer_holds_sqlite_up_and_fails_nothing(
    connect: Connect, threads: Threads, short_waits: None
) -> None:
    store = await connect()
    writing, over = threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic():
            Effect.objects.create(key="another")
            writing.set()
            assert over.wait(PATIENCE)

    writer = asyncio.create_task(elsewhere(write))
    await asyncio.to_thread(writing.wait, PATIENCE)
    work = Work()

    with pytest.raises(InProgress):
        await store.run_once(KEY, FIRST, threads.call(work))
    assert work.runs == 0

    over.set()
    await writer
    assert not (await store.run_once(KEY, FIRST, threads.call(work))).duplicate


async def test_an_error_of_the_handlers_own_statement_is_its_failure(
    connect: Connect, threads: Threads
) -> None:
    store = await connect()

    def fail() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM there_is_no_such_table")

    with pytest.raises(DatabaseError):
        await store.run_once(KEY, FIRST, threads.call(Work(then=fail)))
    assert (await elsewhere(effects), await elsewhere(records)) == ([], 0)


@needs("postgres", why="only PostgreSQL refuses everything after an error")
async def test_an_error_that_the_handler_hid_is_its_failure(connect: Connect, threads: Threads) -> None:
    """PostgreSQL commits nothing after it."""
    store = await connect()

    def hide() -> None:
        with contextlib.suppress(DatabaseError), connection.cursor() as cursor:
            cursor.execute("SELECT 1/0")

    with pytest.raises(DatabaseError, match="transaction is aborted"):
        await store.run_once(KEY, FIRST, threads.call(Work(then=hide)))
    assert (await elsewhere(effects), await elsewhere(records)) == ([], 0)
