"""The timeout of a handler's runs, by one timer for all of them: one for each is dear."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """Timeouts as `asyncio.timeout` makes them: ``with deadlines.run(): …`` raises `TimeoutError`.

    All have the same time, so the first to begin is the first to be over.

    Args:
        timeout: seconds that a run may take.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._runs: dict[Run, None] = {}  # in the order that they began in
        self._timer: asyncio.TimerHandle | None = None

    def run(self) -> Run:
        """A run that begins now, in the current task; to be entered at once."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        run = Run(task, loop.time() + self._timeout, self._runs)
        self._runs[run] = None
        if self._timer is None:
            self._timer = loop.call_at(run.when, self._sweep, loop)
        return run

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what is due; the timer outlives the run that it was set for, where that ended in time."""
        self._timer = None
        now = loop.time()
        for run in list(self._runs):
            if run.when > now:
                self._timer = loop.call_at(run.when, self._sweep, loop)
                return
            run.expired = True
            run.task.cancel()
            del self._runs[run]


class Run:
    """One run: a context manager."""

    __slots__ = ("_among", "_cancelling", "expired", "task", "when")

    def __init__(self, task: asyncio.Task[object], when: float, among: dict[Run, None]) -> None:
        self.task = task
        self.when = when
        self.expired = False
        self._among = among
        self._cancelling = task.cancelling()  # by others, before

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.expired:
            del self._among[self]
        elif self.task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error
