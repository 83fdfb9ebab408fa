"""What comes over the wire as our messages, and our headers as arguments of a declaration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autosell_rmq.brokers.rabbitmq.frames import PROPERTIES_AT, Content, decode_properties, encode_table, text
from autosell_rmq.message import Headers, Message
from autosell_rmq.records import made

_MOST_PROBLEMS = 5  # that are named


def received(content: Content, queue: str) -> Message:
    """A delivery as our message; one that cannot be read is `Message.malformed`, never an error."""
    problems: list[str] = []
    properties = decode_properties(content.header, problems)
    fields: dict[str, Any] = {
        "queue": queue,
        "body": content.body,
        "exchange": text(content.exchange, "the exchange", problems),
        "routing_key": text(content.routing_key, "the routing key", problems),
        "redelivered": content.redelivered,
        "properties": properties,
    }
    if content.redelivered:
        # Only what comes back from a queue carries the broker's count; before that it is the sender's word.
        count = properties.headers.get("x-delivery-count")
        fields["delivery_count"] = count if isinstance(count, int) else None
    if problems:
        fields["malformed"] = "; ".join(problems[:_MOST_PROBLEMS])
        fields["wire"] = content.header[PROPERTIES_AT:]
    return made(Message, fields)


def arguments(headers: Headers) -> dict[str, Any]:
    """Queue, binding or consumer arguments as the client library takes them."""
    encode_table(headers)  # or say what AMQP cannot carry
    return {name: _argument(value) for name, value in headers.items()}


def _argument(value: object) -> object:
    if isinstance(value, bytes):
        return bytearray(value)
    if isinstance(value, Mapping):
        return {str(name): _argument(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_argument(item) for item in value]
    return value
