"""What the outbox joins: the handler's transaction, and the moment before its reply."""

import asyncio
import datetime as dt
import threading
import uuid

import pytest
from django.utils import timezone

from autosell_rmq import InProgress, StoreUnavailable
from autosell_rmq_django.models import IdempotencyRecord, OutboxMessage
from autosell_rmq_django.store.context import CurrentTransaction, current_transaction, entered, mark_outbox
from tests.contract.store_fixtures import Work as AsyncWork
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
    record,
    threads,
)

__all__ = ["connect", "threads"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]


def write_message() -> None:
    """As the producer does inside a handler."""
    current = current_transaction()
    assert current is not None
    OutboxMessage.objects.using(current.alias).create(
        record_id=current.record_id,
        routing_key="events",
        body=b"{}",
        correlation_id="c",
        message_id=uuid.uuid4().hex,
        available=timezone.now(),
    )
    mark_outbox()


class Flush:
    """Marks the rows of a record as sent; fails first as often as it is told."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked: list[int] = []

    async def __call__(self, record_id: int) -> None:
        self.asked.append(record_id)
        if self.failures:
            raise self.failures.pop(0)
        await elsewhere(lambda: OutboxMessage.objects.filter(record_id=record_id).update(sent=timezone.now()))


async def test_the_transaction_is_known_to_the_handler_alone(connect: Connect, threads: Threads) -> None:
    store = await connect()
    seen: list[CurrentTransaction | None] = []

    def look() -> None:
        seen.append(current_transaction())
        other = threading.Thread(target=lambda: seen.append(current_transaction()))
        other.start()
        other.join()

    assert current_transaction() is None
    await store.run_once(KEY, FIRST, threads.call(Work(then=look)))
    await threads.run(lambda: seen.append(current_transaction()))

    row = await elsewhere(record)
    assert seen == [CurrentTransaction(alias="default", record_id=row.id), None, None]
    assert not row.has_outbox
    assert current_transaction() is None


def test_to_mark_needs_a_transaction() -> None:
    with pytest.raises(RuntimeError, match="no exactly-once handler"):
        mark_outbox()
    outer = CurrentTransaction(alias="default", record_id=1)
    with entered(outer), entered(CurrentTransaction(alias="other", record_id=2)):
        mark_outbox()
    assert not outer.has_outbox


async def test_messages_are_flushed_after_the_commit_and_before_the_result(
    connect: Connect, threads: Threads
) -> None:
    held, release = asyncio.Event(), asyncio.Event()

    async def flush(record_id: int) -> None:
        assert record_id == (await elsewhere(record)).id
        assert await elsewhere(effects) == ["1"]
        held.set()
        await release.wait()

    store = await connect(outbox_flush=flush)
    running = asyncio.create_task(store.run_once(KEY, FIRST, threads.call(Work(then=write_message))))
    await held.wait()
    assert not running.done()

    release.set()
    assert not (await running).duplicate
    assert (await elsewhere(record)).has_outbox


async def test_nothing_is_flushed_where_nothing_was_written(connect: Connect, threads: Threads) -> None:
    flush = Flush()
    store = await connect(outbox_flush=flush)

    for _ in range(2):
        await store.run_once(KEY, FIRST, threads.call(Work()))

    assert flush.asked == []


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(ConnectionError("no broker"), InProgress), (StoreUnavailable("no database"), StoreUnavailable)],
)
async def test_while_messages_are_unsent_there_is_no_result(
    connect: Connect, threads: Threads, failure: Exception, raised: type[Exception]
) -> None:
    flush = Flush(failure, failure)
    store = await connect(outbox_flush=flush)
    with pytest.raises(raised):
        await store.run_once(KEY, FIRST, threads.call(Work(b"result", then=write_message)))
    assert await elsewhere(effects) == ["1"]
    late = Work()
    with pytest.raises(raised):
        await store.run_once(KEY, FIRST, threads.call(late))

    assert await store.run_once(KEY, FIRST, threads.call(late)) == done(b"result", duplicate=True)

    assert late.runs == 0
    assert len(flush.asked) == 3
    await store.run_once(KEY, FIRST, threads.call(late))
    assert len(flush.asked) == 3, "they are sent: nothing is left to flush"


async def test_a_duplicate_under_a_lease_flushes_too(connect: Connect, threads: Threads) -> None:
    flush = Flush(ConnectionError("no broker"))
    store = await connect(outbox_flush=flush)
    with pytest.raises(InProgress):
        await store.run_once(KEY, FIRST, threads.call(Work(b"result", then=write_message)))

    assert (await store.run_once(KEY, FIRST, AsyncWork().call)).data == b"result"
    assert len(flush.asked) == 2


async def test_without_a_flush_the_relay_is_left_to_it(connect: Connect, threads: Threads) -> None:
    store = await connect()

    await store.run_once(KEY, FIRST, threads.call(Work(then=write_message)))

    assert (await store.run_once(KEY, FIRST, threads.call(Work()))).duplicate
    assert await elsewhere(lambda: OutboxMessage.objects.filter(sent=None).count()) == 1


async def test_a_failed_handler_leaves_no_message(connect: Connect, threads: Threads) -> None:
    flush = Flush()
    store = await connect(outbox_flush=flush)

    def write_and_fail() -> None:
        write_message()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.run_once(KEY, FIRST, threads.call(Work(then=write_and_fail)))

    assert await elsewhere(OutboxMessage.objects.count) == 0
    assert flush.asked == []


async def test_a_record_that_is_overwritten_has_no_messages(connect: Connect, threads: Threads) -> None:
    flush = Flush()
    store = await connect(outbox_flush=flush)
    await store.run_once(KEY, FIRST, threads.call(Work(then=write_message)))
    past = timezone.now() - dt.timedelta(hours=1)
    await elsewhere(lambda: IdempotencyRecord.objects.update(expires=past))

    await store.run_once(KEY, FIRST, threads.call(Work()))

    assert not (await elsewhere(record)).has_outbox
    assert len(flush.asked) == 1
