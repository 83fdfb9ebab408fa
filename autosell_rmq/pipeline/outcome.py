"""What handling a message came to: a closed union, settled in one place by the consumer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from autosell_rmq.codec import DeadLetterReason


@dataclass(slots=True, kw_only=True)  # frozen takes twice as long: one for each message
class Done:
    """The result is stored: reply with it, then ack.

    Attributes:
        data: the result as JSON.
        duplicate: it was stored before; the handler did not run.
        conflict: the id was used before with another body, whose result this is.
    """

    data: bytes
    duplicate: bool = False
    conflict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Copy it to the delay line, then ack.

    Attributes:
        due: seconds since the epoch; not to be handled before.
        why: ``retry`` is the only one that counts as an attempt.
        attempt: the attempt that the copy is for.
        detail: the error, for the log.
    """

    due: float
    why: Literal["retry", "busy", "not_due", "store"]
    attempt: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recount:
    """Redelivered by a queue that keeps no count: copy it to the delay line with ours, then ack."""

    deliveries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Put it into the DLQ, answer with the error, then ack.

    Attributes:
        reason: the code.
        detail: the error's words.
        attempts: how often the handler ran.
        error_type: the exception's class, None where there was none.
        errors: of an invalid message, each.
    """

    reason: DeadLetterReason
    detail: str
    attempts: int
    error_type: str | None = None
    errors: Sequence[Mapping[str, object]] = ()


type Outcome = Done | Later | Recount | DeadLetter
