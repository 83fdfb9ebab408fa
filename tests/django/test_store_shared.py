"""Exactly-once runs that share a transaction: each fails alone, a crash of the transaction is nobody's."""

import asyncio
import secrets
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from django.db import IntegrityError, connection, transaction

from autosell_rmq import Abandoned, Call, InProgress, Reject, Stored, StoreUnavailable
from autosell_rmq.pipeline import NotStarted
from autosell_rmq_django.models import IdempotencyRecord, OutboxMessage
from autosell_rmq_django.store.shared import SharedTransactions
from tests.django.shop.models import Effect
from tests.django.store_fixtures import (
    FIRST,
    OTHER,
    Connect,
    Threads,
    Work,
    connect,
    done,
    effects,
    elsewhere,
    needs,
    short_waits,
    started,
    states,
    threads,
)
from tests.support.waiting import PATIENCE

__all__ = ["connect", "short_waits", "threads"]

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.timeout(60),
]


def keys(number: int) -> list[str]:
    return [secrets.token_hex(32) for _ in range(number)]


def write(key: str, *then: Callable[[], object]) -> Callable[[], bytes]:
    """A handler with an effect."""

    def run() -> bytes:
        Effect.objects.create(key=key, note="run")
        for each in then:
            each()
        return key.encode()

    return run


class Queue:
    """Calls of one queue, of which the first holds the transaction until the others wait for the next."""

    def __init__(self, threads: Threads, *, batch: int = 20) -> None:
        self.threads = threads
        self.batch = batch

    def call(self, function: Callable[[], bytes]) -> Call:
        return replace(self.threads.call(function), batch=self.batch)


