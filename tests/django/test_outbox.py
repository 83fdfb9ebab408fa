"""The outbox: rows in the transaction of their cause; in an exactly-once handler without being asked."""

import datetime as dt
from collections.abc import Iterator

import pytest
from django.db import transaction

from autosell_rmq import (
    BrokerUnavailable,
    EncodeError,
    PublishError,
    PublishNacked,
    PublishUnknown,
    PublishUnroutable,
)
from autosell_rmq.testing import Faults, MemoryServer
from autosell_rmq_django import outbox
from autosell_rmq_django.models import OutboxMessage
from autosell_rmq_django.publishing import producer
from autosell_rmq_django.store.context import CurrentTransaction, entered
from tests.django.outbox_fixtures import (
    BOTH,
    add_event_queue,
    add_queue,
    flush,
    make_record,
    memory_setting,
    messages,
    quick,
    rolled_back,
    sent,
    unsent,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=BOTH)


@pytest.fixture(autouse=True)
def server() -> Iterator[MemoryServer]:
    with memory_setting() as server:
        yield server


def in_handler(*, using: str = "default", key: str = "k") -> CurrentTransaction:
    """What the store says while an exactly-once handler runs."""
    return CurrentTransaction(alias=using, record_id=make_record(using, key).pk)


# --- outside of a handler ------------------------------------------------------------------------


def test_outbox_writes_a_row_in_the_callers_transaction(server: MemoryServer) -> None:
    with transaction.atomic():
        correlation_id = producer.send_on_commit("orders", {"id": 1}, outbox=True, ordering_key="order-1")
        [row] = unsent()

    assert sent(server) == []
    assert (row.exchange, row.routing_key, bytes(row.body)) == ("", "orders", b'{"id":1}')
    assert (row.correlation_id, row.ordering_key, row.record) == (correlation_id, "order-1", None)
    assert (row.sent, row.attempts, row.error) == (None, 0, "")


def test_a_rollback_takes_the_row_with_it() -> None:
    with rolled_back():
        producer.send_on_commit("orders", 1, outbox=True)

    assert unsent() == []


def test_the_row_is_in_the_database_of_its_transaction() -> None:
    with rolled_back(), transaction.atomic(using="other"):
        producer.send_on_commit("orders", 1, outbox=True)
        producer.send_on_commit("orders", 2, outbox=True, using="other")

    assert unsent() == []
    assert [bytes(row.body) for row in unsent("other")] == [b"2"]


def test_what_is_wrong_is_told_when_the_row_is_written() -> None:
    with transaction.atomic():
        with pytest.raises(EncodeError):
            producer.send_on_commit("orders", object(), outbox=True)
        with pytest.raises(EncodeError, match="NUL"):
            producer.send_on_commit("orders", 1, outbox=True, correlation_id="a\0b")
        with pytest.raises(EncodeError, match="NUL"):
            producer.send_on_commit("orders", 1, outbox=True, headers={"a": {"b": "\0"}})
        with pytest.raises(EncodeError, match="headers"):
            producer.send_on_commit("orders", 1, outbox=True, headers={"a": object()})
        with pytest.raises(EncodeError, match="headers"):
            producer.send_on_commit("orders", 1, outbox=True, headers={"a": float("inf")})
        with pytest.raises(EncodeError, match="Unicode"):
            producer.send_on_commit("orders", 1, outbox=True, headers={"a": "\ud800"})
        with pytest.raises(EncodeError, match="ordering_key"):
            producer.send_on_commit("orders", 1, outbox=True, ordering_key="x" * 256)

    assert unsent() == []


def test_odd_text_and_large_numbers_come_through(server: MemoryServer) -> None:
    data = {"nul": "a\0b", "emoji": "🐇", "huge": 10**30, "float": 1e16, "text": "NaN"}
    record = in_handler()
    with transaction.atomic(), entered(record):
        producer.send_on_commit("orders", data, correlation_id="Идентификатор-🐇")

    flush(record.record_id)

    assert sent(server) == [data]
    assert messages(server)[0].correlation_id == "Идентификатор-🐇"


# --- inside an exactly-once handler --------------------------------------------------------------


def test_in_a_handler_it_becomes_a_row_of_its_record(server: MemoryServer) -> None:
    record = in_handler()
    with transaction.atomic(), entered(record):
        producer.send_on_commit("orders", 1)

    [row] = unsent()
    assert row.record is not None
    assert row.record.pk == record.record_id
    assert record.has_outbox
    assert sent(server) == []


