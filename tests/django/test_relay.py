"""The relay: what waits is sent, in the order of its key, by any number of relays, once if all is well."""

import asyncio
import datetime as dt
import logging
import threading
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connections, transaction
from django.utils import timezone

from autosell_rmq import BrokerUnavailable, PublishNacked, RabbitMQProducer
from autosell_rmq.testing import Faults, MemoryServer
from autosell_rmq_django import outbox, sending
from autosell_rmq_django.models import OutboxMessage
from autosell_rmq_django.publishing import producer
from autosell_rmq_django.relay import OutboxFlush, Relay
from autosell_rmq_django.store.context import CurrentTransaction, entered
from tests.django.outbox_fixtures import (
    BOTH,
    add_queue,
    connected,
    make_record,
    memory_setting,
    messages,
    quick,
    relay_until,
    rolled_back,
    run,
    sent,
    unsent,
)
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True, databases=BOTH)


@pytest.fixture(autouse=True)
def server() -> Iterator[MemoryServer]:
    with memory_setting() as server:
        yield server


def write(*payloads: object, key: str = "", queue: str = "orders", using: str = "default") -> None:
    with transaction.atomic(using=using):
        for data in payloads:
            producer.send_on_commit(queue, data, outbox=True, ordering_key=key, using=using)


def test_it_sends_and_marks_what_waits(server: MemoryServer) -> None:
    write(*range(10))

    relay_until(lambda: len(messages(server)) == 10)

    assert sent(server) == list(range(10))
    assert unsent() == []
    assert OutboxMessage.objects.filter(attempts=0, error="").count() == 10


def test_it_goes_on_with_what_comes_later(server: MemoryServer) -> None:
    def later() -> bool:
        if len(messages(server)) == 1:
            writer.start() if writer.ident is None else None
        return len(messages(server)) == 2

    def write_in_a_thread() -> None:
        write("second")
        connections.close_all()

    writer = threading.Thread(target=write_in_a_thread)
    write("first")

    relay_until(later)
    writer.join(PATIENCE)

    assert sent(server) == ["first", "second"]


def test_it_serves_every_database_that_has_an_outbox(server: MemoryServer) -> None:
    write("default")
    write("other", using="other")

    relay_until(lambda: len(messages(server)) == 2)

    assert sorted(sent(server)) == ["default", "other"]
    assert unsent() == unsent("other") == []


def test_what_a_crashed_handler_left_behind_is_sent_too(server: MemoryServer) -> None:
    record = CurrentTransaction(alias="default", record_id=make_record().pk)
    with transaction.atomic(), entered(record):
        for n in range(5):
            producer.send_on_commit("orders", n)

    relay_until(lambda: len(messages(server)) == 5)

    assert sent(server) == [0, 1, 2, 3, 4]
    assert unsent() == []


def test_what_is_not_committed_is_not_sent(server: MemoryServer) -> None:
    with rolled_back():
        producer.send_on_commit("orders", "never", outbox=True)
    write("always")

    relay_until(lambda: len(messages(server)) >= 1)

    assert sent(server) == ["always"]


# --- order ---------------------------------------------------------------------------------------


def test_a_failed_row_blocks_the_later_ones_of_its_key_only(server: MemoryServer) -> None:
    write("a1", key="a", queue="missing")
    write("a2", "a3", key="a")
    write("b1", "b2", key="b")
    write("free")

    relay_until(lambda: len(messages(server)) == 3)
    assert sorted(sent(server)) == ["b1", "b2", "free"]
    assert [bytes(row.body) for row in unsent()] == [b'"a1"', b'"a2"', b'"a3"']

    add_queue(server, "missing")
    relay_until(lambda: len(messages(server)) == 5)
    assert sent(server, "missing") == ["a1"]
    assert sent(server)[-2:] == ["a2", "a3"]


def test_a_blocked_key_does_not_fill_the_batch(server: MemoryServer) -> None:
    write("a0", key="a", queue="missing")
    write(*range(20), key="a")
    write("free")

    relay_until(lambda: len(messages(server)) == 1, settings=quick(batch=5))

    assert sent(server) == ["free"]


def test_the_order_of_a_key_outlasts_refusals(server: MemoryServer) -> None:
    for n in range(30):
        write([n % 3, n], key=f"key-{n % 3}")
    faults = Faults()
    for skip in range(0, 60, 2):
        faults.on("publish", before=PublishNacked, skip=skip)

    relay_until(lambda: len(messages(server)) == 30, relays=2, settings=quick(batch=7), faults=faults)

    for key in range(3):
        assert [n for of, n in sent(server) if of == key] == list(range(key, 30, 3))


