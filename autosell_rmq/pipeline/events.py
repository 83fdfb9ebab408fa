"""What observers are told of each message: for metrics, traces, signals of a framework."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from autosell_rmq.message import Message

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEvent:
    """Something that happened to a message.

    Attributes:
        kind: ``received`` (before anything else), ``handled`` (its result is stored), ``duplicate`` (the
            stored result answers it), ``failed`` (an attempt raised `error`), ``dead_lettered`` (it is in
            the DLQ, confirmed, for `reason`), ``settled`` (it is acked: the last event of a delivery).
        message: as it came.
        attempt: which run of the handler it is about, from 1.
        error: what a ``failed`` attempt raised.
        reason: the code of a ``dead_lettered`` one.
    """

    kind: Literal["received", "handled", "duplicate", "failed", "dead_lettered", "settled"]
    message: Message
    attempt: int = 1
    error: BaseException | None = None
    reason: str | None = None


type Observer = Callable[[MessageEvent], None]


def tell(observers: Sequence[Observer], event: MessageEvent) -> None:
    """Call every observer, on the event loop; what one raises is logged and changes nothing."""
    for observer in observers:
        try:
            observer(event)
        except Exception:
            logger.exception("an observer failed at %s", event.kind)
