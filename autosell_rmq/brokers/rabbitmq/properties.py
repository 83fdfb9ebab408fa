"""What comes over the wire as our messages, and our headers as arguments of a declaration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autosell_rmq.brokers.rabbitmq.frames import PROPERTIES_AT, Content, decode_properties, encode_table, text
from autosell_rmq.message import Headers, Message

_MOST_PROBLEMS = 5  # that are named


def received(content: Content, queue: str) -> Message:
    """A delivery as our message; one that cannot be read is `Message.malformed`, never an error."""
    problems: list[str] = []
    properties = decode_properties(content.header, problems)
    count = properties.headers.get("x-delivery-count")
    message = Message(
        queue=queue,
        body=content.body,
        exchange=text(content.exchange, "the exchange", problems),
        routing_key=text(content.routing_key, "the routing key", problems),
        redelivered=content.redelivered,
        # Only what comes back from a queue carries the broker's count; before that it is the sender's word.
        delivery_count=count if content.redelivered and isinstance(count, int) else None,
        properties=properties,
    )
    if problems:
        why = "; ".join(problems[:_MOST_PROBLEMS])
        return replace(message, malformed=why, wire=content.header[PROPERTIES_AT:])
    return message


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
