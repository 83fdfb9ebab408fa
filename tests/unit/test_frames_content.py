"""Properties against the client library's own decoder, and properties that nobody can read."""

import datetime as dt
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from autosell_rmq.brokers.rabbitmq.frames import decode_properties
from autosell_rmq.message import NO_HEADERS, Properties
from tests.unit.test_frames_fields import SCALARS, TIMES, tables

SHORT = st.none() | st.text(min_size=1, max_size=60)
TEXTS = [
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "message_id",
    "message_type",
    "user_id",
    "app_id",
]
WIRE = st.fixed_dictionaries(
    {
        **dict.fromkeys(TEXTS, SHORT),
        "headers": st.none() | tables(SCALARS),
        "delivery_mode": st.sampled_from([None, 1, 2]),
        "priority": st.none() | st.integers(0, 255),
        "expiration": st.none() | st.integers(0, 2**40).map(str),
        "timestamp": st.none() | TIMES,
    }
)


def header(size: int = 0, **properties: Any) -> bytes:  # noqa: ANN401 - as the oracle takes them
    return ContentHeader(0, size, Basic.Properties(**properties)).marshal()


def decoded(raw: bytes) -> tuple[Properties, list[str]]:
    problems: list[str] = []
    return decode_properties(raw, problems), problems


@given(WIRE)
def test_every_property_is_read_as_the_client_library_reads_it(wire: dict[str, Any]) -> None:
    raw = header(7, **wire)
    oracle = ContentHeader()
    oracle.unmarshal(raw)
    expected = oracle.properties

    found, problems = decoded(raw)

    assert problems == []
    for name in TEXTS:
        assert getattr(found, "type" if name == "message_type" else name) == getattr(expected, name)
    assert found.headers == (expected.headers or NO_HEADERS)
    assert found.persistent == (expected.delivery_mode == 2)
    assert found.priority == expected.priority
    assert found.timestamp == expected.timestamp
    assert found.expiration == (int(wire["expiration"]) / 1000 if wire["expiration"] else None)


@given(WIRE, st.data())
def test_properties_that_are_cut_off_are_told_and_never_raise(
    wire: dict[str, Any], data: st.DataObject
) -> None:
    raw = header(**wire)
    cut = data.draw(st.integers(0, len(raw) - 1))

    assert decoded(raw[:cut])[1]


@given(st.binary(min_size=0, max_size=300))
def test_any_bytes_are_properties_with_or_without_problems(raw: bytes) -> None:
    decoded(raw)
    decoded(bytes(12) + raw)


def test_what_follows_a_table_that_cannot_be_read_is_read() -> None:
    raw = header(headers={"a": 1, "b": "x"}, correlation_id="id", app_id="shop")
    broken = raw.replace(b"\x01bS", b"\x01b?")

    found, problems = decoded(broken)

    assert problems == ["a header is of the unknown type '?'"]
    assert (found.headers, found.correlation_id, found.app_id) == ({"a": 1}, "id", "shop")


def test_a_text_that_is_no_utf8_is_shown_escaped_and_told() -> None:
    raw = header(correlation_id="m?sli", app_id="shop")

    found, problems = decoded(raw.replace(b"m?sli", b"m\xfcsli"))

    assert (found.correlation_id, found.app_id) == ("m\\xfcsli", "shop")
    assert problems == ["correlation_id is no UTF-8"]


def test_an_expiration_that_is_no_utf8_is_told() -> None:
    raw = header(expiration="1?00", app_id="shop")

    found, problems = decoded(raw.replace(b"1?00", b"1\xfc00"))

    assert (found.expiration, found.app_id) == (None, "shop")
    assert problems == ["expiration is no UTF-8"]


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, 1_700_000_000 * 10**9])
def test_a_timestamp_beyond_the_calendar_is_told(value: int) -> None:
    raw = header(timestamp=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), app_id="shop")
    at = raw.index(b"\x04shop") - 8

    found, problems = decoded(raw[:at] + struct.pack(">Q", value) + raw[at + 8 :])

    assert (found.timestamp, found.app_id) == (None, "shop")
    assert problems == [f"the timestamp {value} is beyond the calendar"]


def test_a_timestamp_in_milliseconds_is_understood() -> None:
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    raw = header(timestamp=moment)

    found, problems = decoded(raw[:-8] + struct.pack(">Q", int(moment.timestamp() * 1000)))

    assert (found.timestamp, problems) == (moment, [])


def test_properties_of_another_protocol_are_told() -> None:
    assert decoded(struct.pack(">HHQH", 60, 0, 0, 0x8001) + b"\x01a")[1] == [
        "there are properties that AMQP 0-9-1 does not know"
    ]


def test_no_properties_are_no_problem() -> None:
    assert decoded(header()) == (Properties(persistent=False), [])
