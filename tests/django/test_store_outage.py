"""The database goes away, at any moment of a transaction: the delay line, and the unique row decides."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection, connections, transaction

from autosell_rmq import ConfigError, StoreUnavailable
from autosell_rmq_django.models import IdempotencyRecord
from tests.django import settings
from tests.django.connection_fixtures import cut, session
from tests.django.database_proxy import Side, cutter
from tests.django.shop.models import Effect
from tests.django.store_fixtures import (
    FIRST,
    KEY,
    Connect,
    Threads,
    Work,
    connect,
    done,
    effects,
    elsewhere,
    exactly_once,
    needs,
    other_way,
    records,
    threads,
)
from tests.support.waiting import PATIENCE

__all__ = ["connect", "threads"]

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.timeout(60),
]
on_a_server = needs("postgres", "mariadb", why="SQLite is no server that could go away")


def cut_this_session() -> None:
    """End the calling thread's session from the server's side."""
    number = session()

    def end_it() -> None:
        cut(number)
        connections.close_all()

    other = threading.Thread(target=end_it)
    other.start()
    other.join(PATIENCE)


@on_a_server
@pytest.mark.parametrize(
    ("side", "committed"), [("before", False), ("after", True)], ids=["never arrived", "answer lost"]
)
async def test_a_commit_whose_outcome_is_unknown_is_decided_by_the_row(
    connect: Connect, threads: Threads, side: Side, committed: bool
) -> None:
    async with cutter() as (proxy, port):
        with other_way(HOST="127.0.0.1", PORT=port) as alias:
            proxied, direct = await connect(database=alias), await connect()
            # With MariaDB's byte for a query: there a connection begins with READ COMMITTED.
            proxy.word = b"\x03COMMIT" if settings.KIND == "mariadb" else b"COMMIT"
            proxy.side = side

            with pytest.raises(StoreUnavailable):
                await proxied.run_once(KEY, FIRST, threads.call(Work(b"first", using=alias)))

            assert proxy.cuts
            assert await elsewhere(effects) == (["1"] if committed else [])
            second = Work(b"second")
            stored = await direct.run_once(KEY, FIRST, threads.call(second))
            expected = done(b"first", duplicate=True) if committed else done(b"second", duplicate=False)
            assert stored == expected
            assert second.runs == (0 if committed else 1)
            assert len(await elsewhere(effects)) == 1
            await asyncio.to_thread(threads.end)
            await proxied.close()


@on_a_server
@pytest.mark.parametrize("word", [b"SELECT", b"INSERT INTO", b"UPDATE"])
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_connection_cut_at_a_statement_leaves_nothing(
    connect: Connect, threads: Threads, word: bytes, side: Side
) -> None:
    """At the claim, in the handler's own statement, at the result: each time no failure and no attempt."""
    async with cutter() as (proxy, port):
        with other_way(HOST="127.0.0.1", PORT=port) as alias:
            proxied, direct = await connect(database=alias), await connect()
            proxy.word, proxy.side = word, side

            with pytest.raises(StoreUnavailable):
                await proxied.run_once(KEY, FIRST, threads.call(Work(using=alias)))

            assert (await elsewhere(effects), await elsewhere(records)) == ([], 0)
            proxy.word = None
            assert not (await proxied.run_once(KEY, FIRST, threads.call(Work(using=alias)))).duplicate
            assert (await direct.run_once(KEY, FIRST, threads.call(Work()))).duplicate
            await asyncio.to_thread(threads.end)
            await proxied.close()


@on_a_server
async def test_a_session_ended_in_the_handler_is_no_failure(connect: Connect, threads: Threads) -> None:
    store = await connect()

    def lose() -> None:
        cut_this_session()
        Effect.objects.count()

    with pytest.raises(StoreUnavailable):
        await store.run_once(KEY, FIRST, threads.call(Work(then=lose)))

    assert await elsewhere(effects) == []
    assert not (await store.run_once(KEY, FIRST, threads.call(Work()))).duplicate


@on_a_server
async def test_nor_when_the_handler_makes_another_error_of_it(connect: Connect, threads: Threads) -> None:
    store = await connect()

    def lose_and_hide() -> None:
        cut_this_session()
        try:
            Effect.objects.count()
        except Exception:  # noqa: BLE001 - as handlers do
            raise ValueError("no such order") from None

    with pytest.raises(StoreUnavailable):
        await store.run_once(KEY, FIRST, threads.call(Work(then=lose_and_hide)))
    assert await elsewhere(effects) == []


@on_a_server
async def test_nor_when_the_handler_says_nothing_of_it(connect: Connect, threads: Threads) -> None:
    store = await connect()

    def lose_and_ignore() -> None:
        cut_this_session()
        with contextlib.suppress(Exception):
            Effect.objects.count()

    with pytest.raises(StoreUnavailable):
        await store.run_once(KEY, FIRST, threads.call(Work(then=lose_and_ignore)))
    assert (await elsewhere(effects), await elsewhere(records)) == ([], 0)


@on_a_server
async def test_a_session_that_was_ended_while_it_idled_is_replaced_unnoticed(threads: Threads) -> None:
    """Without CONN_HEALTH_CHECKS too."""
    with other_way(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=False) as alias:

        def idle_between() -> None:
            exactly_once(alias).run(KEY, FIRST, threads.call(Work(using=alias)))
            raw = connections[alias].connection
            number = raw.info.backend_pid if settings.KIND == "postgres" else raw.thread_id()
            cut(number)
            ended = exactly_once(alias).run("a" * 64, FIRST, threads.call(Work(using=alias)))
            assert not ended.stored.duplicate
            assert connections[alias].connection is not raw

        await elsewhere(idle_between)
    assert len(await elsewhere(effects)) == 2