def test_a_key_that_somebody_else_sends_is_left_alone(server: MemoryServer) -> None:
    """Their rows are skipped, for they are locked; the next ones of their key must not overtake them."""
    features = connections["default"].features
    if not features.has_select_for_update_skip_locked:
        pytest.skip("this database has no locks of rows")
    write("a1", key="a")
    write("a2", key="a")
    write("b1", key="b")
    locked, release = threading.Event(), threading.Event()

    def somebody_else() -> None:
        with transaction.atomic():
            [first] = outbox.lock("default", outbox.due("default", 1), wait=False)
            assert bytes(first.body) == b'"a1"'
            locked.set()
            release.wait(PATIENCE)
        connections.close_all()

    other = threading.Thread(target=somebody_else)
    other.start()
    try:
        assert locked.wait(PATIENCE)
        relay_until(lambda: len(messages(server)) == 1)
        assert sent(server) == ["b1"]
    finally:
        release.set()
        other.join(PATIENCE)

    relay_until(lambda: len(messages(server)) == 3)
    assert sent(server) == ["b1", "a1", "a2"]


# --- beside each other ---------------------------------------------------------------------------


def test_three_relays_send_each_row_once(server: MemoryServer) -> None:
    for n in range(0, 300, 10):
        write(*range(n, n + 10), key=f"key-{n % 4}" if n % 3 else "")

    relay_until(lambda: len(messages(server)) >= 300, relays=3, settings=quick(batch=7))

    assert sorted(sent(server)) == list(range(300))
    assert unsent() == []


