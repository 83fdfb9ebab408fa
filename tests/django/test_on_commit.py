"""send_on_commit: after the commit of its transaction, not at all after a rollback, at once without one."""

import logging
from collections.abc import Iterator

import pytest
from django.db import connections, transaction
from django.test import TestCase
from django.utils.connection import ConnectionDoesNotExist

from autosell_rmq import ConfigError, EncodeError, MessageTooLarge, PublishUnroutable
from autosell_rmq.testing import MemoryServer
from autosell_rmq_django.publishing import producer
from tests.django.outbox_fixtures import BOTH, add_event_queue, memory_setting, messages, rolled_back, sent
from tests.django.shop.models import Effect

pytestmark = pytest.mark.django_db(transaction=True, databases=BOTH)


@pytest.fixture(autouse=True)
def server() -> Iterator[MemoryServer]:
    with memory_setting() as server:
        yield server


def test_it_is_sent_after_the_commit_and_not_before(server: MemoryServer) -> None:
    with transaction.atomic():
        Effect.objects.create(key="a")
        correlation_id = producer.send_on_commit("orders", {"id": 1}, headers={"tenant": "x"})
        assert sent(server) == []

    [message] = messages(server)
    assert sent(server) == [{"id": 1}]
    assert message.correlation_id == correlation_id
    assert message.headers["tenant"] == "x"


def test_an_event_is_published_after_the_commit(server: MemoryServer) -> None:
    add_event_queue(server, "billing", "events", "order.*")

    with transaction.atomic():
        producer.publish_on_commit("events", "order.created", {"id": 1}, correlation_id="flow")
        assert sent(server, "billing") == []

    [message] = messages(server, "billing")
    assert (message.exchange, message.routing_key, message.correlation_id) == (
        "events",
        "order.created",
        "flow",
    )


def test_after_a_rollback_it_is_not_sent(server: MemoryServer) -> None:
    with rolled_back():
        producer.send_on_commit("orders", 1)

    assert sent(server) == []


def test_a_savepoint_rolls_back_its_own_only(server: MemoryServer) -> None:
    with transaction.atomic():
        producer.send_on_commit("orders", "kept")
        with rolled_back():
            producer.send_on_commit("orders", "dropped")

    assert sent(server) == ["kept"]


def test_without_a_transaction_it_is_sent_at_once(server: MemoryServer) -> None:
    producer.send_on_commit("orders", 1)

    assert sent(server) == [1]


def test_without_a_transaction_no_database_is_touched(server: MemoryServer) -> None:
    connections["other"].close()

    producer.send_on_commit("orders", 1, using="other")

    assert connections["other"].connection is None


def test_without_a_transaction_its_error_is_the_callers() -> None:
    with pytest.raises(PublishUnroutable):
        producer.send_on_commit("nobody", 1)


def test_with_autocommit_turned_off_nobody_would_ever_send_it(server: MemoryServer) -> None:
    transaction.set_autocommit(False)
    try:
        with pytest.raises(transaction.TransactionManagementError):
            producer.send_on_commit("orders", 1)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)

    assert sent(server) == []


def test_each_database_has_its_own_transaction(server: MemoryServer) -> None:
    with transaction.atomic(using="other"):
        producer.send_on_commit("orders", "default has none")
        assert sent(server) == ["default has none"]
        with rolled_back():
            producer.send_on_commit("orders", "default, rolled back")
            producer.send_on_commit("orders", "other, committed", using="other")
        assert sent(server) == ["default has none"]

    assert sent(server) == ["default has none", "other, committed"]


def test_an_unknown_database_is_named() -> None:
    with pytest.raises(ConnectionDoesNotExist, match="nowhere"):
        producer.send_on_commit("orders", 1, using="nowhere")


def test_the_order_of_the_calls_is_kept(server: MemoryServer) -> None:
    with transaction.atomic():
        for n in range(5):
            producer.send_on_commit("orders", n)

    assert sent(server) == [0, 1, 2, 3, 4]


def test_data_that_changes_later_is_sent_as_it_was(server: MemoryServer) -> None:
    data = {"state": "new"}
    with transaction.atomic():
        producer.send_on_commit("orders", data)
        data["state"] = "changed"

    assert sent(server) == [{"state": "new"}]


def test_what_cannot_be_encoded_fails_the_call(server: MemoryServer) -> None:
    with transaction.atomic():
        with pytest.raises(EncodeError):
            producer.send_on_commit("orders", object())
        with pytest.raises(EncodeError, match="NaN"):
            producer.send_on_commit("orders", float("nan"))
        with pytest.raises(EncodeError, match="correlation_id is 300 bytes"):
            producer.send_on_commit("orders", 1, correlation_id="x" * 300)

    assert sent(server) == []


def test_what_is_too_large_fails_the_call() -> None:
    with memory_setting(MAX_BODY_BYTES=10), transaction.atomic(), pytest.raises(MessageTooLarge):
        producer.send_on_commit("orders", "x" * 10)


def test_a_wrong_option_fails_the_call() -> None:
    with transaction.atomic():
        with pytest.raises(ConfigError, match="reserved"):
            producer.send_on_commit("orders", 1, headers={"x-autosell-due": 1})
        with pytest.raises(ConfigError, match="delay"):
            producer.send_on_commit("orders", 1, delay=-1)
        with pytest.raises(ConfigError, match="exchange_type"):
            producer.publish_on_commit("events", "a", 1, exchange_type="nonsense")
        with pytest.raises(ConfigError, match="outbox=True"):
            producer.send_on_commit("orders", 1, ordering_key="order-1")


def test_a_failing_send_does_not_reach_the_commit(
    server: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "autosell_rmq_django"), transaction.atomic():
        Effect.objects.create(key="a")
        correlation_id = producer.send_on_commit("nobody", 1, message_id="m-1")
        producer.send_on_commit("orders", "the next one")

    assert Effect.objects.count() == 1
    assert sent(server) == ["the next one"]
    [record] = [r for r in caplog.records if r.name == "autosell_rmq_django.publishing"]
    assert "'m-1'" in record.getMessage()
    assert correlation_id in record.getMessage()


class InsideTestCase(TestCase):
    """A transaction that is never committed: Django's own tool says what would have been sent."""

    databases = set(BOTH)  # noqa: RUF012 - as Django has it

    def test_captured_callbacks_are_what_sends(self) -> None:
        with memory_setting() as server:
            with self.captureOnCommitCallbacks() as callbacks:
                producer.send_on_commit("orders", 1)
            assert len(callbacks) == 1
            assert sent(server) == []

            with self.captureOnCommitCallbacks(execute=True):
                producer.send_on_commit("orders", 2)
            assert sent(server) == [2]

    def test_captured_by_database(self) -> None:
        with memory_setting() as server:
            with self.captureOnCommitCallbacks(using="other", execute=True) as callbacks:
                producer.send_on_commit("orders", "default")
                producer.send_on_commit("orders", "other", using="other")
            assert len(callbacks) == 1
            assert sent(server) == ["other"]
