"""A handler in the document: its queue, what it takes and answers, its events, its dead letters."""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any

import pydantic_core

from autosell_rmq.asyncapi import envelopes
from autosell_rmq.asyncapi.channels import BINDING_VERSION, add_events, add_queue, add_replies, events_name
from autosell_rmq.asyncapi.parts import EXTENSION, Json, Parts
from autosell_rmq.asyncapi.words import in_words, type_name
from autosell_rmq.topology import of_handler

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from autosell_rmq.config import Binding, HandlerOptions
    from autosell_rmq.pipeline import Handler


def answers(handler: Handler, options: HandlerOptions) -> bool:
    """Whether anybody may wait for its reply: nobody does where events come in and no result is named."""
    return not options.bind or handler.result_type not in (None, NoneType, Any)


def add_handler(
    parts: Parts,
    handler: Handler,
    options: HandlerOptions,
    schemas: Mapping[Hashable, Json],
    *,
    vhost: str,
) -> None:
    """Add one handler.

    Args:
        parts: where to.
        handler: the function.
        options: complete.
        schemas: has ``("request", queue)`` and, where it `answers`, ``("reply", queue)``.
        vhost: of the broker.
    """
    queue = options.queue
    channel = add_queue(parts, queue, vhost, **_arguments(options))
    more: Json = {"title": handler.name, **in_words(handler.description)}
    request = _request(handler, schemas["request", queue])

    def taken(where: str) -> list[Json]:
        return [parts.message(where, ("request", queue), f"{queue}.request", request)]

    reply = (
        {"reply": _reply(parts, handler, queue, schemas["reply", queue])} if answers(handler, options) else {}
    )
    parts.operation(
        "receive",
        channel,
        f"{queue}.receive",
        taken(channel),
        **more,
        **reply,
        bindings={"amqp": {"ack": True, **BINDING_VERSION}},
        **{EXTENSION: _extension(handler, options)},
    )
    for events in options.bind:
        where = add_events(parts, events, vhost)
        name = f"{queue}.receive.{events_name(events)}"
        parts.operation("receive", where, name, taken(where), **more, **{EXTENSION: _queue_of(queue, events)})
    _add_dead_letters(parts, options, vhost)


def _request(handler: Handler, payload: Json) -> Json:
    title = type_name(handler.payload_type)
    return envelopes.message(payload, envelopes.REQUEST_HEADERS, name=title, title=title)


def _reply(parts: Parts, handler: Handler, queue: str, data: Json) -> Json:
    channel = add_replies(parts)
    title = type_name(handler.result_type)
    success = envelopes.reply(data, name=title, title=title)
    return {
        "address": envelopes.REPLY_ADDRESS,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [
            parts.message(channel, ("reply", queue), f"{queue}.reply", success),
            parts.message(channel, ("error",), "error_reply", envelopes.error_reply()),
        ],
    }


def _add_dead_letters(parts: Parts, options: HandlerOptions, vhost: str) -> None:
    channel = add_queue(parts, options.dlq, vhost)
    letter = parts.message(channel, ("dead letter",), "dead_letter", envelopes.dead_letter())
    parts.operation(
        "send",
        channel,
        f"{options.queue}.dead_letter",
        [letter],
        title=f"Dead letters of {options.queue}",
        **{EXTENSION: {"dead_letters_of": options.queue}},
    )


def _arguments(options: HandlerOptions) -> Json:
    [queue] = [queue for queue in of_handler(options).queues if queue.name == options.queue]
    return {EXTENSION: {"arguments": _plain(queue.arguments)}} if queue.arguments else {}


def _extension(handler: Handler, options: HandlerOptions) -> Json:
    """How its messages are handled; what is off is left out."""
    optional = ("consumer_priority", "single_active_consumer", "max_priority", "effect", "accept_replies")
    return {
        "handler": handler.name,
        "dead_letter_queue": options.dlq,
        "prefetch": options.prefetch,
        "timeout": options.timeout,
        "max_retries": options.max_retries,
        "retry_delay": options.retry_delay,
        "max_retry_delay": options.max_retry_delay,
        "idempotency_key": _key(options),
        "on_conflict": options.on_conflict,
        **{name: value for name in optional if (value := getattr(options, name))},
    }


def _key(options: HandlerOptions) -> str | None:
    key = options.idempotency_key
    return key if key is None or isinstance(key, str) else getattr(key, "__qualname__", type(key).__name__)


def _queue_of(queue: str, events: Binding) -> Json:
    arguments = {"arguments": _plain(events.arguments)} if events.arguments else {}
    return {"queue": queue, **arguments}


def _plain(arguments: Mapping[str, object]) -> Json:
    plain: Json = pydantic_core.to_jsonable_python(dict(arguments), bytes_mode="base64", fallback=str)
    return plain
