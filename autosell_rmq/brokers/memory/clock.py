"""What time it is for a broker in memory: the system's time, or a time that only tests move."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol, override

# A message that a timer sets free goes through some ten awaits (consume, claim, handle, publish, ack)
# until its handler waits for something else.
_TURNS = 100


class Clock(Protocol):
    """Tells the time and calls back; a callback that comes too often or too late does no harm."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, `delay` seconds from now."""
        ...


class SystemClock(Clock):
    """The time of day, with timers on the running event loop."""

    @override
    def now(self) -> float:
        return time.time()

    @override
    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Without a running loop nothing is called: a server looks at its timers when somebody connects."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        loop.call_later(delay, callback)


class VirtualClock(Clock):
    """A clock that stands still until a test moves it, so that an hour's delay takes no time.

    It starts at the present, since deadlines in tests are often made of ``datetime.now()``.
    """

    def __init__(self, start: float | None = None) -> None:
        self._now = time.time() if start is None else start
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @override
    def now(self) -> float:
        return self._now

    @override
    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        heappush(self._timers, (self._now + delay, next(self._order), callback))

    async def advance(self, seconds: float) -> None:
        """Move the time on, from one due timer to the next, each at its own moment.

        Before the first, after each timer and at the end the event loop gets a hundred turns, so that
        what a timer set off comes to rest and may set timers itself, which are then due in their turn.
        Threads and sockets need longer than that: wait for their effect, then advance.
        """
        until = self._now + seconds
        await _settle()
        while self._timers and self._timers[0][0] <= until:
            await self._fire()
        self._now = until

    async def advance_to_next(self) -> bool:
        """Move on to the next timer, however far away; False when there is none."""
        await _settle()
        if not self._timers:
            return False
        await self._fire()
        return True

    async def _fire(self) -> None:
        due, _, callback = heappop(self._timers)
        self._now = max(self._now, due)
        callback()
        await _settle()


async def _settle() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
