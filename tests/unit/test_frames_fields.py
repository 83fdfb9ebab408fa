"""Header tables against the client library's own encoder and decoder, and tables that nobody can read."""

import datetime as dt
import struct
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode, encode

from autosell_rmq.brokers.rabbitmq.frames.fields import MAX_DEPTH, encode_table, read_table
from autosell_rmq.exceptions import EncodeError

NAMES = st.text(max_size=30).filter(lambda name: len(name.encode()) <= 120)
TIMES = st.integers(100_000, 2**32 - 1).map(lambda seconds: dt.datetime.fromtimestamp(seconds, dt.UTC))
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=20),
    TIMES,
    st.decimals(0, 2**31 - 1, places=0),
    st.decimals(0, 10_000, places=3),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def tables(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
        max_leaves=12,
    )
    return st.dictionaries(NAMES, values, max_size=6)


def read(raw: bytes) -> tuple[dict[str, object], list[str]]:
    table: dict[str, object] = {}
    problems: list[str] = []
    read_table(raw, 4, len(raw), table, problems)
    return table, problems


@given(tables(SCALARS | st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_what_the_client_library_writes_is_read_as_it_reads_it(table: dict[str, Any]) -> None:
    raw = encode.field_table(table)

    assert read(raw) == (decode.field_table(raw)[1], [])


@given(tables(SCALARS | FLOATS))
def test_what_is_written_is_read_by_the_client_library_and_by_us(table: dict[str, Any]) -> None:
    raw = encode_table(table)

    assert decode.field_table(raw) == (len(raw), table)
    assert read(raw) == (table, [])


@given(FLOATS)
def test_a_float_keeps_its_64_bits(value: float) -> None:
    assert read(encode_table({"price": value})) == ({"price": value}, [])


def test_a_negative_decimal_stays_one() -> None:
    assert read(encode_table({"d": Decimal("-12.5")})) == ({"d": Decimal("-12.5")}, [])


def test_bytes_and_tuples_are_written_as_binary_and_as_arrays() -> None:
    assert read(encode_table({"b": b"\xff", "t": (1, "a")})) == ({"b": b"\xff", "t": [1, "a"]}, [])


def test_a_long_string_that_is_no_utf8_is_bytes() -> None:
    assert read(struct.pack(">I", 9) + b"\x01nS\x00\x00\x00\x02\xff\xfe") == ({"n": b"\xff\xfe"}, [])


def test_a_name_that_is_no_utf8_is_shown_escaped_and_told() -> None:
    assert read(struct.pack(">I", 4) + b"\x02a\xffV") == (
        {"a\\xff": None},
        ["the name of a header is no UTF-8"],
    )


@given(tables(SCALARS | FLOATS), st.data())
def test_a_table_that_is_cut_off_keeps_the_fields_before_the_cut(
    table: dict[str, Any], data: st.DataObject
) -> None:
    raw = encode_table(table)
    end = data.draw(st.integers(4, len(raw)))
    into: dict[str, object] = {}

    try:
        read_table(raw, 4, end, into, [])
    except (ValueError, IndexError, struct.error):
        if into:
            into.popitem()  # it may have been read beyond the end

    assert list(into.items()) == list(table.items())[: len(into)]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_an_error(raw: bytes) -> None:
    with suppress(ValueError, IndexError, struct.error):
        read_table(raw, 0, len(raw), {}, [])


def _in_tables(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"n": value}
    return value


def _in_arrays(levels: int) -> dict[str, Any]:
    value: list[Any] = []
    for _ in range(levels - 2):
        value = [value]
    return {"n": value}


@pytest.mark.parametrize("nested", [_in_tables, _in_arrays])
def test_nesting_is_written_and_read_up_to_a_limit(nested: Callable[[int], dict[str, Any]]) -> None:
    table = nested(MAX_DEPTH)
    assert read(encode_table(table)) == (table, [])

    with pytest.raises(EncodeError, match="deeper than 100"):
        encode_table(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_what_is_nested_too_deep_is_left_out_and_its_neighbours_are_kept(kind: bytes) -> None:
    deep = b""
    for _ in range(30_000 // 6):
        inner = struct.pack(">I", len(deep)) + deep
        deep = (b"\x00F" if kind == b"F" else b"A") + inner
    field = b"\x04deep" + (b"F" if kind == b"F" else b"A") + struct.pack(">I", len(deep)) + deep
    table, problems = read(b"\x00\x00\x00\x00" + field + b"\x04goodt\x01")

    assert table["good"] is True
    assert problems == ["the headers are nested deeper than 100 levels"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")], 2**63, object(), "\ud800"])
def test_what_amqp_cannot_carry_is_refused(value: object) -> None:
    with pytest.raises(EncodeError, match="header cannot be sent"):
        encode_table({"bad": value})


@pytest.mark.parametrize("name", ["n" * 256, "\ud800"])
def test_a_name_that_amqp_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(EncodeError, match="header"):
        encode_table({name: 1})


def test_a_name_may_take_255_bytes() -> None:
    assert read(encode_table({"ж" * 127: 1})) == ({"ж" * 127: 1}, [])
