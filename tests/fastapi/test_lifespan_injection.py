"""What the lifespan gives to handlers: the app's dependencies, its producers, and the state it yielded."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request

from autosell_rmq import ConfigError, RabbitMQProducer
from autosell_rmq_fastapi import LifespanState, Producer, SyncProducer, producer_of, rmq_lifespan
from tests.fastapi.serving import serving
from tests.integration.app_fixtures import Stage


@asynccontextmanager
async def prices(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
    yield {"price": 3}


def rebate() -> int:
    return 1


async def test_handlers_get_dependencies_producers_and_state(stage: Stage) -> None:
    rmq, queue, other = stage.app(), stage.queue(), stage.queue("other")
    app = FastAPI(lifespan=rmq_lifespan(rmq, prices))

    @rmq.handler(queue)
    async def cost(
        count: int,
        producer: Producer,
        same: Annotated[RabbitMQProducer, Depends(producer_of(rmq))],
        state: LifespanState,
        less: Annotated[int, Depends(rebate)],
    ) -> int:
        assert producer is same is rmq.producer
        doubled = (await producer.send_message(other, count))["data"]
        return int(doubled) * int(state.price) - less

    @rmq.handler(other)
    def double(count: int, producer: SyncProducer) -> int:
        producer.send_fire_and_forget(other + "_dlq", "seen")
        return count * 2

    app.dependency_overrides[rebate] = lambda: 4

    async with serving(app):
        assert (await rmq.producer.send_message(queue, 5))["data"] == 26
    assert rmq.injector is None


async def test_a_handler_that_asks_for_a_request_ends_the_start(stage: Stage) -> None:
    def address(request: Request) -> str:
        return str(request.url)

    rmq = stage.app()

    @rmq.handler(stage.queue())
    async def handle(payload: int, address: Annotated[str, Depends(address)]) -> None: ...

    with pytest.raises(ConfigError, match=r"handle.*request"):
        async with serving(FastAPI(lifespan=rmq_lifespan(rmq))):
            pass
