"""Publications as frames: basic.publish, the content header, the body."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from autosell_rmq.brokers.rabbitmq.frames.fields import encode_table
from autosell_rmq.exceptions import EncodeError
from autosell_rmq.ids import new_id
from autosell_rmq.message import Headers, Properties, Publication

# A header frame over frame_max (128 KiB) makes the broker close the whole connection.
MAX_HEADER_BYTES: Final = 120_000
_MOST: Final = 255  # bytes in a short string

_HEAD: Final = struct.Struct(">BHI")  # of a frame: type, channel, size of its payload
_HEADER: Final = struct.Struct(">BHIHHQ")  # of a header frame: the same, class, weight, size of the body
_BASIC: Final = 60
_PUBLISH: Final = bytes((0, _BASIC, 0, 40, 0, 0))
_END: Final = b"\xce"
_METHOD, _CONTENT_HEADER, _BODY = 1, 2, 3
_FLAGS: Final = struct.Struct(">H")
_U64: Final = struct.Struct(">Q")
_AROUND: Final = 8  # bytes of a frame beside its payload
_AROUND_PROPERTIES: Final = 20


class Outgoing:
    """A publication as it is on the wire, but for the channel that it goes over."""

    __slots__ = ("_body", "_method", "_properties", "message_id")

    def __init__(self, publication: Publication, *, reply_to: str | None = None) -> None:
        """Encode it; `reply_to` in place of its own.

        Raises:
            EncodeError: a value that AMQP cannot carry, by name.
        """
        properties = publication.properties
        # A returned message is known by its id, so each has one.
        self.message_id = properties.message_id or new_id()
        self._method = _publish(publication.exchange, publication.routing_key, publication.mandatory)
        self._properties = encode_properties(
            properties, message_id=self.message_id, reply_to=reply_to or properties.reply_to
        )
        self._body = publication.body

    def frames(self, channel: int, frame_max: int) -> bytes:
        """Its frames on this channel, none longer than `frame_max` bytes.

        Raises:
            EncodeError: the properties alone are longer; RabbitMQ would close the connection.
        """
        method, properties, body = self._method, self._properties, self._body
        if len(properties) > frame_max - _AROUND_PROPERTIES:
            raise EncodeError(
                f"the headers take {len(properties)} bytes; the broker takes frames of {frame_max}"
            )
        size = len(body)
        head = (
            _HEAD.pack(_METHOD, channel, len(method)),
            method,
            _END,
            _HEADER.pack(_CONTENT_HEADER, channel, 12 + len(properties), _BASIC, 0, size),
            properties,
            _END,
        )
        if 0 < size <= frame_max - _AROUND:
            return b"".join((*head, _HEAD.pack(_BODY, channel, size), body, _END))
        parts = list(head)
        for at in range(0, size, frame_max - _AROUND):
            part = body[at : at + frame_max - _AROUND]
            parts += (_HEAD.pack(_BODY, channel, len(part)), part, _END)
        return b"".join(parts)


@lru_cache(1024)
def _publish(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The payload of a basic.publish."""
    return b"".join(
        (
            _PUBLISH,
            _short("the exchange", exchange),
            _short("the routing key", routing_key),
            b"\x01" if mandatory else b"\x00",
        )
    )


def encode_properties(properties: Properties, *, message_id: str | None, reply_to: str | None) -> bytes:
    """The flags and the property list; `message_id` and `reply_to` in place of their own."""
    flags, first = _kind(properties.content_type, properties.content_encoding)
    parts = [b"", first]
    if properties.headers:
        flags |= 0x2000
        parts.append(_table(properties.headers))
    mode_flags, mode = _mode(properties.persistent, properties.priority)
    parts.append(mode)
    if (correlation_id := properties.correlation_id) is not None:
        flags |= 0x0400
        parts.append(_short("correlation_id", correlation_id))
    if reply_to is not None:
        flags |= 0x0200
        parts.append(_short("reply_to", reply_to))
    if (expiration := properties.expiration) is not None:
        flags |= 0x0100
        parts.append(_short("expiration", str(max(0, round(expiration * 1000)))))
    if message_id is not None:
        flags |= 0x0080
        parts.append(_short("message_id", message_id))
    if (timestamp := properties.timestamp) is not None:
        flags |= 0x0040
        parts.append(_U64.pack(max(0, int(timestamp.timestamp()))))
    last_flags, last = _sender(properties.type, properties.user_id, properties.app_id)
    parts.append(last)
    parts[0] = _FLAGS.pack(flags | mode_flags | last_flags)
    return b"".join(parts)


# What many messages have in common is encoded once.


@lru_cache(1024)
def _kind(content_type: str | None, content_encoding: str | None) -> tuple[int, bytes]:
    return _short_ones((0x8000, "content_type", content_type), (0x4000, "content_encoding", content_encoding))


@lru_cache(1024)
def _mode(persistent: bool, priority: int | None) -> tuple[int, bytes]:
    mode = b"\x02" if persistent else b"\x01"
    if priority is None:
        return 0x1000, mode
    if not 0 <= priority <= 255:
        raise EncodeError(f"priority={priority!r}: expected a whole number from 0 to 255")
    return 0x1800, mode + bytes((priority,))


@lru_cache(1024)
def _sender(type_: str | None, user_id: str | None, app_id: str | None) -> tuple[int, bytes]:
    return _short_ones((0x0020, "type", type_), (0x0010, "user_id", user_id), (0x0008, "app_id", app_id))


def _short_ones(*given: tuple[int, str, str | None]) -> tuple[int, bytes]:
    flags, parts = 0, b""
    for flag, name, value in given:
        if value is not None:
            flags |= flag
            parts += _short(name, value)
    return flags, parts


def _table(headers: Headers) -> bytes:
    table = encode_table(headers)
    if len(table) > MAX_HEADER_BYTES:
        raise EncodeError(f"the headers take {len(table)} bytes; RabbitMQ takes {MAX_HEADER_BYTES} at most")
    return table


def _short(name: str, value: str) -> bytes:
    try:
        raw = value.encode()
    except (UnicodeEncodeError, AttributeError):
        raise EncodeError(f"{name}={value!r}: expected a string of valid Unicode") from None
    size = len(raw)
    if size > _MOST:
        raise EncodeError(f"{name} {value[:40]!r}… is {size} bytes long; AMQP takes {_MOST} at most")
    return _LENGTHS[size] + raw


_LENGTHS: Final = [bytes((size,)) for size in range(_MOST + 1)]
