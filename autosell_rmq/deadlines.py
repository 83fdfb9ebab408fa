"""Timeouts by one timer for all of them: one for each is dear."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

_APART = 0.005  # seconds between two looks at all of them


class Deadlines:
    """Timeouts as `asyncio.timeout_at` makes them: ``with deadlines.at(when): …`` raises `TimeoutError`.

    Where many are due one after the other, each may come some milliseconds late.
    """

    def __init__(self) -> None:
        self._runs: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._fires = math.inf

    def at(self, when: float) -> Deadline:
        """A deadline of the current task, in loop time; it counts while it is entered."""
        task = asyncio.current_task()
        assert task is not None
        return Deadline(self, task, when)

    def begins(self, deadline: Deadline) -> None:
        """It is entered; see `Deadline`."""
        self._runs[deadline] = None
        if deadline.when < self._fires:
            self.watch(deadline.when)

    def watch(self, when: float) -> None:
        """Look at the deadlines by then; the timer outlives the one that it was set for."""
        if when >= self._fires:
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._fires = when
        self._timer = loop.call_at(when, self._sweep, loop)

    def over(self, deadline: Deadline) -> None:
        """It is left; see `Deadline`."""
        self._runs.pop(deadline, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what is due."""
        self._timer, self._fires = None, math.inf
        now = loop.time()
        next_one = math.inf
        for deadline in list(self._runs):
            if deadline.when > now:
                next_one = min(next_one, deadline.when)
                continue
            deadline.expired = True
            deadline.task.cancel()
            del self._runs[deadline]
        if next_one < math.inf:
            self.watch(max(next_one, now + _APART))


class Deadline:
    """One of them: a context manager.

    Attributes:
        when: in loop time.
        expired: whether it was reached inside of the body.
    """

    __slots__ = ("_among", "_cancelling", "expired", "task", "when")

    def __init__(self, among: Deadlines, task: asyncio.Task[object], when: float) -> None:
        self.task = task
        self.when = when
        self.expired = False
        self._among = among
        self._cancelling = task.cancelling()  # by others, before

    def reschedule(self, when: float) -> None:
        """Move it, before it is entered or inside of its body."""
        self.when = when
        self._among.watch(when)

    def __enter__(self) -> Deadline:
        self._among.begins(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.expired:
            self._among.over(self)
        elif self.task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error
