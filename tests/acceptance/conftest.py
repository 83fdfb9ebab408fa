"""The places that acceptance tests run in. Without a server those on RabbitMQ are skipped, or fail in CI."""

from collections.abc import AsyncIterator

import pytest

from tests.acceptance.places import Place, RabbitPlace, memory_place, rabbit_place
from tests.support import services


@pytest.fixture(autouse=True)
def clean_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The services of a test's markers answer; the library's variables are set by the test or not at all."""
    for name in ("rabbitmq", "redis"):
        if request.node.get_closest_marker(name) is not None:
            services.require(name)
    for name in ("RABBITMQ_URL", "QUEUE_NAME", "DLQ_NAME", "MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def rabbit() -> AsyncIterator[RabbitPlace]:
    async with rabbit_place() as place:
        yield place


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    async with memory_place() if request.param == "memory" else rabbit_place() as place:
        yield place
