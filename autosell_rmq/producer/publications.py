"""From the arguments of a send to the publication: properties, headers, delay, deadline."""

from __future__ import annotations

import datetime as dt
import math
from functools import lru_cache

from autosell_rmq.codec import encode
from autosell_rmq.config import of_delay_line
from autosell_rmq.config.check import entity_name, patience
from autosell_rmq.exceptions import ConfigError
from autosell_rmq.ids import new_id
from autosell_rmq.message import (
    DEADLINE,
    DUE,
    FIRST_EXCHANGE,
    FIRST_ROUTING_KEY,
    NO_HEADERS,
    RETRY_COUNT,
    Properties,
    Publication,
    SendOptions,
    milliseconds,
)
from autosell_rmq.records import made
from autosell_rmq.topology import delay_name, next_hop

_OURS = "x-autosell-"
_MAX_HEADER_NAME = 128  # bytes; the client library would cut a longer one


def to_queue(
    queue: str, data: object, correlation_id: str | None, options: SendOptions, *, now: float, limit: int
) -> Publication:
    """A message for a queue, at once or by the delay line."""
    entity_name("queue_name", queue)
    if not options:
        return _publication("", queue, data, correlation_id, options, {}, now=now, limit=limit)
    due = _due(options, now)
    headers = _headers(options)
    ttl = _seconds("ttl", options.get("ttl"))
    if due is None:
        return _publication("", queue, data, correlation_id, options, headers, now=now, limit=limit)
    headers |= {DUE: milliseconds(due), FIRST_EXCHANGE: "", FIRST_ROUTING_KEY: queue}
    if ttl is not None:  # an expiration would override the delay line's own
        headers[DEADLINE] = min(milliseconds(due + ttl), headers.get(DEADLINE, math.inf))  # type: ignore[call-overload]
    hop = delay_name(next_hop(due - now))
    without_ttl: SendOptions = {**options}
    without_ttl.pop("ttl", None)
    return _publication(hop, queue, data, correlation_id, without_ttl, headers, now=now, limit=limit)


def to_exchange(
    exchange: str,
    routing_key: str,
    data: object,
    correlation_id: str | None,
    options: SendOptions,
    *,
    now: float,
    limit: int,
    mandatory: bool,
) -> Publication:
    """An event for whoever has bound a queue to the exchange."""
    entity_name("exchange_name", exchange)
    if of_delay_line(exchange):
        raise ConfigError(f"exchange_name={exchange!r}: it belongs to the delay line")
    if "delay" in options or "deliver_at" in options:
        raise ConfigError("delay= and deliver_at= lead to a queue; an event goes to its exchange at once")
    headers = _headers(options)
    return _publication(
        exchange,
        routing_key,
        data,
        correlation_id,
        options,
        headers,
        now=now,
        limit=limit,
        mandatory=mandatory,
    )


def _publication(
    exchange: str,
    routing_key: str,
    data: object,
    correlation_id: str | None,
    options: SendOptions,
    headers: dict[str, object],
    *,
    now: float,
    limit: int,
    mandatory: bool = True,
) -> Publication:
    properties: dict[str, object] = {
        "content_type": "application/json",
        "correlation_id": correlation_id if correlation_id is not None else new_id(),
        "message_id": options.get("message_id") or new_id(),
        "timestamp": _whole_second(int(now)),
    }
    if options:
        if (outage_timeout := options.get("outage_timeout")) is not None:
            patience("outage_timeout", outage_timeout)
        properties["headers"] = headers or NO_HEADERS
        properties["priority"] = options.get("priority")
        properties["expiration"] = _seconds("ttl", options.get("ttl"))
        properties["type"] = options.get("type")
    publication = {
        "body": encode(data, limit=limit),
        "exchange": exchange,
        "routing_key": routing_key,
        "mandatory": mandatory,
        "properties": made(Properties, properties),
    }
    return made(Publication, publication)


@lru_cache(2)
def _whole_second(now: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(now, dt.UTC)


def _headers(options: SendOptions) -> dict[str, object]:
    headers = dict(options.get("headers", NO_HEADERS))
    for name in headers:
        if len(str(name).encode()) > _MAX_HEADER_NAME:
            raise ConfigError(f"headers: {str(name)[:40]!r}… is over {_MAX_HEADER_NAME} bytes, AMQP's limit")
        if name == RETRY_COUNT or str(name).startswith(_OURS):
            raise ConfigError(f"headers: {name!r} is reserved; names of yours are strings without {_OURS!r}")
    deadline = options.get("deadline")
    if deadline is not None:
        headers[DEADLINE] = milliseconds(_aware("deadline", deadline).timestamp())
    return headers


def _due(options: SendOptions, now: float) -> float | None:
    delay, deliver_at = options.get("delay"), options.get("deliver_at")
    if delay is not None and deliver_at is not None:
        raise ConfigError("delay= and deliver_at= say the same thing twice: give one of them")
    if deliver_at is not None:
        due = _aware("deliver_at", deliver_at).timestamp()
    elif delay is not None:
        due = now + (_seconds("delay", delay, least=0.0) or 0.0)
    else:
        return None
    return due if due > now else None


def _aware(name: str, moment: object) -> dt.datetime:
    if not isinstance(moment, dt.datetime) or moment.tzinfo is None:
        raise ConfigError(f"{name}={moment!r}: expected an aware datetime, such as datetime.now(UTC)")
    return moment


def _seconds(name: str, value: object, *, least: float = 0.001) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 2**32 / 1000:
        raise ConfigError(f"{name}={value!r}: expected a number of seconds from {least:g} to {2**32 // 1000}")
    return float(value)