@pytest.fixture
def queue(threads: Threads) -> Queue:
    return Queue(threads)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each transaction began with."""
    seen: list[int] = []
    transact = SharedTransactions._transact_all  # pyright: ignore[reportPrivateUsage]

    def watched(self: SharedTransactions, attempt: object, runs: list[object], answers: object) -> None:
        seen.append(len(runs))
        transact(self, attempt, runs, answers)  # type: ignore[arg-type]

    monkeypatch.setattr(SharedTransactions, "_transact_all", watched)
    return seen


async def test_many_share_one_transaction(connect: Connect, queue: Queue, shared: list[int]) -> None:
    store = await connect()
    many = keys(30)

    ended = await asyncio.gather(*(store.run_once(key, FIRST, queue.call(write(key))) for key in many))

    assert ended == [done(key.encode(), duplicate=False) for key in many]
    assert shared == [20, 10]
    assert len(await elsewhere(effects)) == 30
    rows = await elsewhere(lambda: list(IdempotencyRecord.objects.all()))
    assert {(row.state, row.queue, row.correlation_id) for row in rows} == {("done", "orders", "id-1")}
    again = await asyncio.gather(*(store.run_once(key, OTHER, queue.call(write(key))) for key in many))
    assert again == [done(key.encode(), duplicate=True) for key in many]
    assert len(await elsewhere(effects)) == 30


async def test_one_alone_waits_for_nobody(connect: Connect, queue: Queue, shared: list[int]) -> None:
    store = await connect()
    [key] = keys(1)

    assert not (await store.run_once(key, FIRST, queue.call(write(key)))).duplicate

    assert shared == []


async def test_one_that_fails_fails_alone(connect: Connect, queue: Queue) -> None:
    """Its effects, its rows of the outbox and its hooks go; so does its claim, at once."""
    from autosell_rmq_django import producer

    store = await connect()
    many = keys(6)
    hooks: list[str] = []

    def fail() -> None:
        raise Reject("not this one")

    def of(number: int, key: str) -> Callable[[], bytes]:
        def publish() -> None:
            producer.send_on_commit("audit", {"key": key}, outbox=True)
            transaction.on_commit(lambda: hooks.append(key))

        return write(key, publish, *([fail] if number % 2 else []))

    ended = await asyncio.gather(
        *(store.run_once(key, FIRST, queue.call(of(n, key))) for n, key in enumerate(many)),
        return_exceptions=True,
    )

    good = many[::2]
    assert [isinstance(each, Reject) for each in ended] == [False, True] * 3
    assert hooks == good
    assert await elsewhere(lambda: sorted(Effect.objects.values_list("key", flat=True))) == sorted(good)
    rows = await elsewhere(lambda: {row.key: row for row in IdempotencyRecord.objects.all()})
    assert set(rows) == set(good)
    outbox = await elsewhere(lambda: list(OutboxMessage.objects.values_list("record__key", flat=True)))
    assert sorted(outbox) == sorted(good)
    assert all(row.has_outbox for row in rows.values())
    again = await store.run_once(many[1], FIRST, queue.call(write(many[1])))
    assert not again.duplicate


async def test_duplicates_and_busy_ones_get_their_own_answers(
    connect: Connect, queue: Queue, shared: list[int]
) -> None:
    store = await connect()
    old, held, *new = keys(5)
    await store.run_once(old, FIRST, queue.call(lambda: b"\x00 first"))
    from autosell_rmq import Claim

    await store.claim(Claim(key=held, fingerprint=FIRST, token="theirs"))

    ended = await asyncio.gather(
        *(store.run_once(key, OTHER, queue.call(write(key))) for key in (old, held, *new)),
        store.run_once(new[0], OTHER, queue.call(write("twin"))),
        return_exceptions=True,
    )

    assert ended[0] == done(b"\x00 first", duplicate=True)
    assert isinstance(ended[1], InProgress)
    assert ended[2:5] == [done(key.encode(), duplicate=False, fingerprint=OTHER) for key in new]
    assert ended[5] == done(new[0].encode(), duplicate=True, fingerprint=OTHER)
    assert shared == [5]
    assert len(await elsewhere(effects)) == 3


async def test_a_hook_that_fails_takes_no_other_with_it(
    connect: Connect, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    store = await connect()
    many = keys(4)
    hooks: list[str] = []

    def of(number: int, key: str) -> Callable[[], bytes]:
        def hook() -> None:
            hooks.append(key)
            if number == 1:
                raise ValueError("a hook fails")

        return write(key, lambda: transaction.on_commit(hook))

    ended = await asyncio.gather(
        *(store.run_once(key, FIRST, queue.call(of(n, key))) for n, key in enumerate(many))
    )

    assert not any(each.duplicate for each in ended)
    assert hooks == many
    assert "a hook fails" in caplog.text


async def test_a_deadlock_lets_each_run_alone(connect: Connect, queue: Queue, shared: list[int]) -> None:
    from tests.django.test_store_restart import Unlucky

    store = await connect()
    many = keys(5)
    unlucky = Unlucky(1)

    ended = await asyncio.gather(
        *(
            store.run_once(key, FIRST, queue.call(write(key, *([unlucky] if n == 2 else []))))
            for n, key in enumerate(many)
        )
    )

    assert not any(each.duplicate for each in ended)
    assert (shared, unlucky.runs) == ([5], 2)
    assert sorted(await elsewhere(lambda: Effect.objects.values_list("key", flat=True).__iter__())) == sorted(
        many
    )


@needs("postgres", "sqlite", why="MariaDB checks no constraint at the commit")
async def test_a_constraint_that_fails_at_the_commit_is_the_failure_of_one(
    connect: Connect, queue: Queue
) -> None:
    store = await connect()
    many = keys(4)

    def dangling() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO django_admin_log (action_time, object_repr, action_flag, change_message,"
                " user_id) VALUES ('2026-01-01', '', 1, '', 987654)"
            )

    ended = await asyncio.gather(
        *(
            store.run_once(key, FIRST, queue.call(write(key, *([dangling] if n == 1 else []))))
            for n, key in enumerate(many)
        ),
        return_exceptions=True,
    )

    assert [isinstance(each, IntegrityError) for each in ended] == [False, True, False, False]
    assert len(await elsewhere(effects)) == 3


async def test_a_locked_key_is_the_business_of_one(
    connect: Connect, queue: Queue, threads: Threads, short_waits: None
) -> None:
    one, two = await connect(lock_timeout=1.0), await connect(lock_timeout=1.0)
    gate = threading.Event()
    locked, *free = keys(4)
    work = Work(b"first", gate=gate)
    running = asyncio.create_task(one.run_once(locked, FIRST, threads.call(work)))
    await started(work)

    ended = asyncio.gather(
        *(two.run_once(key, FIRST, queue.call(write(key))) for key in (locked, *free)),
        return_exceptions=True,
    )
    refused = await asyncio.wait_for(ended, 30)
    gate.set()
    await running

    assert isinstance(refused[0], InProgress)
    assert all(isinstance(each, Stored | InProgress) for each in refused[1:])


async def test_without_the_database_all_of_them_wait(
    connect: Connect, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await connect()
    many = keys(3)

    def lost(self: SharedTransactions, *_: object) -> None:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(SharedTransactions, "_transact_all", lost)
        ended = await asyncio.gather(
            *(store.run_once(key, FIRST, queue.call(write(key))) for key in many), return_exceptions=True
        )

    assert all(isinstance(each, StoreUnavailable) for each in ended)
    assert await elsewhere(states) == []


async def test_a_cancelled_caller_abandons_what_a_thread_has_in_hand(connect: Connect, queue: Queue) -> None:
    store = await connect()
    held, other, late = keys(3)
    gate = threading.Event()
    work = Work(b"held", gate=gate)
    runs = [
        asyncio.create_task(store.run_once(held, FIRST, queue.call(work))),
        asyncio.create_task(store.run_once(other, FIRST, queue.call(write(other)))),
    ]
    await started(work)

    runs[1].cancel()
    with pytest.raises(Abandoned) as caught:
        await runs[1]
    assert caught.value.thread is not None
    gate.set()

    assert await runs[0] == done(b"held", duplicate=False)
    assert await store.run_once(other, FIRST, queue.call(write(other))) == done(
        other.encode(), duplicate=True
    )
    assert not (await store.run_once(late, FIRST, queue.call(write(late)))).duplicate


async def test_one_cancelled_before_a_thread_has_it_does_not_run(connect: Connect) -> None:
    one = Threads(1)
    queue = Queue(one)
    store = await connect()
    busy = threading.Event()
    blocking = asyncio.create_task(one.run(lambda: busy.wait(PATIENCE)))
    first, second = keys(2)
    gone, stays = (
        asyncio.create_task(store.run_once(key, FIRST, queue.call(write(key)))) for key in (first, second)
    )
    for _ in range(5):
        await asyncio.sleep(0)

    gone.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await gone
    assert not isinstance(caught.value, Abandoned)
    busy.set()

    assert await stays == done(second.encode(), duplicate=False)
    assert await elsewhere(lambda: list(Effect.objects.values_list("key", flat=True))) == [second]
    await blocking
    await asyncio.to_thread(one.end)


async def test_what_no_thread_takes_up_is_given_back(connect: Connect) -> None:
    one = Threads(1)
    queue = Queue(one)
    store = await connect()
    busy = threading.Event()
    blocking = asyncio.create_task(one.run(lambda: busy.wait(PATIENCE)))
    runs = [asyncio.create_task(store.run_once(key, FIRST, queue.call(write(key)))) for key in keys(3)]
    for _ in range(5):
        await asyncio.sleep(0)

    stopped = one.pool.stop()
    busy.set()

    for run in runs:
        with pytest.raises(NotStarted):
            await run
    await blocking
    for thread in stopped:
        await asyncio.to_thread(thread.join, PATIENCE)
