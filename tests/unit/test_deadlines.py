"""One timer for the runs of a handler: each ends at its own time, and cancellations are told apart."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable

import pytest

from autosell_rmq.deadlines import Deadlines
from tests.support.waiting import PATIENCE


async def timed(deadlines: Deadlines, timeout: float, work: Callable[[], asyncio.Future[object]]) -> object:
    with deadlines.at(asyncio.get_running_loop().time() + timeout):
        return await work()


def never() -> asyncio.Future[object]:
    return asyncio.get_running_loop().create_future()


async def test_a_run_that_takes_too_long_is_cancelled_at_its_time() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        await timed(Deadlines(), 0.05, never)

    assert 0.045 <= loop.time() - began < PATIENCE
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_later_runs_have_their_own_time_though_the_first_ends_early() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines()
    first, ended = never(), []

    async def one(work: Callable[[], asyncio.Future[object]]) -> None:
        began = loop.time()
        try:
            await timed(deadlines, 0.2, work)
        except TimeoutError:
            ended.append(loop.time() - began)

    async with asyncio.TaskGroup() as group:
        group.create_task(one(lambda: first))
        await asyncio.sleep(0.1)
        for _ in range(3):
            group.create_task(one(never))
        first.set_result(None)

    assert len(ended) == 3
    assert all(0.195 <= took < PATIENCE for took in ended)


async def test_runs_that_end_in_time_share_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines()
    timers = 0
    call_at = loop.call_at

    def counted(when: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(when, callback, *args)

    monkeypatch.setattr(loop, "call_at", counted)
    done = never()
    done.set_result(1)
    for _ in range(100):
        assert await timed(deadlines, 60, lambda: done) == 1

    assert timers == 1


async def test_a_cancellation_from_outside_stays_one() -> None:
    task = asyncio.create_task(timed(Deadlines(), 60, never))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_are_a_cancellation() -> None:
    deadlines = Deadlines()

    async def stubborn() -> object:
        try:
            return await never()
        except asyncio.CancelledError:
            task.cancel()  # from outside, while it cleans up
            raise

    task = asyncio.create_task(timed(deadlines, 0.01, lambda: asyncio.ensure_future(stubborn())))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_run_that_swallows_its_cancellation_leaves_none_behind() -> None:
    deadlines = Deadlines()

    async def run() -> object:
        with (
            deadlines.at(asyncio.get_running_loop().time() + 0.01),
            contextlib.suppress(asyncio.CancelledError),
        ):
            await never()
        await asyncio.sleep(0)  # would raise if the cancellation were still there
        task = asyncio.current_task()
        return task.cancelling() if task is not None else None

    assert await asyncio.create_task(run()) == 0


async def test_a_run_that_has_ended_is_forgotten() -> None:
    deadlines = Deadlines()
    done = never()
    done.set_result(1)
    task = asyncio.create_task(timed(deadlines, 60, lambda: done))
    await task
    await asyncio.sleep(0)  # the loop has let go of it
    gone = weakref.ref(task)
    del task

    gc.collect()
    assert gone() is None


async def test_each_has_its_own_time_the_latest_first() -> None:
    deadlines = Deadlines()
    long = asyncio.create_task(timed(deadlines, 1000, never))
    await asyncio.sleep(0)
    for timeout in (0.02, 0.01):
        with pytest.raises(TimeoutError):
            await timed(deadlines, timeout, never)

    assert not long.done()
    long.cancel()


async def test_one_that_is_not_entered_cancels_nobody() -> None:
    deadlines = Deadlines()
    deadlines.at(asyncio.get_running_loop().time())
    with pytest.raises(TimeoutError):
        await timed(deadlines, 0.02, never)

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize(("first", "then"), [(60.0, 0.02), (0.02, 0.2)])
async def test_it_can_be_moved_both_ways(first: float, then: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def moved() -> None:
        with Deadlines().at(began + first) as deadline:
            await asyncio.sleep(0)
            deadline.reschedule(began + then)
            await never()

    with pytest.raises(TimeoutError):
        await moved()
    assert then - 0.005 <= loop.time() - began < PATIENCE
