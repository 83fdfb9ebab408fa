"""A message on the wire: where it comes from, its properties, its body."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Final

from autosell_rmq.brokers.rabbitmq.frames.fields import moment, read_table, text
from autosell_rmq.message import Properties
from autosell_rmq.records import made

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_SIZE_AND_FLAGS = struct.Struct(">4xQH")
PROPERTIES_AT: Final = 12  # bytes into a header frame's payload: the flags, then the property list
_ANOTHER_WORD = 0x0001  # of flags: no property of AMQP 0-9-1 needs a second one

# In the order of the wire, by the flag that says it is there.
_IN_ORDER: Final = (
    (0x8000, "content_type"),
    (0x4000, "content_encoding"),
    (0x2000, "headers"),
    (0x1000, "persistent"),
    (0x0800, "priority"),
    (0x0400, "correlation_id"),
    (0x0200, "reply_to"),
    (0x0100, "expiration"),
    (0x0080, "message_id"),
    (0x0040, "timestamp"),
    (0x0020, "type"),
    (0x0010, "user_id"),
    (0x0008, "app_id"),
)


@lru_cache(1024)
def _present(flags: int) -> tuple[tuple[str, bool], ...]:
    """The properties that are there, in order, and whether each is a short string."""
    if flags & _ANOTHER_WORD:
        raise ValueError("there are properties that AMQP 0-9-1 does not know")
    others = {"headers", "persistent", "priority", "expiration", "timestamp"}
    return tuple((name, name not in others) for flag, name in _IN_ORDER if flags & flag)


class Content:
    """A message as it came: raw, so that reading it can fail without harm to the connection.

    Attributes:
        tag: the delivery tag; 0 on a message that RabbitMQ returned, since no queue takes it.
    """

    __slots__ = (
        "_missing",
        "_parts",
        "_size",
        "body",
        "exchange",
        "header",
        "redelivered",
        "routing_key",
        "tag",
    )

    def __init__(self, tag: int, redelivered: bool, route: bytes, at: int) -> None:
        """`route` holds the exchange and the routing key, from `at` on."""
        stop = at + 1 + route[at]
        self.tag = tag
        self.redelivered = redelivered
        self.exchange = route[at + 1 : stop]
        self.routing_key = route[stop + 1 : stop + 1 + route[stop]]
        self.header = b""
        self.body = b""
        self._size = self._missing = -1  # of the body, until the header says it
        self._parts: list[bytes] = []

    @classmethod
    def delivered(cls, method: bytes) -> Content:
        """Begin with the payload of a basic.deliver."""
        at = 5 + method[4]  # the consumer's tag: a channel of ours has one consumer
        return cls(_U64.unpack_from(method, at)[0], method[at + 8] != 0, method, at + 9)

    @classmethod
    def returned(cls, method: bytes) -> Content:
        """Begin with the payload of a basic.return."""
        return cls(0, False, method, 7 + method[6])  # a code and a text come first

    def begin(self, header: bytes) -> bool:
        """Take the payload of the header frame; whether the content is complete with it."""
        self.header = header
        self._size = self._missing = _U64.unpack_from(header, 4)[0]
        return self._size == 0

    def add(self, part: bytes) -> bool:
        """Take the payload of a body frame; whether the content is complete with it."""
        if len(part) == self._size:
            self.body = part
            return True
        self._parts.append(part)
        self._missing -= len(part)
        if self._missing > 0:
            return False
        self.body = b"".join(self._parts)
        return True


def decode_properties(header: bytes, problems: list[str]) -> Properties:
    """The properties in a header frame's payload, as far as they can be read; the rest is in `problems`."""
    found: dict[str, Any] = {"persistent": False}
    try:
        _read(header, found, problems)
    except (ValueError, IndexError, ArithmeticError, struct.error) as error:
        problems.append(str(error) if isinstance(error, ValueError) else "the properties are cut off")
    return made(Properties, found)


def _read(data: bytes, found: dict[str, Any], problems: list[str]) -> None:
    at, size = PROPERTIES_AT + 2, len(data)
    for name, is_text in _present(_SIZE_AND_FLAGS.unpack_from(data)[1]):
        if not is_text:
            at = _read_other(name, data, at, found, problems)
            continue
        start = at + 1
        at = start + data[at]
        if at > size:
            raise ValueError(f"{name} is cut off")
        try:
            found[name] = data[start:at].decode()
        except UnicodeDecodeError:
            found[name] = text(data[start:at], name, problems)


def _read_other(name: str, data: bytes, at: int, found: dict[str, Any], problems: list[str]) -> int:
    """Read what is no short string; returns where it ends."""
    match name:
        case "headers":
            headers: dict[str, object] = {}
            found[name] = headers
            return _table(data, at, headers, problems)
        case "persistent":
            found[name] = data[at] == 2
            return at + 1
        case "priority":
            found[name] = data[at]
            return at + 1
        case "expiration":
            stop = at + 1 + data[at]
            if stop > len(data):
                raise ValueError(f"{name} is cut off")
            milliseconds = text(data[at + 1 : stop], name, problems)
            found[name] = int(milliseconds) / 1000 if milliseconds.isdecimal() else None
            return stop
        case _:
            found[name] = moment(_U64.unpack_from(data, at)[0], "the timestamp", problems)
            return at + 8


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
