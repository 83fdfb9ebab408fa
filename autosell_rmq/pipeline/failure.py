"""What a dead letter says of itself: in the error reply, and as a note in the idempotency store."""

from __future__ import annotations

import asyncio
import logging

import pydantic_core

from autosell_rmq.idempotency import IdempotencyStore, Note, fingerprint
from autosell_rmq.message import Message
from autosell_rmq.pipeline.outcome import DeadLetter

logger = logging.getLogger(__name__)

_LONGEST_ERROR = 8192  # characters; an error's text comes from anywhere
_GRACE = 5.0  # seconds that a note may hold up the settlement


def failure_text(outcome: DeadLetter) -> str:
    """``ValueError: no such order``."""
    detail = outcome.detail or outcome.reason.words("")
    named = outcome.error_type and not detail.startswith(outcome.error_type)
    error = f"{outcome.error_type}: {detail}" if named else detail
    return error[:_LONGEST_ERROR]


async def note_failure(store: IdempotencyStore, key: str, message: Message, outcome: DeadLetter) -> None:
    """Note the failure under the message's key. A store that cannot is logged: the DLQ has the message."""
    data = {"error": failure_text(outcome), "error_code": outcome.reason.value}
    note = Note(
        state="failed",
        fingerprint=fingerprint(message.body),
        data=pydantic_core.to_json(data),
        queue=message.queue,
        correlation_id=message.correlation_id,
        attempt=outcome.attempts,
    )
    try:
        async with asyncio.timeout(_GRACE):
            await store.note(key, note)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep the message from its end
        logger.warning("queue %s: a failure could not be noted in the store: %r", message.queue, error)
