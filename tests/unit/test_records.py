"""Records that are made without their ``__init__`` are the same, and as frozen."""

from dataclasses import FrozenInstanceError

import pytest

from autosell_rmq.message import Message, Properties, Publication
from autosell_rmq.records import made


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        (Properties, {}),
        (Properties, {"correlation_id": "id", "headers": {"a": 1}}),
        (Message, {"queue": "orders", "body": b"1"}),
        (Publication, {"body": b"1", "routing_key": "orders", "mandatory": False}),
    ],
)
def test_it_is_what_its_init_makes(record: type, fields: dict[str, object]) -> None:
    ours: object = made(record, dict(fields))
    usual = record(**fields)

    assert ours == usual
    assert repr(ours) == repr(usual)


def test_it_cannot_be_changed() -> None:
    properties = made(Properties, {})
    with pytest.raises(FrozenInstanceError):
        setattr(properties, "correlation_id", "id")  # noqa: B010 - checkers refuse the plain form