def test_of_another_database_it_waits_for_that_ones_commit(server: MemoryServer) -> None:
    record = in_handler()
    with transaction.atomic(), entered(record):
        with transaction.atomic(using="other"):
            producer.send_on_commit("orders", 1, using="other")
            assert sent(server) == []
        assert sent(server) == [1]

    assert not record.has_outbox
    assert unsent() == unsent("other") == []


def test_a_row_of_another_database_is_not_of_the_record() -> None:
    record = in_handler()
    with transaction.atomic(), entered(record), transaction.atomic(using="other"):
        producer.send_on_commit("orders", 1, using="other", outbox=True)

    assert not record.has_outbox
    assert [row.record for row in unsent("other")] == [None]


def test_a_plain_send_in_a_handler_goes_out_at_once(server: MemoryServer) -> None:
    record = in_handler()
    with rolled_back(), entered(record):
        producer.send_fire_and_forget("orders", "too early")

    assert sent(server) == ["too early"]


def test_a_failing_handler_leaves_no_row() -> None:
    record = in_handler()
    with rolled_back(), entered(record):
        producer.send_on_commit("orders", 1)

    assert unsent() == []


# --- the flush -----------------------------------------------------------------------------------


def test_the_flush_sends_in_order_and_marks(server: MemoryServer) -> None:
    record = in_handler()
    add_event_queue(server, "billing", "events", "order.*")
    with transaction.atomic(), entered(record):
        for n in range(5):
            producer.send_on_commit("orders", n)
        producer.publish_on_commit("events", "order.created", {"id": 1})

    flush(record.record_id)

    assert sent(server) == [0, 1, 2, 3, 4]
    assert sent(server, "billing") == [{"id": 1}]
    assert unsent() == []
    assert OutboxMessage.objects.filter(sent__isnull=False).count() == 6


def test_a_second_flush_sends_nothing_again(server: MemoryServer) -> None:
    record = in_handler()
    with transaction.atomic(), entered(record):
        producer.send_on_commit("orders", 1)

    flush(record.record_id)
    flush(record.record_id)

    assert sent(server) == [1]


def test_more_rows_than_a_batch_are_flushed_in_batches(server: MemoryServer) -> None:
    record = in_handler()
    with transaction.atomic(), entered(record):
        for n in range(7):
            producer.send_on_commit("orders", n)

    flush(record.record_id, settings=quick(batch=3))

    assert sent(server) == list(range(7))


def test_other_records_are_not_flushed(server: MemoryServer) -> None:
    mine, other = in_handler(key="a"), in_handler(key="b")
    for record, data in ((other, "other"), (mine, "mine")):
        with transaction.atomic(), entered(record):
            producer.send_on_commit("orders", data)

    flush(mine.record_id)

    assert sent(server) == ["mine"]
    assert [bytes(row.body) for row in unsent()] == [b'"other"']


def test_earlier_rows_of_its_key_go_before(server: MemoryServer) -> None:
    mine, other = in_handler(key="a"), in_handler(key="b")
    for record, data in ((other, "earlier"), (mine, "mine"), (other, "later")):
        with transaction.atomic(), entered(record):
            producer.send_on_commit("orders", data, ordering_key="order-1")

    flush(mine.record_id)

    assert sent(server) == ["earlier", "mine"]


def test_the_ids_and_options_of_the_call_are_those_of_the_message(server: MemoryServer) -> None:
    record = in_handler()
    deadline = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
    headers = {
        "bytes": b"\xff",
        "when": deadline,
        "table": {"$base64": "no tag"},
        "list": [1, None, True, 1.5],
    }
    with transaction.atomic(), entered(record):
        producer.send_on_commit(
            "orders",
            1,
            correlation_id="flow",
            message_id="m-1",
            headers=headers,
            priority=3,
            ttl=60.5,
            type="order",
            deadline=deadline,
        )

    flush(record.record_id)

    [message] = messages(server)
    properties = message.properties
    assert (message.correlation_id, message.message_id) == ("flow", "m-1")
    assert {name: message.headers[name] for name in headers} == headers
    assert (properties.priority, properties.expiration, properties.type) == (3, 60.5, "order")
    assert message.deadline == deadline
    assert properties.content_type == "application/json"


