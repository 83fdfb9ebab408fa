"""Deliveries that ended without an outcome: how many there were, and what follows from it."""

from __future__ import annotations

from autosell_rmq.codec import DeadLetterReason
from autosell_rmq.config import HandlerOptions
from autosell_rmq.message import DELIVERIES, Message, int_header
from autosell_rmq.pipeline.outcome import DeadLetter, Recount

DELIVERY_LIMIT = 20  # deliveries without an outcome; the broker's own net is at 50
SUSPECT = 10  # from here on it may be the message that kills its process


def recounted_or_buried(
    message: Message, options: HandlerOptions, attempt: int
) -> Recount | DeadLetter | None:
    """What to do with a message that is `redelivered`: count, and give up at the limit."""
    counted = _by_broker(message, options)
    deliveries = counted or 0
    if counted is None:
        # Ours may be forged, too: whatever it says, the message has had the run that brought it here.
        deliveries = int_header(message.headers, DELIVERIES, most=DELIVERY_LIMIT - 1) + 1
        if deliveries < DELIVERY_LIMIT:
            return Recount(deliveries=deliveries)
    if deliveries < DELIVERY_LIMIT:
        return None
    detail = f"{deliveries} deliveries ended without an outcome"
    return DeadLetter(reason=DeadLetterReason.DELIVERY_LIMIT, detail=detail, attempts=attempt - 1)


def is_suspect(message: Message, options: HandlerOptions) -> bool:
    """Whether many runs of it ended without an outcome, perhaps with their process."""
    return SUSPECT <= _so_far(message, options) < DELIVERY_LIMIT


def runs_next(message: Message, options: HandlerOptions) -> bool:
    """Whether its handler runs in this delivery; else it is counted only."""
    return not message.redelivered or _by_broker(message, options) is not None


def unstarted(message: Message, options: HandlerOptions) -> Recount | None:
    """How a suspect goes back that has had no run, so that it is not counted; None: by basic.nack.

    On a classic queue what goes back by basic.nack looks like what was in hand at a death.
    """
    if _by_broker(message, options) is None and runs_next(message, options) and is_suspect(message, options):
        return Recount(deliveries=_so_far(message, options))
    return None


def _so_far(message: Message, options: HandlerOptions) -> int:
    counted = _by_broker(message, options)
    return int_header(message.headers, DELIVERIES, most=DELIVERY_LIMIT - 1) if counted is None else counted


def _by_broker(message: Message, options: HandlerOptions) -> int | None:
    """On a classic queue the broker's header is the sender's word, whatever it says."""
    return message.delivery_count if options.queue_type == "quorum" else None
