"""When a failed message runs again: a pure decision; and the waits between attempts of our own."""

from __future__ import annotations

import random
from collections.abc import Iterator
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


def waits(first: float, longest: float) -> Iterator[float]:
    """Endless seconds to wait between attempts: doubling from `first` to `longest`, each with jitter.

    The jitter takes up to half of each, so that a thousand clients do not come back at the same moment.
    """
    wait = min(first, longest)
    while True:
        yield wait * random.uniform(0.5, 1.0)
        wait = min(wait * 2.0, longest)
