"""``rmq_lifespan`` serves ``Depends`` in handlers: the state and the producers that routes have."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request

from autosell_rmq import BlockingProducer, ConfigError, RabbitMQProducer
from autosell_rmq_fastapi import (
    LifespanState,
    Producer,
    SyncProducer,
    producer_of,
    rmq_lifespan,
    sync_producer_of,
)
from tests.fastapi.serving import serving
from tests.integration.app_fixtures import Stage


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
    yield {"pool": ["a row"]}


class Client:
    """For routes and handlers alike."""

    def __init__(self, producer: Producer, state: LifespanState) -> None:
        self.producer = producer
        self.pool: list[str] = state.pool


async def test_a_handler_has_what_a_route_has(stage: Stage) -> None:
    queue, other = stage.queue(), stage.queue()
    rmq = stage.app()
    app = FastAPI(lifespan=rmq_lifespan(rmq, lifespan))

    @rmq.handler(other)
    async def double(number: int) -> int:
        return number * 2

    @rmq.handler(queue)
    async def ask(number: int, client: Annotated[Client, Depends()], state: LifespanState) -> list[Any]:
        reply = await client.producer.send_message(other, number)
        return [reply["data"], client.pool, state.autosell_rmq == (rmq,)]

    async with serving(app):
        reply = await rmq.producer.send_message(queue, 4)

    assert reply["data"] == [8, ["a row"], True]


async def test_a_sync_handler_has_the_sync_producer(stage: Stage) -> None:
    queue, other = stage.queue(), stage.queue()
    rmq = stage.app()
    app = FastAPI(lifespan=rmq_lifespan(rmq))

    @rmq.handler(other)
    async def double(number: int) -> int:
        return number * 2

    @rmq.handler(queue)
    def ask(number: int, producer: SyncProducer) -> int:
        data: int = producer.send_message(other, number)["data"]
        return data

    async with serving(app):
        assert (await rmq.producer.send_message(queue, 4))["data"] == 8


async def test_with_several_objects_a_handler_has_those_of_its_own(memory: Stage) -> None:
    orders, billing = memory.app(), memory.app()
    app = FastAPI(lifespan=rmq_lifespan(billing, rmq_lifespan(orders)))
    seen: list[tuple[object, ...]] = []

    async def note(
        own: Producer,
        sync: SyncProducer,
        first: Annotated[RabbitMQProducer, Depends(producer_of(orders))],
        blocking: Annotated[BlockingProducer, Depends(sync_producer_of(orders))],
    ) -> None:
        assert isinstance(sync, BlockingProducer)
        assert isinstance(blocking, BlockingProducer)
        seen.append((own, first))

    queues = {memory.queue(): orders, memory.queue(): billing}
    for queue, rmq in queues.items():

        @rmq.handler(queue)
        async def handle(payload: object, noted: Annotated[None, Depends(note)]) -> None: ...

    async with serving(app):
        for queue, rmq in queues.items():
            await rmq.producer.send_message(queue, None)

    assert seen == [(orders.producer, orders.producer), (billing.producer, orders.producer)]


async def test_overrides_count_in_an_app(memory: Stage) -> None:
    queue, rmq = memory.queue(), memory.app()
    app = FastAPI(lifespan=rmq_lifespan(rmq))

    def setting() -> str:
        return "real"

    @rmq.handler(queue)
    async def tell(payload: object, value: Annotated[str, Depends(setting)]) -> str:
        return value

    async with serving(app):
        before = await rmq.producer.send_message(queue, None)
        app.dependency_overrides[setting] = lambda: "overridden"
        after = await rmq.producer.send_message(queue, None)

    assert (before["data"], after["data"]) == ("real", "overridden")


async def test_what_only_a_route_has_ends_the_start(memory: Stage) -> None:
    queue, rmq = memory.queue(), memory.app()
    app = FastAPI(lifespan=rmq_lifespan(rmq))

    def client(request: Request) -> str:
        return str(request.client)

    @rmq.handler(queue)
    async def tell(payload: object, value: Annotated[str, Depends(client)]) -> None: ...

    with pytest.raises(ConfigError, match=r"its parameter 'request' wants the Request"):
        async with serving(app):
            raise AssertionError("started")
    assert rmq.problems


async def test_a_restart_has_the_state_of_its_own_run(memory: Stage) -> None:
    queue, rmq = memory.queue(), memory.app()
    runs: list[str] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[dict[str, str]]:
        runs.append("run")
        yield {"run": f"run {len(runs)}"}

    app = FastAPI(lifespan=rmq_lifespan(rmq, own))

    @rmq.handler(queue)
    async def tell(payload: object, state: LifespanState) -> str:
        return str(state.run)

    told = []
    for _ in range(2):
        async with serving(app):
            told.append((await rmq.producer.send_message(queue, None))["data"])

    assert told == ["run 1", "run 2"]
