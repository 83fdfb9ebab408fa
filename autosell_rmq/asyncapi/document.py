"""The document of an app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autosell_rmq.app import RabbitMQ
from autosell_rmq.asyncapi import envelopes
from autosell_rmq.asyncapi.events import add_event
from autosell_rmq.asyncapi.handlers import add_handler, answers
from autosell_rmq.asyncapi.parts import Parts
from autosell_rmq.asyncapi.server import servers

if TYPE_CHECKING:
    from collections.abc import Hashable

    from autosell_rmq.asyncapi.schemas import Use
    from autosell_rmq.router import PublishedEvent


def asyncapi_document(
    rmq: RabbitMQ, *, title: str, version: str, description: str | None = None
) -> dict[str, Any]:
    """Describe an app as an AsyncAPI 3.0 document: plain dicts and lists, ready to be written as JSON.

    Each handler is a ``receive`` operation with its reply, each binding one more, each DLQ and each event
    of `RabbitMQ.publishes` a ``send`` operation. Payloads come as JSON Schema from the annotations; one that
    has none is described in words. What AsyncAPI has no field for is under ``x-autosell-rmq``: times are
    seconds. The servers are the broker's nodes, without the login. It connects to nothing.

    Args:
        rmq: the app.
        title: the application's name.
        version: the application's own version.
        description: of the application.
    """
    from autosell_rmq.asyncapi.schemas import describe  # here, since it loads pydantic

    url = rmq.settings.broker_url
    handlers = [(entry.handler, entry.options(rmq.settings)) for entry in rmq.handlers]
    uses: list[Use] = []
    for handler, options in handlers:
        uses.append((("request", options.queue), "validation", handler.payload_type))
        if answers(handler, options):
            uses.append((("reply", options.queue), "serialization", handler.result_type))
    uses.extend((_key(event), "serialization", event.payload_type) for event in rmq.events)
    schemas, models = describe(uses)

    parts = Parts()
    for handler, options in handlers:
        add_handler(parts, handler, options, schemas, vhost=url.vhost)
    for event in rmq.events:
        add_event(parts, event, schemas[_key(event)], vhost=url.vhost)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": title,
            "version": version,
            **({"description": description} if description else {}),
        },
        "defaultContentType": envelopes.CONTENT_TYPE,
        "servers": servers(url),
        "channels": parts.channels,
        "operations": parts.operations,
        "components": {"messages": parts.messages, "schemas": {**models, **envelopes.schemas()}},
    }


def _key(event: PublishedEvent) -> Hashable:
    return "event", event.exchange, event.routing_key
