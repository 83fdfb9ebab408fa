"""The stages that the tests of apps play on: each test on both brokers, unless it asks for one."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.app_fixtures import Stage
from tests.integration.stage_fixtures import MemoryStage, RabbitStage, memory_stage, rabbit_stage
from tests.support.homeless import forget_homeless


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's variables are set by the test or not at all."""
    for name in ("RABBITMQ_URL", "QUEUE_NAME", "DLQ_NAME", "MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def stage(request: pytest.FixtureRequest, clean_environment: None) -> AsyncIterator[Stage]:
    if request.param == "memory":
        async with memory_stage() as memory:
            yield memory
    else:
        async with rabbit_stage() as rabbit:
            yield rabbit


@pytest.fixture
async def memory(clean_environment: None) -> AsyncIterator[MemoryStage]:
    async with memory_stage() as stage:
        yield stage


@pytest.fixture
async def rabbit(clean_environment: None) -> AsyncIterator[RabbitStage]:
    async with rabbit_stage() as stage:
        yield stage


@pytest.fixture
async def shared(stage: Stage) -> AsyncIterator[Stage]:
    """A stage on which nothing of this test stays in the queue that all tests share."""
    yield stage
    await forget_homeless(stage.outside, *stage.queues)
