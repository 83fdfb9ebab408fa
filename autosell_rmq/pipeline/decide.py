"""What a failure leads to: another attempt, or the DLQ. Pure: it looks at the clock only through `now`."""

from __future__ import annotations

from typing import Literal

from autosell_rmq.codec import DeadLetterReason
from autosell_rmq.exceptions import DecodeError, EncodeError, Reject
from autosell_rmq.message import BUSY, DEADLINE, Message, int_header
from autosell_rmq.pipeline.invalid_message import InvalidMessage
from autosell_rmq.pipeline.outcome import DeadLetter, Later
from autosell_rmq.retry import RetryPolicy

_LONGEST_BUSY_WAIT = 32.0  # seconds between two looks at a key that another worker holds


class Expired(Exception):
    """The message's deadline is over, so the handler was not run."""


def after_failure(
    message: Message, error: BaseException, *, attempt: int, policy: RetryPolicy, now: float
) -> Later | DeadLetter:
    """The outcome of an attempt that raised `error`."""
    match error:
        case DecodeError():
            return _dead(DeadLetterReason.INVALID_JSON, error, attempt - 1)
        case InvalidMessage():
            return _dead(DeadLetterReason.INVALID_MESSAGE, error, attempt - 1)
        case Expired():
            return _dead(DeadLetterReason.EXPIRED, error, attempt - 1)
        case Reject():
            return _dead(DeadLetterReason.REJECTED, error, attempt)
        case EncodeError():
            return _dead(DeadLetterReason.UNHANDLED_EXCEPTION, error, attempt)
        case _:
            return _retry(message, error, attempt, policy, now)


def _retry(
    message: Message, error: BaseException, attempt: int, policy: RetryPolicy, now: float
) -> Later | DeadLetter:
    delay = policy.next_delay(attempt, error)
    if delay is None:
        reason = (
            DeadLetterReason.MAX_RETRIES_EXCEEDED
            if policy.max_retries
            else DeadLetterReason.UNHANDLED_EXCEPTION
        )
        return _dead(reason, error, attempt)
    deadline = int_header(message.headers, DEADLINE) / 1000
    if deadline and now + delay > deadline:
        return DeadLetter(
            reason=DeadLetterReason.EXPIRED,
            detail=f"the next attempt would be past the deadline; the last one failed: {words(error)}",
            attempts=attempt,
            error_type=type(error).__name__,
        )
    return Later(due=now + delay, why="retry", attempt=attempt + 1, detail=described(error))


def after_busy(
    message: Message, *, attempt: int, now: float, why: Literal["busy", "store"], detail: str
) -> Later:
    """The outcome while the key cannot be had: 1, 2, 4, … seconds later, no attempt counted."""
    wait = min(2.0 ** int_header(message.headers, BUSY, most=30), _LONGEST_BUSY_WAIT)
    return Later(due=now + wait, why=why, attempt=attempt, detail=detail)


def words(error: BaseException) -> str:
    """An error's own words, or its class where it has none; an error that cannot be printed has none."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # a broken __str__ must not hide the failure
        text = ""
    return text or type(error).__name__


def described(error: BaseException) -> str:
    """``ValueError: no such order``."""
    text = words(error)
    name = type(error).__name__
    return name if text == name else f"{name}: {text}"


def _dead(reason: DeadLetterReason, error: BaseException, attempts: int) -> DeadLetter:
    return DeadLetter(reason=reason, detail=words(error), attempts=attempts, error_type=type(error).__name__)
