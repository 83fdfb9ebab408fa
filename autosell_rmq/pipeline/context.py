"""The message as a handler gets it: what the wire said, and where its handling stands."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from autosell_rmq.message import Message, MessageProducer, SyncMessageProducer

_ADDED: Final = frozenset({"attempt", "idempotency_key", "producer", "sync_producer"})
_KEPT: Final = tuple(field.name for field in fields(Message) if field.name not in _ADDED)

_set = object.__setattr__  # the copy is frozen, too; dataclasses.replace would take three times as long


def handed_over(
    message: Message,
    *,
    attempt: int,
    idempotency_key: str | None,
    producer: MessageProducer,
    sync_producer: SyncMessageProducer,
) -> Message:
    """A copy of `message` with what the pipeline adds."""
    copy = object.__new__(Message)
    for name in _KEPT:
        _set(copy, name, getattr(message, name))
    _set(copy, "attempt", attempt)
    _set(copy, "idempotency_key", idempotency_key)
    _set(copy, "producer", producer)
    _set(copy, "sync_producer", sync_producer)
    return copy
