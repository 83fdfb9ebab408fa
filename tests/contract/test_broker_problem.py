"""What a broker says of its own connection."""

from autosell_rmq.broker import Broker
from autosell_rmq.testing import Faults, FaultyBroker
from tests.support.broker_labs import BrokerLab
from tests.support.publications import send, to


def problem(broker: Broker) -> str | None:
    """At this moment: a type checker takes a property for what it was before."""
    return broker.problem


async def test_an_open_connection_has_no_problem(lab: BrokerLab) -> None:
    broker = await lab.open()
    assert problem(broker) is None
    await broker.close()
    assert "not connected" in str(problem(broker))
    await broker.open()
    assert problem(broker) is None
    assert FaultyBroker(broker, Faults()).problem is None


async def test_a_lost_connection_comes_back_by_itself(lab: BrokerLab) -> None:
    broker, cut = await lab.open_cuttable()
    queue = await lab.queue(broker)
    assert broker.reconnects == 0
    cut()

    await send(broker, to(queue))  # waits for it

    assert broker.problem is None
    assert broker.reconnects == 1
    assert await broker.depth(queue) == 1
    assert FaultyBroker(broker, Faults()).reconnects == 1


async def test_a_connection_that_is_closed_does_not(lab: BrokerLab) -> None:
    broker, cut = await lab.open_cuttable()
    await broker.close()
    cut()
    assert "not connected" in str(broker.problem)
    assert broker.reconnects == 0
    await broker.open()
    assert broker.problem is None


async def test_nothing_is_blocked_without_an_alarm(lab: BrokerLab) -> None:
    broker = await lab.open()
    assert not broker.blocked
    assert not FaultyBroker(broker, Faults()).blocked
