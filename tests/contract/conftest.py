"""Every contract test of a broker runs on each broker."""

from collections.abc import AsyncIterator

import pytest

from autosell_rmq.broker import Broker
from tests.support import services
from tests.support.broker_labs import BrokerLab, MemoryLab, RabbitLab


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[BrokerLab]:
    if request.param == "memory":
        async with MemoryLab() as memory:
            yield memory
    else:
        services.require("rabbitmq")
        async with RabbitLab() as rabbit:
            yield rabbit


@pytest.fixture
async def broker(lab: BrokerLab) -> Broker:
    return await lab.open()


@pytest.fixture(params=["quorum", "classic"])
async def queue(request: pytest.FixtureRequest, lab: BrokerLab, broker: Broker) -> str:
    """A queue of either type."""
    return await lab.queue(broker, {"x-queue-type": request.param})
