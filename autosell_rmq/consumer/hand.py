"""The deliveries in hand: a task for each, begun a few at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Final

from autosell_rmq.broker import Delivery

_SLICE: Final = 0.005  # seconds of beginnings between two turns of the loop


class Hand:
    """Begins what has come at the next turn of the loop, and lets the loop turn in between.

    A task runs at once up to its first wait; a handler that waits for nothing needs no turn of its own. One
    that computes does not keep the others, heartbeats or replies waiting for longer than itself and a slice.

    Args:
        take: sees one delivery to its settlement.
    """

    def __init__(self, take: Callable[[Delivery], Coroutine[Any, Any, None]]) -> None:
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._come: deque[Delivery] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0  # deliveries: 1 while one takes its first step, which is no task of ours yet
        self._scheduled = False

    def __len__(self) -> int:
        """How many are not settled."""
        return len(self._come) + len(self._tasks) + self._starting

    def put(self, delivery: Delivery) -> None:
        """Called by the broker, which must not wait."""
        self._come.append(delivery)
        if not self._scheduled:
            self._schedule()

    async def settled(self, timeout: float | None = None) -> bool:
        """Wait until nothing is in hand, for `timeout` seconds at most; whether that is so."""
        deadline = None if timeout is None else self._loop.time() + timeout
        self._begin_all()
        while self._tasks:
            left = None if deadline is None else max(deadline - self._loop.time(), 0.0)
            done, _ = await asyncio.wait(self._tasks, timeout=left)
            if not done:
                return False
            self._begin_all()
        return True

    def cancel(self) -> None:
        """Cancel every task."""
        for task in self._tasks:
            task.cancel()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._begin_some)

    def _begin_some(self) -> None:
        self._scheduled = False
        until = monotonic() + _SLICE
        try:
            while self._come:
                self._begin(self._come.popleft())
                if monotonic() >= until:
                    break
        finally:  # a handler may have ended the loop: what it drains goes on
            if self._come and not self._scheduled:
                self._schedule()

    def _begin_all(self) -> None:
        while self._come:
            self._begin(self._come.popleft())

    def _begin(self, delivery: Delivery) -> None:
        self._starting = 1
        try:
            task = asyncio.Task(self._take(delivery), loop=self._loop, eager_start=True)
        finally:
            self._starting = 0
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