def test_on_sqlite_they_do_so_in_any_mode_of_its_transactions(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DEFERRED is Django's default: a transaction that only reads at first locks nobody out."""
    if connections["default"].vendor != "sqlite":
        pytest.skip("SQLite only")
    monkeypatch.setitem(connections["default"].settings_dict["OPTIONS"], "transaction_mode", "DEFERRED")
    write(*range(100))

    relay_until(lambda: len(messages(server)) >= 100, relays=3, settings=quick(batch=7))

    assert sorted(sent(server)) == list(range(100))
    assert unsent() == []


def test_a_flush_and_relays_send_each_row_once(server: MemoryServer) -> None:
    records = []
    for n in range(40):
        record = CurrentTransaction(alias="default", record_id=make_record(key=f"k-{n}").pk)
        records.append(record.record_id)
        with transaction.atomic(), entered(record):
            for k in range(3):
                producer.send_on_commit("orders", [n, k], ordering_key="hot" if n % 2 else "")
    settings = quick(batch=5)

    async def main() -> None:
        async with connected(settings) as mine:
            relay, flush = Relay(mine, settings), OutboxFlush(mine, settings)
            running = asyncio.create_task(relay.run())
            await asyncio.gather(*(flush(record) for record in records))
            assert len(messages(server)) >= 120, "each flush returned when its rows were sent"
            relay.stop()
            await running

    run(main())

    assert sorted(sent(server)) == sorted([n, k] for n in range(40) for k in range(3))
    hot = [pair for pair in sent(server) if pair[0] % 2]
    assert hot == sorted(hot)
    assert unsent() == []


# --- failures ------------------------------------------------------------------------------------


def test_an_unroutable_row_is_kept_and_reported_and_tried_again(
    server: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    write("kept", queue="missing")

    def alarms() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.levelno == logging.ERROR]

    relay_until(lambda: len(alarms()) >= 2)

    [row] = unsent()
    assert row.attempts >= 2
    assert row.error.startswith("PublishUnroutable: ")
    assert repr(row.message_id) in alarms()[0].getMessage()
    assert row.available > timezone.now() - dt.timedelta(minutes=1)


def test_a_failed_row_waits_longer_each_time() -> None:
    write("kept")
    [row] = unsent()
    waits = []
    for attempts in range(3):
        row.attempts = attempts
        outbox.mark_failed("default", row, ValueError("a\0b\ud800"), wait=60.0 * (attempts + 1))
        row.refresh_from_db()
        waits.append((row.available - timezone.now()).total_seconds())

    assert [round(wait / 60) for wait in waits] == [1, 2, 3]
    assert (row.attempts, row.error) == (3, "ValueError: a\\0b\\ud800")
    assert outbox.due("default", 1) == []


def test_the_broker_is_not_asked_for_every_row_of_an_outage(server: MemoryServer) -> None:
    write(*range(50), key="a")
    write(*range(50, 60))
    faults = Faults()
    faults.on("publish", before=BrokerUnavailable, times=3)

    relay_until(lambda: len(messages(server)) == 60, faults=faults)

    assert [n for n in sent(server) if n < 50] == list(range(50))
    assert sorted(sent(server)) == list(range(60))


def test_the_rows_of_an_outage_wait_and_their_locks_do_not(server: MemoryServer) -> None:
    with transaction.atomic():
        producer.send_on_commit("orders", "later", outbox=True, outage_timeout=60)
    faults = Faults()
    faults.on("publish", before=BrokerUnavailable, times=2)

    relay_until(lambda: len(messages(server)) == 1, faults=faults)

    assert faults.passed.count("publish:before") == 3
    assert OutboxMessage.objects.get().attempts == 2  # each its own transaction


def test_a_confirm_that_was_lost_is_a_duplicate_under_the_same_ids(server: MemoryServer) -> None:
    write("once or twice")
    faults = Faults()
    faults.on("publish", after=BrokerUnavailable)

    relay_until(lambda: len(messages(server)) == 2, faults=faults)

    first, second = messages(server)
    assert (first.message_id, first.correlation_id) == (second.message_id, second.correlation_id)


def test_a_database_that_does_not_answer_is_asked_again(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write("later")
    answers, due = iter([False, False]), outbox.due

    def out_for_a_while(using: str, limit: int) -> list[outbox.Candidate]:
        if next(answers, True):
            return due(using, limit)
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(outbox, "due", out_for_a_while)

    relay_until(lambda: len(messages(server)) == 1)

    assert sent(server) == ["later"]
    assert "server closed the connection" in caplog.text


def test_sqlite_is_not_locked_for_as_long_as_a_broker_is_silent(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if connections["default"].features.has_select_for_update:
        pytest.skip("this database locks rows")
    monkeypatch.setattr(sending, "_LOCKED_PATIENCE", 0.05)
    write("late")
    faults = Faults()
    faults.hold("publish", times=2)

    relay_until(lambda: len(messages(server)) == 1, faults=faults)

    assert caplog.text.count("TimeoutError") == 2


# --- its end -------------------------------------------------------------------------------------


def test_a_stop_finishes_the_rows_in_hand(server: MemoryServer) -> None:
    write(*range(3), key="a")
    faults = Faults()
    hold = faults.hold("publish")
    settings = quick()

    async def main() -> None:
        async with connected(settings, faults) as mine:
            relay = Relay(mine, settings)
            running = asyncio.create_task(relay.run())
            await hold.reached.wait()
            relay.stop()
            hold.released.set()
            await running

    run(main())

    assert sent(server) == [0]
    assert [bytes(row.body) for row in unsent()] == [b"1", b"2"]


def test_a_cancellation_marks_what_was_confirmed(server: MemoryServer) -> None:
    write(*range(3), key="a")
    faults = Faults()
    hold = faults.hold("publish", skip=1)
    settings = quick()

    async def main() -> None:
        async with connected(settings, faults) as mine:
            running = asyncio.create_task(Relay(mine, settings).run())
            await hold.reached.wait()
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()

    run(main())

    assert sent(server) == [0]
    assert [bytes(row.body) for row in unsent()] == [b"1", b"2"]


def test_a_stop_ends_the_pause_between_two_looks(server: MemoryServer) -> None:
    write("first")

    relay_until(lambda: len(messages(server)) == 1, settings=quick(interval=3600.0))

    assert unsent() == []


def test_a_stop_before_the_start_ends_it() -> None:
    async def main() -> None:
        async with RabbitMQProducer(quick().url) as mine:
            relay = Relay(mine, quick())
            relay.stop()
            await relay.run()

    run(main())


# --- what was sent -------------------------------------------------------------------------------


def test_sent_rows_are_deleted_when_they_are_old(server: MemoryServer) -> None:
    write("old", "recent")
    relay_until(lambda: len(messages(server)) == 2)
    old, recent = OutboxMessage.objects.order_by("id")
    long_ago = timezone.now() - dt.timedelta(hours=2)
    OutboxMessage.objects.filter(pk=old.pk).update(sent=long_ago)
    write("a waiting one, written long ago", queue="missing")
    OutboxMessage.objects.filter(sent=None).update(created=long_ago, available=long_ago)

    assert outbox.delete_sent("default", older_than=3600, limit=10) == 1
    assert outbox.delete_sent("default", older_than=3600, limit=10) == 0

    assert OutboxMessage.objects.order_by("id")[0] == recent
    assert OutboxMessage.objects.count() == 2


def test_the_relay_deletes_them_batch_by_batch(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    write(*range(5))
    relay_until(lambda: len(messages(server)) == 5)
    OutboxMessage.objects.update(sent=timezone.now() - dt.timedelta(hours=2))
    deleted: list[int] = []
    delete_sent = outbox.delete_sent

    def seen(using: str, *, older_than: float, limit: int) -> int:
        count = delete_sent(using, older_than=older_than, limit=2)
        if using == "default":
            deleted.append(count)
        return count if count < 2 else limit

    monkeypatch.setattr(outbox, "delete_sent", seen)

    relay_until(lambda: len(deleted) >= 3)

    assert deleted == [2, 2, 1]
    assert not OutboxMessage.objects.exists()
