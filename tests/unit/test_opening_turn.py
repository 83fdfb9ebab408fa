"""Many who connect the same producer or app at once, and a close in between."""

import asyncio
from collections.abc import Callable

import pytest

from autosell_rmq import BrokerUnavailable, ClosedError, RabbitMQ, RabbitMQProducer
from autosell_rmq.brokers import create_broker
from autosell_rmq.config import Settings
from autosell_rmq.testing import Faults, FaultyBroker

MANY = 5
URL = "memory://opening-turn"


@pytest.fixture(params=[RabbitMQProducer, RabbitMQ])
def kind(request: pytest.FixtureRequest) -> type[RabbitMQProducer] | type[RabbitMQ]:
    found: type[RabbitMQProducer] | type[RabbitMQ] = request.param
    return found


type Make = Callable[[Faults], RabbitMQProducer | RabbitMQ]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, kind: type[RabbitMQProducer] | type[RabbitMQ]) -> Make:
    def faulty(faults: Faults) -> RabbitMQProducer | RabbitMQ:
        broker = FaultyBroker(create_broker(Settings(url=URL)), faults)
        for user in ("producer.producer", "app"):
            monkeypatch.setattr(f"autosell_rmq.{user}.create_broker", lambda _: broker)
        return kind(URL)

    return faulty


async def test_all_who_wait_share_one_failure_and_the_next_tries_again(make: Make) -> None:
    faults = Faults()
    hold = faults.hold("open")
    faults.on("open", before=BrokerUnavailable)  # not applied to the call that is held
    faults.on("open", after=BrokerUnavailable)
    connecting = make(faults)
    calls = [asyncio.create_task(connecting.connect()) for _ in range(MANY)]
    await hold.reached.wait()
    hold.released.set()

    results = await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(result, BrokerUnavailable) for result in results)
    assert faults.passed == ["open:before", "open:after"]
    with pytest.raises(BrokerUnavailable):  # a call of later makes an attempt of its own
        await connecting.connect()
    await connecting.connect()
    await connecting.close()


async def test_one_who_is_cancelled_leaves_the_turn_to_the_next(make: Make) -> None:
    faults = Faults()
    hold = faults.hold("open")
    connecting = make(faults)
    first, second = (asyncio.create_task(connecting.connect()) for _ in range(2))
    await hold.reached.wait()
    first.cancel()
    await second
    assert first.cancelled()
    await connecting.close()


async def test_a_close_refuses_those_who_wait(make: Make) -> None:
    faults = Faults()
    hold = faults.hold("open")
    connecting = make(faults)
    first, *others = (asyncio.create_task(connecting.connect()) for _ in range(MANY))
    await hold.reached.wait()
    await connecting.close()
    first.cancel()

    results = await asyncio.gather(*others, return_exceptions=True)

    assert [type(result) for result in results] == [ClosedError] * (MANY - 1)
    assert faults.passed == ["open:before"]


async def test_a_close_during_the_first_connect_closes_what_is_being_opened(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = 0

    async def close(_: FaultyBroker) -> None:
        nonlocal closed
        closed += 1

    monkeypatch.setattr(FaultyBroker, "close", close)
    faults = Faults()
    hold = faults.hold("open")
    connecting = make(faults)
    call = asyncio.create_task(connecting.connect())
    await hold.reached.wait()
    await connecting.close()
    call.cancel()
    await asyncio.wait([call])
    assert closed == 1
