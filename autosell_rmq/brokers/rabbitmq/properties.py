"""AMQP basic properties on the wire and ours, both ways."""

from __future__ import annotations

import datetime as dt
import math
import struct
from collections.abc import Mapping
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp import encode
from pamqp.commands import Basic

from autosell_rmq.exceptions import EncodeError
from autosell_rmq.message import NO_HEADERS, Headers, Message, Properties

# A header frame over frame_max (128 KiB) makes the broker close the whole connection.
MAX_HEADER_BYTES = 120_000


def to_wire(properties: Properties) -> Basic.Properties:
    """Ours as the client library's.

    Raises:
        EncodeError: a value that AMQP cannot carry, by name.
    """
    expiration = properties.expiration
    return Basic.Properties(
        content_type=_short("content_type", properties.content_type),
        content_encoding=_short("content_encoding", properties.content_encoding),
        headers=_table(properties.headers) if properties.headers else None,
        delivery_mode=2 if properties.persistent else 1,
        priority=_octet(properties.priority),
        correlation_id=_short("correlation_id", properties.correlation_id),
        reply_to=_short("reply_to", properties.reply_to),
        expiration=str(max(0, round(expiration * 1000))) if expiration is not None else None,
        message_id=_short("message_id", properties.message_id),
        timestamp=properties.timestamp,
        message_type=_short("type", properties.type),
        user_id=_short("user_id", properties.user_id),
        app_id=_short("app_id", properties.app_id),
    )


def received(message: DeliveredMessage, queue: str) -> Message:
    """A delivery of the client library as our message."""
    wire = message.header.properties
    delivery = message.delivery
    headers: Headers = _plain(wire.headers) if wire.headers else NO_HEADERS
    redelivered = bool(getattr(delivery, "redelivered", False))
    count = headers.get("x-delivery-count")
    return Message(
        queue=queue,
        body=message.body,
        exchange=getattr(delivery, "exchange", None) or "",
        routing_key=getattr(delivery, "routing_key", None) or "",
        redelivered=redelivered,
        # Only what comes back from a queue carries the broker's count; before that it is the sender's word.
        delivery_count=count if redelivered and isinstance(count, int) else None,
        properties=Properties(
            content_type=wire.content_type,
            content_encoding=wire.content_encoding,
            headers=headers,
            persistent=wire.delivery_mode == 2,
            priority=wire.priority,
            correlation_id=wire.correlation_id,
            reply_to=wire.reply_to,
            expiration=_seconds(wire.expiration),
            message_id=wire.message_id,
            timestamp=wire.timestamp if isinstance(wire.timestamp, dt.datetime) else None,
            type=wire.message_type,
            user_id=wire.user_id,
            app_id=wire.app_id,
        ),
    )


def arguments(headers: Headers) -> dict[str, Any]:
    """Queue, binding or consumer arguments as the client library takes them."""
    return _table(headers) if headers else {}


def _table(headers: Headers) -> dict[str, Any]:
    table: dict[str, Any] = {name: _field(value) for name, value in headers.items()}
    try:
        size = len(encode.field_table(table))
    except (TypeError, ValueError, AttributeError, struct.error, RecursionError) as error:
        raise EncodeError(f"a header cannot be sent over AMQP: {error}") from None
    if size > MAX_HEADER_BYTES:
        raise EncodeError(f"the headers take {size} bytes; RabbitMQ takes {MAX_HEADER_BYTES} at most")
    return table


def _field(value: object) -> object:
    if isinstance(value, bytes):
        return bytearray(value)
    if isinstance(value, Mapping):
        return {str(name): _field(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_field(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):  # RabbitMQ closes the connection over it
        raise EncodeError(f"a header cannot be sent over AMQP: {value!r} is no number there")
    return value


def _plain(table: Mapping[str, Any]) -> dict[str, object]:
    return {name: _value(value) for name, value in table.items()}


def _value(value: object) -> object:
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, dict):
        return _plain(value)
    if isinstance(value, list):
        return [_value(item) for item in value]
    return value


def _short(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        size = len(value.encode())
    except (UnicodeEncodeError, AttributeError):
        raise EncodeError(f"{name}={value!r}: expected a string of valid Unicode") from None
    if size > 255:
        raise EncodeError(f"{name} is {size} bytes long; AMQP takes 255 at most")
    return value


def _octet(priority: int | None) -> int | None:
    if priority is not None and not 0 <= priority <= 255:
        raise EncodeError(f"priority={priority!r}: expected a whole number from 0 to 255")
    return priority


def _seconds(expiration: str | None) -> float | None:
    if expiration is None or not expiration.isdecimal():
        return None
    return int(expiration) / 1000
