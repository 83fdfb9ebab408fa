"""An event that the app says it publishes, in the document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autosell_rmq.asyncapi import envelopes
from autosell_rmq.asyncapi.channels import BINDING_VERSION, add_events, events_name
from autosell_rmq.asyncapi.words import in_words, type_name
from autosell_rmq.config import Binding

if TYPE_CHECKING:
    from autosell_rmq.asyncapi.parts import Json, Parts
    from autosell_rmq.router import PublishedEvent


def add_event(parts: Parts, event: PublishedEvent, payload: Json, *, vhost: str) -> None:
    """Add one event, whose payload has this schema."""
    events = Binding(event.exchange, event.routing_key, event.exchange_type)
    name, title = events_name(events), type_name(event.payload_type)
    channel = add_events(parts, events, vhost)
    content = envelopes.message(payload, envelopes.REQUEST_HEADERS, name=title, title=title)
    parts.operation(
        "send",
        channel,
        f"{name}.send",
        [parts.message(channel, ("event", event.exchange, event.routing_key), name, content)],
        title=name,
        **in_words(event.description),
        bindings={"amqp": {"deliveryMode": 2, **BINDING_VERSION}},
    )
