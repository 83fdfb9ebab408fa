"""What a journey over AMQP does to a message: whole seconds, milliseconds, lists, tables, bytes."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import cast

from autosell_rmq.exceptions import EncodeError
from autosell_rmq.message import Headers, Properties, Publication

_SHORT = (
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "message_id",
    "type",
    "user_id",
    "app_id",
)


def over_the_wire(publication: Publication) -> Publication:
    """The publication as its consumers will see it; later changes of the sender's headers are not in it.

    Raises:
        EncodeError: a value that AMQP cannot carry, by name.
    """
    properties = publication.properties
    _short("routing_key", publication.routing_key)
    for name in _SHORT:
        _short(name, getattr(properties, name))
    if properties.priority is not None and not 0 <= properties.priority <= 255:
        raise EncodeError(f"priority={properties.priority!r}: expected a whole number from 0 to 255")
    return replace(publication, body=bytes(publication.body), properties=_on_the_wire(properties))


def table(headers: Headers) -> dict[str, object]:
    """A table of headers or arguments, copied through and through."""
    return {str(name): _value(value) for name, value in headers.items()}


def _on_the_wire(properties: Properties) -> Properties:
    expiration, timestamp = properties.expiration, properties.timestamp
    return replace(
        properties,
        headers=_headers(properties.headers),
        expiration=max(0, round(expiration * 1000)) / 1000 if expiration is not None else None,
        timestamp=_whole_seconds(timestamp) if timestamp is not None else None,
    )


def _headers(headers: Headers) -> dict[str, object]:
    try:
        return table(headers)
    except RecursionError as error:
        raise EncodeError(f"a header cannot be sent over AMQP: {error}") from None


def _value(value: object) -> object:
    match value:
        case None | bool() | Decimal():
            return value
        case int() | float():
            return _number(value)
        case str():
            return _text(value)
        case bytes() | bytearray():
            return bytes(value)
        case dt.datetime():
            return _whole_seconds(value)
        case Mapping():
            return table(cast("Headers", value))
        case list() | tuple():
            return [_value(item) for item in cast("Sequence[object]", value)]
        case _:
            raise EncodeError(f"a header cannot be sent over AMQP: {value!r}")


def _number(value: float) -> float:
    fits = -(2**63) <= value < 2**63 if isinstance(value, int) else math.isfinite(value)
    if not fits:  # RabbitMQ closes the connection over a float that is not finite
        raise EncodeError(f"a header cannot be sent over AMQP: {value!r}")
    return value


def _whole_seconds(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(microsecond=0)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EncodeError(f"a header cannot be sent over AMQP: {value!r}") from None
    return value


def _short(name: str, value: str | None) -> None:
    if value is None:
        return
    try:
        size = len(value.encode())
    except (UnicodeEncodeError, AttributeError):
        raise EncodeError(f"{name}={value!r}: expected a string of valid Unicode") from None
    if size > 255:
        raise EncodeError(f"{name} is {size} bytes long; AMQP takes 255 at most")
