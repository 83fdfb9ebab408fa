"""Header tables on the wire: whatever comes is read, as far as it can be; what is written is exact."""

from __future__ import annotations

import datetime as dt
import math
import struct
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

from pamqp import encode

from autosell_rmq.exceptions import EncodeError
from autosell_rmq.message import aware

MAX_DEPTH = 100  # tables in tables: what handles them recurses

# The letter of a type on the wire, and how `struct` reads it.
_FIXED = {
    ord(kind): struct.Struct(">" + form) for kind, form in zip("tbBsuIilLfd", "?bBhHiIqqfd", strict=True)
}
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_DECIMAL = struct.Struct(">Bi")
_DOUBLE = struct.Struct(">d")
_MOST_SECONDS = 0xFFFFFFFF  # up to the year 2106; what is larger counts milliseconds


def read_table(
    data: bytes, at: int, end: int, into: dict[str, object], problems: list[str], depth: int = 1
) -> None:
    """Add the fields in ``data[at:end]`` to `into`. What cannot be represented is added to `problems`.

    Raises:
        ValueError, IndexError, struct.error: it cannot be read on from here.
    """
    while at < end:
        stop = at + 1 + data[at]
        name = text(data[at + 1 : stop], "the name of a header", problems)
        into[name], at = _read(data, stop, end, problems, depth)
    if at != end:
        raise ValueError("a table ends in the middle of a field")


def text(raw: bytes, what: str, problems: list[str]) -> str:
    """A short string as text: readable in any case, with escapes where it is no UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        problems.append(f"{what} is no UTF-8")
        return raw.decode(errors="backslashreplace")


def moment(value: int, what: str, problems: list[str]) -> dt.datetime | None:
    """A timestamp as an aware datetime; None where no calendar reaches."""
    found = _aware(value if value <= _MOST_SECONDS else value / 1000)
    if found is None:
        problems.append(f"{what} {value} is beyond the calendar")
    return found


_aware = lru_cache(64)(aware)  # many messages come within one second


def _read(data: bytes, at: int, end: int, problems: list[str], depth: int) -> tuple[object, int]:
    """The value at `at`, and where the next field begins."""
    kind = data[at]
    at += 1
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed.unpack_from(data, at)[0], at + fixed.size
    match chr(kind):
        case "S" | "x" | "A" | "F" as sized:
            start = at + 4
            stop = start + _U32.unpack_from(data, at)[0]
            if stop > end:
                raise ValueError("a value is longer than its table")
            return _sized(sized, data, start, stop, problems, depth), stop
        case "T":
            return moment(_U64.unpack_from(data, at)[0], "the timestamp of a header", problems), at + 8
        case "D":
            scale, digits = _DECIMAL.unpack_from(data, at)
            return Decimal(digits).scaleb(-scale), at + 5
        case "V":
            return None, at
        case unknown:
            raise ValueError(f"a header is of the unknown type {unknown!r}")


def _sized(kind: str, data: bytes, start: int, stop: int, problems: list[str], depth: int) -> object:
    if kind in "Sx":
        raw = data[start:stop]
        if kind == "S":
            try:
                return raw.decode()
            except UnicodeDecodeError:
                pass  # a long string may be binary
        return raw
    if depth == MAX_DEPTH:
        problems.append(f"the headers are nested deeper than {MAX_DEPTH} levels")
        return None
    if kind == "F":
        table: dict[str, object] = {}
        read_table(data, start, stop, table, problems, depth + 1)
        return table
    items: list[object] = []
    while start < stop:
        item, start = _read(data, start, stop, problems, depth + 1)
        items.append(item)
    return items


def encode_table(table: Mapping[str, object], depth: int = 1) -> bytes:
    """A table with its length in front.

    Raises:
        EncodeError: a value that AMQP cannot carry, or tables nested too deep.
    """
    if depth > MAX_DEPTH:
        raise EncodeError(f"a header cannot be sent over AMQP: nested deeper than {MAX_DEPTH} levels")
    parts: list[bytes] = []
    for name, value in table.items():
        raw = _utf8(str(name))
        if len(raw) > 255:
            raise EncodeError(f"a header's name is {len(raw)} bytes long; AMQP takes 255 at most")
        parts += (bytes((len(raw),)), raw, _encoded(value, depth))
    return _with_length(b"".join(parts))


def _encoded(value: object, depth: int) -> bytes:
    """The type in a letter, and the value."""
    match value:
        case str():
            return b"S" + _with_length(_utf8(value))
        case float():
            if not math.isfinite(value):  # RabbitMQ closes the connection over it
                raise EncodeError(f"a header cannot be sent over AMQP: {value!r} is no number there")
            return b"d" + _DOUBLE.pack(value)  # the client library would round it to 32 bits
        case bytes() | bytearray():
            return b"x" + _with_length(value)
        case Mapping():
            return b"F" + encode_table(value, depth + 1)
        case list() | tuple():
            if depth >= MAX_DEPTH:
                return encode_table({}, depth + 1)
            return b"A" + _with_length(b"".join([_encoded(item, depth + 1) for item in value]))
        case _:
            return _scalar(value)


def _scalar(value: object) -> bytes:
    try:
        return encode.encode_table_value(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError, struct.error) as error:
        raise EncodeError(f"a header cannot be sent over AMQP: {error}") from None


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"a header cannot be sent over AMQP: {error}") from None


def _with_length(raw: bytes | bytearray) -> bytes:
    return _U32.pack(len(raw)) + raw
