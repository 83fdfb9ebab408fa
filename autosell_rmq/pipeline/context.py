"""The message as a handler gets it: what the wire said, and where its handling stands."""

from __future__ import annotations

from autosell_rmq.message import Message, MessageProducer, SyncMessageProducer
from autosell_rmq.records import made


def handed_over(
    message: Message,
    *,
    attempt: int,
    idempotency_key: str | None,
    producer: MessageProducer,
    sync_producer: SyncMessageProducer,
) -> Message:
    """A copy of `message` with what the pipeline adds."""
    return made(
        Message,
        {
            **vars(message),
            "attempt": attempt,
            "idempotency_key": idempotency_key,
            "producer": producer,
            "sync_producer": sync_producer,
        },
    )
