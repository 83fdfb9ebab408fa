"""The plan of a test: what goes wrong, at which await, how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Literal

type Point = Literal[
    "open",
    "declare",
    "publish",
    "consume",
    "cancel",
    "ack",
    "requeue",
    "fail",
    "open_requester",
    "requester.publish",
    "run_once",
    "run_once.call",
    "note",
    "lookup",
]
type Side = Literal["before", "after"]
# An error to raise (a class gets a text of its own), or an async function to await there.
type Fault = BaseException | type[BaseException] | Callable[[], Awaitable[None]]

_ONLY_ERRORS = "this point is passed in a thread, where nothing can be awaited: inject an error"


class Crash(BaseException):
    """The process died here. No ``except Exception`` catches it."""


async def cancel_caller() -> None:
    """A fault: the task that is in the call is cancelled there."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@dataclass(slots=True, eq=False)
class Hold:
    """A place at which calls wait for the test."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> None:
        """Wait here."""
        self.reached.set()
        await self.released.wait()


@dataclass(slots=True, eq=False)
class _Plan:
    point: Point
    side: Side
    fault: Fault
    left: int  # -1: without end
    skip: int

    def applies(self, point: Point, side: Side) -> bool:
        if (point, side) != (self.point, self.side) or self.left == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.left -= 1
        return True


class Faults:
    """What goes wrong in a `FaultyBroker` and a `FaultyStore`; one plan may serve both.

    Each call at a `Point` passes it twice: before the call and, when that succeeded, after it, when
    the effect is there but the caller does not know yet. So every await of the seams can be reached
    by its number::

        faults = Faults()                    # a first run, to count
        await scenario(faults)
        for n in range(1, faults.counter + 1):
            await scenario(Faults(crash_at=n))

    After a `Crash` the process counts as dead: every later passage crashes too, so that no
    ``finally`` of the code under test repairs what a dead process could not.

    Args:
        crash_at: the number of the passage that crashes, from 1.

    Attributes:
        passed: every passage so far as ``"publish:before"``, in order.
        dead: a `Crash` has happened.
    """

    def __init__(self, *, crash_at: int | None = None) -> None:
        self.passed: list[str] = []
        self.dead = False
        self._crash_at = crash_at
        self._plans: list[_Plan] = []
        self._repeats = 0

    @property
    def counter(self) -> int:
        """How many passages there were."""
        return len(self.passed)

    def on(
        self,
        point: Point,
        *,
        before: Fault | None = None,
        after: Fault | None = None,
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """Plan a fault.

        Args:
            point: the call.
            before: an error to raise instead of the call, or an async function to await first.
            after: an error to raise although the call took effect, or an async function.
            times: how often; -1 for ever.
            skip: how many calls go well first.
        """
        sides: tuple[tuple[Side, Fault | None], ...] = (("before", before), ("after", after))
        self._plans += [_Plan(point, side, fault, times, skip) for side, fault in sides if fault is not None]

    def hold(self, point: Point, side: Side = "before", *, times: int = 1, skip: int = 0) -> Hold:
        """Make calls wait at a point until the test sets ``released``."""
        hold = Hold()
        self._plans.append(_Plan(point, side, hold, times, skip))
        return hold

    def deliver_twice(self, times: int = 1) -> None:
        """Deliver the next `times` messages a second time, as after a lost channel.

        The first copy can no longer be settled then: it raises `DeliveryLost`.
        """
        self._repeats += times

    def takes_repeat(self) -> bool:
        """Whether the delivery that comes now is to come twice."""
        if not self._repeats:
            return False
        self._repeats -= 1
        return True

    @asynccontextmanager
    async def around(self, point: Point) -> AsyncGenerator[None]:
        """Pass `point` before the call in the body, and after it."""
        if fault := self._pass(point, "before"):
            await fault()
        yield
        if fault := self._pass(point, "after"):
            await fault()

    @contextmanager
    def around_sync(self, point: Point) -> Generator[None]:
        """The same in a thread, where a fault can only be an error."""
        if self._pass(point, "before") is not None:
            raise TypeError(_ONLY_ERRORS)
        yield
        if self._pass(point, "after") is not None:
            raise TypeError(_ONLY_ERRORS)

    def _pass(self, point: Point, side: Side) -> Callable[[], Awaitable[None]] | None:
        """Raise the fault that is due, or return it where it has to be awaited."""
        if self.dead:
            raise Crash("the process is dead already")
        self.passed.append(f"{point}:{side}")
        fault = next((plan.fault for plan in self._plans if plan.applies(point, side)), None)
        if self.counter == self._crash_at:
            fault = Crash
        if fault is None or not isinstance(fault, BaseException | type):
            return fault
        error = fault(f"injected at {self.passed[-1]}") if isinstance(fault, type) else fault
        self.dead = isinstance(error, Crash)
        raise error
