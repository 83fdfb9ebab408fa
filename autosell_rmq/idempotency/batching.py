"""Many calls of a store in one trip: what is asked for while one is under way goes along with the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from autosell_rmq.exceptions import ClosedError

_STUCK = 0.05  # seconds; what is asked for meanwhile waits no longer than that for a trip that is slow


class Apart(Exception):
    """Raised by a trip of several steps that came to nothing because of one of them: each is to go alone."""


type _Entry[S, A] = tuple[S, asyncio.Future[A]]


class Batching[S, A]:
    """Collects the steps of one turn of the event loop, or of the time that a trip takes, for one trip.

    No step waits for a timer: one that comes alone goes alone. A key is in one trip at a time, so its steps
    happen in the order in which they were asked for. A caller that is cancelled before the departure is left
    behind; afterwards its step is carried out, and nobody else notices.

    Belongs to one event loop at a time; meanwhile a step from another one travels alone.

    Args:
        run: carries the steps out, and answers each in its place; an exception there is its caller's. What
            `run` raises is raised to all of this trip, except `Apart`.
        key: of a step.
        size: of a step, in bytes.
        most: steps in one trip.
        most_bytes: in one trip, unless a single step is larger.
        at_once: trips; there is a second one only while the first is slow.
    """

    def __init__(
        self,
        run: Callable[[Sequence[S]], Awaitable[Sequence[A | BaseException]]],
        *,
        key: Callable[[S], str],
        size: Callable[[S], int],
        most: int,
        most_bytes: int,
        at_once: int,
    ) -> None:
        self._run = run
        self._key = key
        self._size = size
        self._most = most
        self._most_bytes = most_bytes
        self._at_once = at_once
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[_Entry[S, A]] = deque()
        self._busy: set[str] = set()  # the keys that are under way
        self._trips: set[asyncio.Task[None]] = set()
        self._brisk = 0  # trips that are not slow yet
        self._called = False
        self._closed = False

    async def __call__(self, step: S) -> A:
        """Have `step` carried out.

        Raises:
            ClosedError: after `close`.
        """
        if self._closed:
            raise ClosedError("the store is closed")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._trips or self._waiting:
                [told] = await self._run([step])
                if isinstance(told, BaseException):
                    raise told
                return told
            self._loop = loop
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting.append((step, answer))
        self._call()
        return await answer

    async def close(self) -> None:
        """Take no more; wait for what was asked for, as long as that takes. Cancelled, it gives that up."""
        self._closed = True
        if self._loop is not asyncio.get_running_loop():
            return
        try:
            while self._trips or self._called:
                await (asyncio.wait(self._trips) if self._trips else asyncio.sleep(0))
        finally:
            for _, answer in self._waiting:
                if not answer.done():
                    answer.set_exception(ClosedError("the store was closed"))
            self._waiting.clear()

    def _call(self) -> None:
        """Depart in the next turn of the loop: what this one still asks for comes along."""
        if not self._called and not self._brisk and len(self._trips) < self._at_once:
            assert self._loop is not None
            self._called = True
            self._loop.call_soon(self._depart)

    def _depart(self) -> None:
        self._called = False
        if entries := self._boarding():
            self._send(entries)

    def _send(self, entries: Sequence[_Entry[S, A]]) -> None:
        assert self._loop is not None
        self._brisk += 1
        self._trips.add(self._loop.create_task(self._travel(entries)))

    def _boarding(self) -> list[_Entry[S, A]]:
        """Take the next steps, in order; one whose key is under way stays, and so do its later ones."""
        taken: list[_Entry[S, A]] = []
        left: list[_Entry[S, A]] = []
        size, held = 0, set[str]()
        while self._waiting and len(taken) < self._most:
            entry = self._waiting.popleft()
            step, answer = entry
            if answer.done():
                continue
            key = self._key(step)
            if key in self._busy or key in held:
                held.add(key)
                left.append(entry)
                continue
            size += self._size(step)
            if taken and size > self._most_bytes:
                left.append(entry)
                break
            self._busy.add(key)
            taken.append(entry)
        self._waiting.extendleft(reversed(left))
        return taken

    async def _travel(self, entries: Sequence[_Entry[S, A]]) -> None:
        slow = False

        def is_slow() -> None:
            nonlocal slow
            slow = True
            self._brisk -= 1
            self._call()

        timer = asyncio.get_running_loop().call_later(_STUCK, is_slow)
        answers: Sequence[A | BaseException] = ()
        try:
            answers = await self._run([step for step, _ in entries])
        except Apart:
            for entry in entries:
                self._send([entry])
            entries = ()
        except BaseException as error:
            answers = [error] * len(entries)
            if not isinstance(error, Exception):
                raise
        finally:
            timer.cancel()
            self._brisk -= not slow
            self._trips.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            for (step, answer), told in zip(entries, answers, strict=True):
                self._busy.discard(self._key(step))
                _tell(answer, told)
            if self._waiting:
                self._call()


def _tell[A](waiting: asyncio.Future[A], answer: A | BaseException) -> None:
    if waiting.done():
        return
    if isinstance(answer, asyncio.CancelledError):
        waiting.cancel()
    elif isinstance(answer, BaseException):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)
