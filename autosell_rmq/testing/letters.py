"""What a test looks at: messages that were sent, attempts that failed, dead letters."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from autosell_rmq.message import DUE, REASON_CODE, Message, Publication
from autosell_rmq.topology import is_delay_name

_REASON = "x-death-reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMessage:
    """A message, a request or an event that the code under test has sent.

    Attributes:
        queue: where it was sent to; empty for an event.
        exchange: where an event was published; empty for a message to a queue.
        routing_key: of an event; for a message the queue's name.
        data: decoded from JSON; the bytes where they are none.
        is_request: a reply was asked for.
        due: the moment that a ``delay`` or ``deliver_at`` named.
    """

    queue: str
    exchange: str
    routing_key: str
    data: Any
    correlation_id: str | None
    message_id: str | None
    headers: Mapping[str, object] = field(repr=False)
    is_request: bool
    due: dt.datetime | None

    @classmethod
    def of(cls, publication: Publication) -> Self:
        """What a producer published."""
        properties = publication.properties
        to_queue = not publication.exchange or is_delay_name(publication.exchange)
        due = properties.headers.get(DUE)
        return cls(
            queue=publication.routing_key if to_queue else "",
            exchange="" if to_queue else publication.exchange,
            routing_key=publication.routing_key,
            data=decoded(publication.body),
            correlation_id=properties.correlation_id,
            message_id=properties.message_id,
            headers=properties.headers,
            is_request=bool(properties.reply_to),
            due=dt.datetime.fromtimestamp(due / 1000, dt.UTC) if isinstance(due, int) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt that failed, with what the handler raised."""

    queue: str
    attempt: int
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message in a DLQ.

    Attributes:
        data: the message's own, decoded; the bytes where they are no JSON.
        reason_code: ``max_retries_exceeded``, ``rejected``, ``invalid_message`` …
        reason: the same in words, with the error.
        attempts: runs of the handler.
    """

    data: Any
    reason_code: str
    reason: str
    attempts: int | None
    error_type: str | None
    correlation_id: str | None

    @classmethod
    def of(cls, message: Message) -> Self:
        """What lies in the queue: an envelope, or (too large for one) the message itself."""
        envelope = decoded(message.body)
        if not isinstance(envelope, dict) or "original_body" not in envelope:
            envelope = {"original_body": message.body, "correlation_id": message.correlation_id}
        original = envelope["original_body"]
        if envelope.get("original_body_encoding") == "base64":
            original = base64.b64decode(original)
        return cls(
            data=decoded(original),
            reason_code=envelope.get("reason_code") or str(message.headers.get(REASON_CODE, "")),
            reason=envelope.get("reason") or str(message.headers.get(_REASON, "")),
            attempts=envelope.get("attempts"),
            error_type=envelope.get("error_type"),
            correlation_id=envelope.get("correlation_id"),
        )


def decoded(body: str | bytes) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """A body as the handler's first parameter would be, without its validation."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body
