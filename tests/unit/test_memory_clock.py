"""The virtual clock: time moves when a test says so, one due timer after the other."""

import asyncio
import time

from autosell_rmq.testing import VirtualClock


def test_it_starts_now_and_stands_still() -> None:
    clock = VirtualClock()

    assert abs(clock.now() - time.time()) < 60
    assert clock.now() == clock.now()


async def test_timers_fire_in_order_each_at_its_own_time() -> None:
    clock = VirtualClock(start=1000.0)
    fired: list[tuple[str, float]] = []
    for name, delay in (("late", 3.0), ("early", 1.0), ("twin", 1.0), ("too late", 3.1)):
        clock.call_later(delay, lambda name=name: fired.append((name, clock.now())))  # type: ignore[misc]

    await clock.advance(3)

    assert fired == [("early", 1001.0), ("twin", 1001.0), ("late", 1003.0)]
    assert clock.now() == 1003.0


async def test_a_timer_set_by_a_timer_is_due_in_its_turn() -> None:
    clock = VirtualClock(start=0.0)
    fired: list[float] = []

    def tick() -> None:
        fired.append(clock.now())
        clock.call_later(1, tick)

    clock.call_later(1, tick)
    await clock.advance(3.5)

    assert fired == [1.0, 2.0, 3.0]


async def test_tasks_get_their_turns_between_two_timers() -> None:
    clock = VirtualClock(start=0.0)
    seen: list[float] = []
    first = asyncio.Event()

    async def work() -> None:
        await first.wait()
        for _ in range(20):  # as many awaits as a message takes
            await asyncio.sleep(0)
        seen.append(clock.now())

    task = asyncio.create_task(work())
    clock.call_later(1, first.set)
    clock.call_later(2, lambda: seen.append(clock.now()))
    await clock.advance(2)

    assert seen == [1.0, 2.0]
    await task


async def test_it_moves_to_the_next_timer_and_no_further() -> None:
    clock = VirtualClock(start=0.0)
    fired: list[float] = []
    for delay in (3600.0, 1.0):
        clock.call_later(delay, lambda: fired.append(clock.now()))

    assert await clock.advance_to_next()
    assert fired == [1.0]
    assert await clock.advance_to_next()
    assert fired == [1.0, 3600.0]
    assert not await clock.advance_to_next()
    assert clock.now() == 3600.0
