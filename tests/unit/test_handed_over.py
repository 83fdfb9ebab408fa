"""The copy of a message that a handler gets."""

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from autosell_rmq import Message
from autosell_rmq.message import NO_PRODUCER, NO_SYNC_PRODUCER, Properties
from autosell_rmq.pipeline.context import handed_over

ADDED: dict[str, Any] = {
    "attempt": 3,
    "idempotency_key": "key",
    "producer": NO_PRODUCER,
    "sync_producer": NO_SYNC_PRODUCER,
}


def test_it_has_every_field_of_the_message_and_what_was_added() -> None:
    message = Message(
        queue="orders",
        body=b"1",
        exchange="events",
        routing_key="a.b",
        properties=Properties(correlation_id="id"),
        redelivered=True,
        delivery_count=2,
    )
    copy = handed_over(message, **ADDED)
    expected = replace(message, **ADDED)

    assert all(getattr(copy, field.name) is getattr(expected, field.name) for field in fields(Message))
    assert copy == expected
    assert hash(copy.body) == hash(expected.body)
    assert message.attempt == 1


def test_it_cannot_be_changed_either() -> None:
    copy = handed_over(Message(queue="orders", body=b"1"), **ADDED)
    with pytest.raises(FrozenInstanceError):
        copy.attempt = 4  # type: ignore[misc]
