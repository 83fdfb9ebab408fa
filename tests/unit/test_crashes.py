"""The promise under crashes: a worker dies at every await of its seams, and nothing is lost or done twice."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from autosell_rmq.exceptions import PublishError, PublishNacked, PublishUnknown
from autosell_rmq.testing import Faults
from tests.support.crash_world import RETRIES, World

type Kind = Literal["quorum", "classic"]
type Scenario = Callable[[World], Coroutine[None, None, None]]


async def succeeds(world: World) -> None:
    await world.send("a")


async def retries(world: World) -> None:
    await world.send("a", failures=RETRIES)
    await world.pass_time(10)


async def is_rejected(world: World) -> None:
    await world.send("a", reject=True)


async def is_duplicated(world: World) -> None:
    await world.send("a")
    await world.send("a")


async def is_duplicated_with_two_workers(world: World) -> None:
    await world.start(1)
    await world.send("a")
    await world.send("a")
    await asyncio.gather(world.send("b"), world.send("b"), world.send("b"))
    await world.pass_time(10)


async def cannot_publish(world: World) -> None:
    world.fail_publishes(0, PublishNacked, 2)
    await world.send("a")
    world.fail_publishes(0, PublishUnknown, 2)
    await world.send("b", reject=True)


async def drains(world: World) -> None:
    await world.send("a")
    await world.drain()


SCENARIOS = [
    succeeds,
    retries,
    is_rejected,
    is_duplicated,
    is_duplicated_with_two_workers,
    cannot_publish,
    drains,
]


async def play(scenario: Scenario, crash_at: int | None, kind: Kind) -> Faults:
    world = World(kind=kind)
    await world.open()
    try:
        await world.start()
        await world.kill()  # the queues exist from here on
        faults = await world.start(crash_at=crash_at)
        await scenario(world)
        await world.end()
        world.check()
    finally:
        await world.close()
    return faults


@pytest.mark.parametrize("kind", ["quorum", "classic"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_crash_at_any_await_loses_nothing(scenario: Scenario, kind: Kind) -> None:
    quiet = await play(scenario, None, kind)
    assert quiet.counter > 4
    for number in range(1, quiet.counter + 1):
        crashed = await play(scenario, number, kind)
        assert crashed.dead, f"no crash at {number}"


places = st.integers(0, 1)


class Crashes(RuleBasedStateMachine):
    """Workers start, crash, are killed and drain while requests and duplicates come as they like."""

    kind: Kind = "quorum"

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._world = World(kind=self.kind)

    def _run(self, step: Coroutine[None, None, None]) -> None:
        self._runner.run(step)

    @initialize()
    def open(self) -> None:
        async def first() -> None:
            await self._world.open()
            await self._world.start()
            await self._world.kill()

        self._run(first())

    @rule(identity=st.sampled_from("abcd"), failures=st.integers(0, RETRIES))
    def send(self, identity: str, failures: int) -> None:
        self._run(self._world.send(identity, failures=failures))

    @rule(identities=st.lists(st.sampled_from("abcd"), min_size=2, max_size=8))
    def send_at_once(self, identities: list[str]) -> None:
        async def burst() -> None:
            await asyncio.gather(*(self._world.send(identity) for identity in identities))

        self._run(burst())

    @rule(identity=st.sampled_from(["poison", "poison2"]))
    def send_poison(self, identity: str) -> None:
        self._run(self._world.send(identity, reject=True))

    @rule(place=places, crash_at=st.none() | st.integers(1, 40))
    def start(self, place: int, crash_at: int | None) -> None:
        async def again() -> None:
            await self._world.kill(place)
            await self._world.start(place, crash_at=crash_at)

        self._run(again())

    @rule(place=places, error=st.sampled_from([PublishNacked, PublishUnknown]), times=st.integers(1, 3))
    def fail_publishes(self, place: int, error: type[PublishError], times: int) -> None:
        self._world.fail_publishes(place, error, times)

    @rule(place=places)
    def kill(self, place: int) -> None:
        self._run(self._world.kill(place))

    @rule(place=places)
    def drain(self, place: int) -> None:
        self._run(self._world.drain(place))

    @rule(seconds=st.sampled_from([0.5, 1, 3, 30]))
    def pass_time(self, seconds: float) -> None:
        self._run(self._world.pass_time(seconds))

    def teardown(self) -> None:
        try:
            self._run(self._world.end())
            self._world.check()
        finally:
            self._run(self._world.close())
            self._runner.close()


class ClassicCrashes(Crashes):
    kind = "classic"


_budget = settings(
    max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

TestCrashes = pytest.mark.timeout(120)(Crashes.TestCase)
TestCrashes.settings = _budget
TestClassicCrashes = pytest.mark.timeout(120)(ClassicCrashes.TestCase)
TestClassicCrashes.settings = _budget
