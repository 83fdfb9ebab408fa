"""Steps that travel together: what makes up a trip, whose failure is whose, and the end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from autosell_rmq.exceptions import ClosedError, StoreUnavailable
from autosell_rmq.idempotency import Apart, Batching
from tests.unit.lease_fixtures import virtual_time

type Step = tuple[str, str]


class Store:
    """Keeps the trips; holds each at its gate, when it has one."""

    def __init__(self, *gates: asyncio.Event) -> None:
        self.trips: list[list[Step]] = []
        self.gates = list(gates)
        self.apart: dict[str, Exception] = {}
        self.breaks: Exception | None = None

    async def __call__(self, steps: Sequence[Step]) -> Sequence[str]:
        self.trips.append(list(steps))
        if self.gates:
            await self.gates.pop(0).wait()
        await asyncio.sleep(0)
        if self.breaks is not None:
            raise self.breaks
        for _, what in steps:
            if what in self.apart:
                raise Apart if len(steps) > 1 else self.apart[what]
        return [f"{what} done" for _, what in steps]


def batching(
    store: Callable[[Sequence[Step]], Awaitable[Sequence[str]]],
    *,
    most: int = 100,
    most_bytes: int = 1000,
    at_once: int = 4,
) -> Batching[Step, str]:
    return Batching(
        store,
        key=lambda step: step[0],
        size=lambda step: len(step[1]),
        most=most,
        most_bytes=most_bytes,
        at_once=at_once,
    )


def ask(together: Batching[Step, str], *steps: Step) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(_ask(together, step)) for step in steps]


async def _ask(together: Batching[Step, str], step: Step) -> str:
    return await together(step)


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def numbered(*numbers: int) -> list[Step]:
    return [(str(number), f"step {number}") for number in numbers]


@virtual_time
async def test_what_one_turn_asks_for_travels_together_and_waits_for_no_timer() -> None:
    store = Store()
    together = batching(store)

    answers = await asyncio.gather(*ask(together, *numbered(1, 2, 3)))

    assert answers == ["step 1 done", "step 2 done", "step 3 done"]
    assert await together(("4", "step 4")) == "step 4 done"
    assert store.trips == [numbered(1, 2, 3), numbered(4)]
    assert asyncio.get_running_loop().time() == 0


@virtual_time
async def test_what_is_asked_for_meanwhile_goes_with_the_next_trip() -> None:
    gate = asyncio.Event()
    store = Store(gate)
    together = batching(store)
    first = ask(together, *numbered(1))
    await turns()
    rest = ask(together, *numbered(2, 3))
    await turns()
    rest += ask(together, *numbered(4))
    await turns()
    assert store.trips == [numbered(1)]

    gate.set()
    await asyncio.gather(*first, *rest)

    assert store.trips == [numbered(1), numbered(2, 3, 4)]


@virtual_time
async def test_a_slow_trip_holds_nobody_up_but_its_own_keys() -> None:
    gates = [asyncio.Event() for _ in range(3)]
    store = Store(*gates)
    together = batching(store, at_once=2)
    first = ask(together, ("1", "claim"))
    await turns()
    same = ask(together, ("1", "complete"), ("1", "release"))
    second = ask(together, *numbered(2))
    await asyncio.sleep(0.06)
    assert store.trips == [[("1", "claim")], numbered(2)]

    third = ask(together, *numbered(3))
    await asyncio.sleep(10)
    assert len(store.trips) == 2, "there are no more than two at once"

    gates[1].set()
    gates[2].set()
    await asyncio.gather(*second, *third)
    assert store.trips[2] == numbered(3)
    gates[0].set()
    await asyncio.gather(*first, *same)
    assert store.trips[3:] == [[("1", "complete")], [("1", "release")]]


@virtual_time
async def test_a_trip_is_bounded_in_steps_and_in_bytes() -> None:
    store = Store()
    together = batching(store, most=3, most_bytes=100)
    big = ("big", "x" * 1000)

    await asyncio.gather(*ask(together, *numbered(1, 2, 3, 4), big, *numbered(5), ("6", "y" * 99)))

    assert store.trips == [numbered(1, 2, 3), numbered(4), [big], numbered(5), [("6", "y" * 99)]]


@virtual_time
async def test_one_trip_at_once_goes_on_by_itself() -> None:
    store = Store()
    together = batching(store, most=1, at_once=1)

    await asyncio.gather(*ask(together, *numbered(1, 2, 3)))

    assert store.trips == [numbered(1), numbered(2), numbered(3)]


@virtual_time
async def test_for_the_fault_of_one_each_goes_alone_and_is_told_at_once() -> None:
    store = Store()
    store.apart["step 2"] = ValueError("no")
    together = batching(store)

    good, bad, also = ask(together, *numbered(1, 2, 3))
    store.gates = [asyncio.Event() for _ in range(4)]
    _, _, held, _ = store.gates
    for gate in store.gates:
        if gate is not held:
            gate.set()

    assert [await good, await also] == ["step 1 done", "step 3 done"]
    assert not bad.done()
    assert store.trips == [numbered(1, 2, 3), numbered(1), numbered(2), numbered(3)]
    again = ask(together, ("2", "again"))
    await asyncio.sleep(1)
    assert len(store.trips) == 4, "its key is under way still"
    held.set()
    with pytest.raises(ValueError, match="no"):
        await bad
    assert await again[0] == "again done"


@virtual_time
async def test_a_trip_that_fails_fails_all_of_it_and_nothing_else() -> None:
    gate = asyncio.Event()
    store = Store(gate)
    store.breaks = StoreUnavailable("down")
    together = batching(store)
    lost = ask(together, *numbered(1, 2))
    await turns()
    later = ask(together, *numbered(3))
    gate.set()

    for each in lost:
        with pytest.raises(StoreUnavailable, match="down"):
            await each
    store.breaks = None
    assert await later[0] == "step 3 done"


@virtual_time
async def test_a_cancelled_caller_is_left_behind_before_the_departure() -> None:
    gate = asyncio.Event()
    store = Store(gate)
    together = batching(store)
    first = ask(together, *numbered(1))
    await turns()
    gone, stays = ask(together, *numbered(2, 3))
    await turns()
    gone.cancel()
    gate.set()

    assert await stays == "step 3 done"
    await asyncio.gather(*first)
    assert gone.cancelled()
    assert store.trips == [numbered(1), numbered(3)]


@virtual_time
async def test_afterwards_nobody_else_notices_and_its_next_step_comes_later() -> None:
    gate = asyncio.Event()
    store = Store(gate)
    together = batching(store)
    gone, stays = ask(together, ("1", "claim"), ("2", "claim"))
    await turns()
    gone.cancel()
    await turns()
    release = ask(together, ("1", "release"))
    await turns()
    assert store.trips == [[("1", "claim"), ("2", "claim")]]

    gate.set()
    assert await stays == "claim done"
    await asyncio.gather(*release)
    assert store.trips[1:] == [[("1", "release")]]


@virtual_time
async def test_the_end_waits_for_everything_that_was_asked_for() -> None:
    gate = asyncio.Event()
    store = Store(gate)
    together = batching(store, most=1)
    asked = ask(together, *numbered(1, 2, 3))
    await turns()
    closing = asyncio.create_task(together.close())
    await turns()
    with pytest.raises(ClosedError):
        await together(("4", "step 4"))
    assert not closing.done()

    gate.set()
    await closing

    assert [await each for each in asked] == ["step 1 done", "step 2 done", "step 3 done"]
    await together.close()


@virtual_time
async def test_what_has_not_departed_when_the_end_is_cut_short_is_refused() -> None:
    gate = asyncio.Event()
    together = batching(Store(gate), at_once=1)
    [under_way] = ask(together, *numbered(1))
    await turns()
    [waiting] = ask(together, *numbered(2))
    await turns()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await together.close()

    with pytest.raises(ClosedError):
        await waiting
    gate.set()
    assert await under_way == "step 1 done"


async def test_another_loop_has_trips_of_its_own() -> None:
    gate = asyncio.Event()
    store = Store(gate)
    together = batching(store)
    here = ask(together, *numbered(1))
    await turns()

    async def elsewhere() -> str:
        return await together(("2", "step 2"))

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == "step 2 done"
    gate.set()
    assert await here[0] == "step 1 done"
    await together.close()
