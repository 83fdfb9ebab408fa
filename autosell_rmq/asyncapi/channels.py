"""Queues, routing keys and the reply address as channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autosell_rmq.message import DIRECT_REPLY_TO

if TYPE_CHECKING:
    from autosell_rmq.asyncapi.parts import Json, Parts
    from autosell_rmq.config import Binding

BINDING_VERSION = {"bindingVersion": "0.3.0"}  # of AsyncAPI's AMQP bindings


def add_queue(parts: Parts, queue: str, vhost: str, **more: object) -> str:
    """Add the channel of a durable queue; returns its id."""
    described = {
        "name": queue,
        "durable": True,
        "exclusive": False,
        "autoDelete": False,
        "vhost": vhost,
    }
    bindings = {"amqp": {"is": "queue", "queue": described, **BINDING_VERSION}}
    return parts.channel(("queue", queue), queue, {"address": queue, "bindings": bindings, **more})


def add_events(parts: Parts, events: Binding, vhost: str) -> str:
    """Add the channel of a routing key of an exchange; returns its id."""
    exchange = {
        "name": events.exchange,
        "type": events.exchange_type,
        "durable": True,
        "autoDelete": False,
        "vhost": vhost,
    }
    channel: Json = {
        "address": events.routing_key or None,
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange, **BINDING_VERSION}},
    }
    return parts.channel(("events", events.exchange, events.routing_key), events_name(events), channel)


def events_name(events: Binding) -> str:
    """How ids call them."""
    return ".".join(filter(None, (events.exchange, events.routing_key)))


def add_replies(parts: Parts) -> str:
    """Add the channel of all replies, whose address only a request knows; returns its id."""
    channel: Json = {
        "address": None,
        "title": "Replies",
        "description": f"The address that a request names: {DIRECT_REPLY_TO}, or a queue of the caller's.",
    }
    return parts.channel(("replies",), "replies", channel)
