"""When a failed message runs again: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass

from autosell_rmq.exceptions import RetryLater


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`max_retries` retries, the first after `delay` seconds, each later one after twice the wait before."""

    max_retries: int
    delay: float
    max_delay: float

    def next_delay(self, attempt: int, error: BaseException) -> float | None:
        """Seconds until the attempt after `attempt` (1 is the first run); None to give up."""
        if attempt > self.max_retries:
            return None
        if isinstance(error, RetryLater) and error.delay is not None:
            return error.delay
        # The exponent is bounded: 2.0**2000 does not fit a float.
        return min(self.delay * 2.0 ** min(attempt - 1, 60), self.max_delay)
