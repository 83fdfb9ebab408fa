"""What an outcome publishes: the reply, the copy for the delay line, the dead letter. Pure functions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace

from autosell_rmq.codec import DeadLetterReason, envelope, error_reply, restore, success_reply
from autosell_rmq.exceptions import DecodeError
from autosell_rmq.ids import new_id
from autosell_rmq.message import (
    ATTEMPT,
    BUSY,
    CONFLICT,
    DEADLINE,
    DELIVERIES,
    DIRECT_REPLY_TO,
    DUE,
    FIRST_EXCHANGE,
    FIRST_ROUTING_KEY,
    REASON_CODE,
    REPLY_TYPE,
    RETRY_COUNT,
    Message,
    Properties,
    Publication,
    int_header,
    milliseconds,
    without_broker_headers,
)
from autosell_rmq.pipeline import DeadLetter, Done, Later, Recount, failure_text
from autosell_rmq.records import made
from autosell_rmq.topology import delay_name, next_hop

JSON = "application/json"
DEATH_REASON = "x-death-reason"  # the header that autosell-rmq 0.1.4 writes on its dead letters
FAILED_AT = "x-autosell-failed-at"
ORIGINAL_QUEUE = "x-autosell-queue"
RECOUNT_HOP = 1  # seconds
_MAX_HEADER_REASON = 1000  # characters; headers must never come near the frame's size


_OF_A_FORMER_LIFE = frozenset({REASON_CODE, ATTEMPT, RETRY_COUNT, DUE, DEADLINE, BUSY, DELIVERIES})


def taken_out(message: Message) -> Message:
    """A dead letter of ours that came back to a work queue, as the message inside of it; else the same.

    So a replay may be a plain move from the DLQ (a shovel, a queue's own dead-lettering), and a circle of
    queues does not put envelope into envelope. Attempts are counted anew.
    """
    if REASON_CODE not in message.headers or message.properties.type == REPLY_TYPE:
        return message
    try:
        letter = restore(message.body)
    except DecodeError:
        return message  # it was buried raw
    headers = {name: v for name, v in letter.properties.headers.items() if name not in _OF_A_FORMER_LIFE}
    return replace(message, body=letter.body, properties=replace(letter.properties, headers=headers))


def reply(message: Message, outcome: Done | DeadLetter) -> Publication:
    """The reply to a request that was handled, or given up."""
    if isinstance(outcome, Done):
        body = success_reply(outcome.data, message.correlation_id)
        return _reply(message, body, {CONFLICT: 1} if outcome.conflict else {})
    body = error_reply(failure_text(outcome), outcome.reason.value, message.correlation_id)
    return _reply(message, body, {})


def _reply(message: Message, body: bytes, headers: Mapping[str, object]) -> Publication:
    address = message.reply_to or ""
    properties = {
        "content_type": JSON,
        "correlation_id": message.correlation_id,
        "message_id": new_id(),
        "type": REPLY_TYPE,
        "headers": headers,
    }
    publication = {
        "body": body,
        "routing_key": address,
        # The broker delivers to a direct reply address and still returns a mandatory message.
        "mandatory": not address.startswith(DIRECT_REPLY_TO),
        "properties": made(Properties, properties),
    }
    return made(Publication, publication)


def delayed(message: Message, outcome: Later, *, now: float) -> Publication:
    """A copy that comes back to the message's queue by the delay line."""
    headers = _copied_headers(message, now)
    headers.pop(DELIVERIES, None)
    headers[DUE] = milliseconds(outcome.due)
    if outcome.why == "retry":
        headers[ATTEMPT] = outcome.attempt
        headers[RETRY_COUNT] = outcome.attempt - 1
        headers.pop(BUSY, None)
    elif outcome.why in ("busy", "store"):
        headers[BUSY] = int_header(message.headers, BUSY, most=1000) + 1
    return _copy(message, headers, exchange=delay_name(next_hop(outcome.due - now)))


def recounted(message: Message, outcome: Recount, *, now: float) -> Publication:
    """A copy that carries our count of its deliveries.

    It comes back by the delay line, not at once: a handler that kills its process would do so before the
    ack of the original is out, and each death would leave one more copy and count nothing.
    """
    headers = _copied_headers(message, now) | {DELIVERIES: outcome.deliveries}
    return _copy(message, headers, exchange=delay_name(RECOUNT_HOP))


def _copied_headers(message: Message, now: float) -> dict[str, object]:
    headers = without_broker_headers(message.headers)
    headers.setdefault(FIRST_EXCHANGE, message.exchange)
    headers.setdefault(FIRST_ROUTING_KEY, message.routing_key)
    expiration = message.properties.expiration
    if expiration is not None:
        # On a copy it would run anew, and override the delay line's own; what remains is a deadline.
        sent = message.properties.timestamp
        runs_out = (sent.timestamp() if sent is not None else now) + expiration
        headers[DEADLINE] = min(
            milliseconds(max(runs_out, now)), int_header(headers, DEADLINE, milliseconds(runs_out))
        )
    return headers


def _copy(message: Message, headers: Mapping[str, object], *, exchange: str) -> Publication:
    return Publication(
        body=message.body,
        exchange=exchange,
        routing_key=message.queue,
        properties=replace(
            message.properties,
            headers=headers,
            message_id=message.message_id or new_id(),
            persistent=True,
            expiration=None,
            # The broker refuses a user_id that is not this connection's login.
            user_id=None,
        ),
    )


def dead_letter(message: Message, outcome: DeadLetter, dlq: str, *, limit: int) -> Publication:
    """The envelope, or the message itself where an envelope would be over the `limit`."""
    words = outcome.reason.words(outcome.detail)[:_MAX_HEADER_REASON]
    if outcome.reason is not DeadLetterReason.TOO_LARGE or len(message.body) <= limit // 2:
        body = envelope(
            message,
            outcome.reason,
            outcome.detail,
            attempts=outcome.attempts,
            error_type=outcome.error_type,
            errors=outcome.errors,
        )
        if len(body) <= limit:
            return Publication(
                body=body,
                routing_key=dlq,
                properties=Properties(
                    content_type=JSON,
                    correlation_id=message.correlation_id,
                    message_id=message.message_id or new_id(),
                    headers={DEATH_REASON: words, REASON_CODE: outcome.reason.value},
                ),
            )
    return raw_dead_letter(message, outcome, dlq, headers=without_broker_headers(message.headers))


def raw_dead_letter(
    message: Message, outcome: DeadLetter, dlq: str, *, headers: Mapping[str, object]
) -> Publication:
    """The message as it came, with the reason in its headers."""
    return Publication(
        body=message.body,
        routing_key=dlq,
        properties=replace(
            message.properties,
            headers={
                **headers,
                DEATH_REASON: outcome.reason.words(outcome.detail)[:_MAX_HEADER_REASON],
                REASON_CODE: outcome.reason.value,
                FAILED_AT: dt.datetime.now(dt.UTC).isoformat(),
                ORIGINAL_QUEUE: message.queue,
            },
            message_id=message.message_id or new_id(),
            persistent=True,
            expiration=None,
            user_id=None,
        ),
    )
