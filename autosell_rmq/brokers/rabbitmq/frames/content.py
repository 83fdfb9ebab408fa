"""A message on the wire: where it comes from, its properties, its body."""

from __future__ import annotations

import struct
from typing import Any, Final

from autosell_rmq.brokers.rabbitmq.frames.fields import moment, read_table, text
from autosell_rmq.message import NO_HEADERS, Properties

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_SIZE_AND_FLAGS = struct.Struct(">4xQH")
PROPERTIES_AT: Final = 12  # bytes into a header frame's payload: the flags, then the property list
_ANOTHER_WORD = 0x0001  # of flags: no property of AMQP 0-9-1 needs a second one

# In the order of the wire, by the flag that says it is there.
_BEFORE_HEADERS = ((0x8000, "content_type"), (0x4000, "content_encoding"))
_HEADERS, _DELIVERY_MODE, _PRIORITY, _TIMESTAMP = 0x2000, 0x1000, 0x0800, 0x0040
_AFTER_PRIORITY = (
    (0x0400, "correlation_id"),
    (0x0200, "reply_to"),
    (0x0100, "expiration"),
    (0x0080, "message_id"),
)
_AFTER_TIMESTAMP = ((0x0020, "type"), (0x0010, "user_id"), (0x0008, "app_id"))


class Content:
    """A message as it came: raw, so that reading it can fail without harm to the connection.

    Attributes:
        tag: the delivery tag; 0 on a message that RabbitMQ returned, since no queue takes it.
    """

    __slots__ = ("body", "exchange", "header", "missing", "redelivered", "routing_key", "size", "tag")

    def __init__(self, tag: int, redelivered: bool, route: bytes, at: int) -> None:
        """`route` holds the exchange and the routing key, from `at` on."""
        stop = at + 1 + route[at]
        self.tag = tag
        self.redelivered = redelivered
        self.exchange = route[at + 1 : stop]
        self.routing_key = route[stop + 1 : stop + 1 + route[stop]]
        self.header = b""
        self.size = self.missing = -1
        self.body = b""

    @classmethod
    def delivered(cls, deliver: bytes) -> Content:
        """Begin with the arguments of a basic.deliver."""
        at = 1 + deliver[0]  # the consumer's tag: a channel of ours has one consumer
        return cls(_U64.unpack_from(deliver, at)[0], deliver[at + 8] != 0, deliver, at + 9)

    @classmethod
    def returned(cls, arguments: bytes) -> Content:
        """Begin with the arguments of a basic.return."""
        return cls(0, False, arguments, 3 + arguments[2])  # a code and a text come first

    def begin(self, header: bytes) -> bool:
        """Take the payload of the header frame; whether the content is complete with it."""
        self.header = header
        self.size = self.missing = _U64.unpack_from(header, 4)[0]
        return self.size == 0

    def add(self, part: bytes, parts: list[bytes]) -> bool:
        """Take the payload of a body frame, after `parts`; whether the content is complete with it."""
        if not parts and len(part) == self.size:
            self.body = part
            return True
        parts.append(part)
        self.missing -= len(part)
        if self.missing > 0:
            return False
        self.body = b"".join(parts)
        return True


def decode_properties(header: bytes, problems: list[str]) -> Properties:
    """The properties in a header frame's payload, as far as they can be read; the rest is in `problems`."""
    found: dict[str, Any] = {"persistent": False}
    headers: dict[str, object] = {}
    try:
        _read(header, found, headers, problems)
    except (ValueError, IndexError, ArithmeticError, struct.error) as error:
        problems.append(str(error) if isinstance(error, ValueError) else "the properties are cut off")
    return Properties(headers=headers or NO_HEADERS, **found)


def _read(data: bytes, found: dict[str, Any], headers: dict[str, object], problems: list[str]) -> None:
    flags: int = _SIZE_AND_FLAGS.unpack_from(data)[1]
    if flags & _ANOTHER_WORD:
        raise ValueError("there are properties that AMQP 0-9-1 does not know")
    at = _texts(data, PROPERTIES_AT + 2, flags, _BEFORE_HEADERS, found, problems)
    if flags & _HEADERS:
        at = _table(data, at, headers, problems)
    if flags & _DELIVERY_MODE:
        found["persistent"] = data[at] == 2
        at += 1
    if flags & _PRIORITY:
        found["priority"] = data[at]
        at += 1
    at = _texts(data, at, flags, _AFTER_PRIORITY, found, problems)
    if flags & _TIMESTAMP:
        found["timestamp"] = moment(_U64.unpack_from(data, at)[0], "the timestamp", problems)
        at += 8
    _texts(data, at, flags, _AFTER_TIMESTAMP, found, problems)
    expiration = found.get("expiration")
    if expiration is not None:
        found["expiration"] = int(expiration) / 1000 if expiration.isdecimal() else None


def _table(data: bytes, at: int, headers: dict[str, object], problems: list[str]) -> int:
    """Read the headers; what comes after them can be read even where they cannot."""
    start = at + 4
    stop: int = start + _U32.unpack_from(data, at)[0]
    if stop > len(data):
        raise ValueError("the headers are cut off")
    try:
        read_table(data, start, stop, headers, problems)
    except (ValueError, IndexError, ArithmeticError, struct.error) as error:
        problems.append(str(error) if isinstance(error, ValueError) else "a header is cut off")
    return stop


def _texts(
    data: bytes,
    at: int,
    flags: int,
    names: tuple[tuple[int, str], ...],
    found: dict[str, Any],
    problems: list[str],
) -> int:
    for flag, name in names:
        if flags & flag:
            stop = at + 1 + data[at]
            if stop > len(data):
                raise ValueError(f"{name} is cut off")
            found[name] = text(data[at + 1 : stop], name, problems)
            at = stop
    return at