@on_a_server
async def test_so_is_one_of_a_lease(connect: Connect) -> None:
    with other_way(CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=False) as alias:
        store = await connect(database=alias, threads=1)
        await elsewhere(cut_every_other_session)

        assert await store.lookup(KEY) is None
        await store.close()


def cut_every_other_session() -> None:
    queries = {
        "postgres": "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()",
        "mariadb": "SELECT id FROM information_schema.processlist WHERE db = database()"
        " AND id <> connection_id()",
    }
    with connection.cursor() as cursor:
        cursor.execute(queries[settings.KIND])
        numbers = [row[0] for row in cursor.fetchall()]
    for number in numbers:
        cut(number)


@on_a_server
async def test_a_server_that_is_down_is_an_outage(connect: Connect, threads: Threads) -> None:
    store = await connect()
    with other_way(HOST="127.0.0.1", PORT=1) as alias:
        with pytest.raises(StoreUnavailable):
            await connect(database=alias)
        work = Work()

        def run() -> None:
            with pytest.raises(StoreUnavailable):
                exactly_once(alias).run(KEY, FIRST, threads.call(work))

        await elsewhere(run)
    assert work.runs == 0
    assert not (await store.run_once(KEY, FIRST, threads.call(work))).duplicate


@pytest.fixture
def limited_role() -> Iterator[str]:
    role = "rmq_test_limited"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP ROLE IF EXISTS {role}")
        cursor.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")
        cursor.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        cursor.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
    yield role
    with connection.cursor() as cursor:
        cursor.execute(f"DROP OWNED BY {role}")
        cursor.execute(f"DROP ROLE {role}")


@needs("postgres", why="the limit is made with a role of PostgreSQL")
async def test_no_connection_left_is_an_outage(limited_role: str, threads: Threads) -> None:
    with other_way(USER=limited_role, CONN_MAX_AGE=None) as alias:
        taken, over = threading.Event(), threading.Event()

        def take() -> None:
            with connections[alias].cursor():
                taken.set()
                assert over.wait(PATIENCE)

        taking = asyncio.create_task(elsewhere(take))
        await asyncio.to_thread(taken.wait, PATIENCE)
        work = Work(using=alias)

        def run() -> None:
            with pytest.raises(StoreUnavailable, match="too many connections"):
                exactly_once(alias).run(KEY, FIRST, threads.call(work))

        await elsewhere(run)
        over.set()
        await taking
    assert work.runs == 0


@on_a_server
async def test_a_locked_table_blocks_threads_and_not_the_loop(connect: Connect, threads: Threads) -> None:
    store = await connect()
    locked, over = threading.Event(), threading.Event()
    table = IdempotencyRecord._meta.db_table

    def lock() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            mode = "IN ACCESS EXCLUSIVE MODE" if settings.KIND == "postgres" else "WRITE"
            cursor.execute(f"LOCK {'TABLE' if settings.KIND == 'postgres' else 'TABLES'} {table} {mode}")
            locked.set()
            assert over.wait(PATIENCE)
            if settings.KIND == "mariadb":
                cursor.execute("UNLOCK TABLES")

    locking = asyncio.create_task(elsewhere(lock))
    await asyncio.to_thread(locked.wait, PATIENCE)
    work = Work()
    running = [asyncio.create_task(store.run_once(KEY, FIRST, threads.call(work))) for _ in range(3)]

    clock = asyncio.get_running_loop().time
    longest, last, end = 0.0, clock(), clock() + 1.5
    while clock() < end:
        await asyncio.sleep(0.01)
        longest, last = max(longest, clock() - last), clock()
    assert longest < 1.0
    assert not any(task.done() for task in running)

    over.set()
    await locking
    assert sum(not each.duplicate for each in await asyncio.gather(*running)) == 1
    assert work.runs == 1


async def test_a_missing_table_is_a_mistake_in_the_configuration(connect: Connect, tmp_path: Path) -> None:
    empty = {"postgres": "postgres", "mariadb": "mysql", "sqlite": str(tmp_path / "empty.sqlite3")}
    with (
        other_way(NAME=empty[settings.KIND]) as alias,
        pytest.raises(ConfigError, match=r"manage\.py migrate --database other"),
    ):
        await connect(database=alias)


async def test_a_table_that_goes_missing_is_an_outage(threads: Threads, tmp_path: Path) -> None:
    """The message waits: nobody has handled it, and it has not failed."""
    empty = {"postgres": "postgres", "mariadb": "mysql", "sqlite": str(tmp_path / "empty.sqlite3")}
    work = Work()

    with other_way(NAME=empty[settings.KIND]) as alias:

        def run() -> None:
            with pytest.raises(StoreUnavailable):
                exactly_once(alias).run(KEY, FIRST, threads.call(work))

        await elsewhere(run)
    assert work.runs == 0


@on_a_server
async def test_an_outage_of_another_database_is_no_failure_either(threads: Threads) -> None:
    with other_way(HOST="127.0.0.1", PORT=1) as alias:

        def run() -> None:
            work = Work(then=lambda: Effect.objects.using(alias).count())
            with pytest.raises(StoreUnavailable):
                exactly_once().run(KEY, FIRST, threads.call(work))

        await elsewhere(run)
    assert (await elsewhere(effects), await elsewhere(records)) == ([], 0)