def test_an_event_that_nobody_needs_may_go(server: MemoryServer) -> None:
    record = in_handler()
    with transaction.atomic(), entered(record):
        producer.publish_on_commit("events", "nobody", 1, mandatory=False)

    flush(record.record_id)

    assert unsent() == []


def test_a_delay_counts_from_the_call(server: MemoryServer) -> None:
    record = in_handler()
    before = dt.datetime.now(dt.UTC)
    with transaction.atomic(), entered(record):
        producer.send_on_commit("orders", 1, delay=3600)
    after = dt.datetime.now(dt.UTC)

    [row] = unsent()
    due = outbox.restored(row).options.get("deliver_at")
    assert due is not None
    assert before <= due - dt.timedelta(hours=1) <= after


# --- what cannot be sent -------------------------------------------------------------------------


def test_an_unroutable_row_is_kept_reported_and_holds_nothing_up(
    server: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    record = in_handler()
    with transaction.atomic(), entered(record):
        producer.send_on_commit("nobody", "kept", message_id="m-1", correlation_id="c-1")
        producer.send_on_commit("orders", "sent")

    flush(record.record_id)

    [row] = unsent()
    assert bytes(row.body) == b'"kept"'
    assert row.attempts == 1
    assert PublishUnroutable.__name__ in row.error
    assert sent(server) == ["sent"]
    [alarm] = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "'m-1'" in alarm.getMessage()
    assert "'c-1'" in alarm.getMessage()


def test_the_next_flush_sends_what_can_be_sent_by_then(server: MemoryServer) -> None:
    record = in_handler()
    with transaction.atomic(), entered(record):
        producer.send_on_commit("late", "kept", message_id="m-1")
    flush(record.record_id)
    add_queue(server, "late")

    flush(record.record_id)

    assert [message.message_id for message in messages(server, "late")] == ["m-1"]
    assert unsent() == []


def test_an_unroutable_row_keeps_the_later_ones_of_its_key(server: MemoryServer) -> None:
    record = in_handler()
    with transaction.atomic(), entered(record):
        producer.send_on_commit("nobody", 1, ordering_key="a")
        producer.send_on_commit("orders", 2, ordering_key="a")
        producer.send_on_commit("orders", 3, ordering_key="b")

    flush(record.record_id)

    assert sent(server) == [3]
    assert [row.attempts for row in unsent()] == [1, 0]


def test_an_outage_raises_and_the_next_flush_sends_the_same_message(server: MemoryServer) -> None:
    record = in_handler()
    with transaction.atomic(), entered(record):
        for n in range(3):
            producer.send_on_commit("orders", n, message_id=f"m-{n}")
    faults = Faults()
    faults.on("publish", before=BrokerUnavailable, skip=1)

    with pytest.raises(BrokerUnavailable):
        flush(record.record_id, faults=faults)
    assert sent(server) == [0]
    assert [(row.message_id, row.attempts) for row in unsent()] == [("m-1", 1), ("m-2", 0)]

    flush(record.record_id)
    assert [message.message_id for message in messages(server)] == ["m-0", "m-1", "m-2"]


@pytest.mark.parametrize("error", [PublishUnknown, PublishNacked])
def test_what_may_go_better_next_time_keeps_the_order(
    server: MemoryServer, error: type[PublishError]
) -> None:
    record = in_handler()
    with transaction.atomic(), entered(record):
        producer.send_on_commit("orders", 0)
        producer.send_on_commit("orders", 1)
    faults = Faults()
    faults.on("publish", before=error)

    with pytest.raises(error):
        flush(record.record_id, faults=faults)
    assert sent(server) == []

    flush(record.record_id)
    assert sent(server) == [0, 1]


def test_a_confirm_that_was_lost_is_a_duplicate_under_the_same_ids(server: MemoryServer) -> None:
    record = in_handler()
    with transaction.atomic(), entered(record):
        producer.send_on_commit("orders", 1)
    faults = Faults()
    faults.on("publish", after=PublishUnknown)

    with pytest.raises(PublishUnknown):
        flush(record.record_id, faults=faults)
    flush(record.record_id)

    first, second = messages(server)
    assert (first.message_id, first.correlation_id) == (second.message_id, second.correlation_id)


def test_the_flush_serves_the_database_of_its_store(server: MemoryServer) -> None:
    record = in_handler(using="other")
    with transaction.atomic(using="other"), entered(record):
        producer.send_on_commit("orders", 1, using="other")

    flush(record.record_id, using="other")

    assert sent(server) == [1]
    assert unsent("other") == []
