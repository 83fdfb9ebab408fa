"""The producer in routes of every kind, replaced in tests, and what is said where it cannot be had."""

import asyncio
import gc
from collections.abc import Callable
from typing import Annotated, Any
from weakref import ref

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient

from autosell_rmq import BlockingProducer, ClosedError, ConfigError, RabbitMQ, RabbitMQProducer
from autosell_rmq_fastapi import (
    Producer,
    SyncProducer,
    get_producer,
    get_sync_producer,
    producer_of,
    rmq_lifespan,
    sync_producer_of,
)
from tests.fastapi.serving import client_of, serving
from tests.integration.app_fixtures import Stage


async def double(payload: int) -> int:
    return payload * 2


def consuming(stage: Stage) -> tuple[RabbitMQ, str]:
    rmq, queue = stage.app(), stage.queue()
    rmq.handler(queue)(double)
    return rmq, queue


# --- routes ---------------------------------------------------------------------------------------------


async def test_async_and_sync_routes_share_the_apps_connection(stage: Stage) -> None:
    rmq, queue = consuming(stage)
    app = FastAPI(lifespan=rmq_lifespan(rmq))

    @app.get("/async/{number}")
    async def ask(number: int, producer: Producer) -> Any:  # noqa: ANN401 - a reply
        assert producer is rmq.producer
        return (await producer.send_message(queue, number))["data"]

    @app.get("/sync/{number}")
    def ask_blocking(number: int, producer: SyncProducer) -> Any:  # noqa: ANN401
        return producer.send_message(queue, number)["data"]

    async with serving(app) as client:
        answers = await asyncio.gather(*(client.get(f"/{way}/2") for way in ("async", "sync", "sync")))
        assert [answer.json() for answer in answers] == [4, 4, 4]


async def test_a_dependency_may_use_it(stage: Stage) -> None:
    rmq, queue = consuming(stage)
    app = FastAPI(lifespan=rmq_lifespan(rmq))

    class Doubles:
        def __init__(self, producer: Producer) -> None:
            self.producer = producer

        async def of(self, number: int) -> Any:  # noqa: ANN401
            return (await self.producer.send_message(queue, number))["data"]

    @app.get("/{number}")
    async def ask(number: int, doubles: Annotated[Doubles, Depends()]) -> Any:  # noqa: ANN401
        return await doubles.of(number)

    async with serving(app) as client:
        assert (await client.get("/2")).json() == 4


async def test_background_tasks_send_after_the_response(stage: Stage) -> None:
    queue = await stage.declared()
    rmq = stage.app()
    app = FastAPI(lifespan=rmq_lifespan(rmq))

    @app.get("/")
    async def later(tasks: BackgroundTasks, producer: Producer, blocking: SyncProducer) -> None:
        tasks.add_task(producer.send_fire_and_forget, queue, 1)
        tasks.add_task(blocking.send_fire_and_forget, queue, 2)

    async with serving(app) as client:
        assert (await client.get("/")).status_code == 200
        await stage.has(queue, 2)


async def test_a_websocket_asks(stage: Stage) -> None:
    rmq, queue = consuming(stage)
    app = FastAPI(lifespan=rmq_lifespan(rmq))

    @app.websocket("/")
    async def ask(socket: WebSocket, producer: Producer) -> None:
        await socket.accept()
        async for number in socket.iter_json():
            await socket.send_json((await producer.send_message(queue, number))["data"])

    def talk() -> list[int]:
        with TestClient(app) as client, client.websocket_connect("/") as socket:
            answers = []
            for number in range(3):
                socket.send_json(number)
                answers.append(socket.receive_json())
            return answers

    assert await asyncio.to_thread(talk) == [0, 2, 4]


async def test_a_sync_producer_in_an_async_route_is_told_at_once(memory: Stage) -> None:
    rmq, queue = consuming(memory)
    app = FastAPI(lifespan=rmq_lifespan(rmq))

    @app.get("/")
    async def wrong(producer: SyncProducer) -> None:
        producer.send_fire_and_forget(queue, 1)

    async with serving(app) as client:
        with pytest.raises(ClosedError, match="inside an event loop would stop it: use the async producer"):
            await client.get("/")


# --- several objects ------------------------------------------------------------------------------------


async def test_each_of_several_objects_has_its_own(stage: Stage) -> None:
    (orders, queue), (billing, other) = consuming(stage), consuming(stage)
    app = FastAPI(lifespan=rmq_lifespan(billing, rmq_lifespan(orders)))

    @app.get("/async")
    async def which(
        one: Annotated[RabbitMQProducer, Depends(producer_of(orders))],
        two: Annotated[RabbitMQProducer, Depends(producer_of(billing))],
    ) -> bool:
        return (one, two) == (orders.producer, billing.producer)

    @app.get("/sync")
    def ask(
        one: Annotated[BlockingProducer, Depends(sync_producer_of(orders))],
        two: Annotated[BlockingProducer, Depends(sync_producer_of(billing))],
    ) -> list[Any]:
        return [one.send_message(queue, 1)["data"], two.send_message(other, 2)["data"]]

    async with serving(app) as client:
        assert (await client.get("/async")).json() is True
        assert (await client.get("/sync")).json() == [2, 4]


@pytest.mark.parametrize("way", ["async", "sync"])
async def test_which_of_several_objects_has_to_be_said(memory: Stage, way: str) -> None:
    app = FastAPI(lifespan=rmq_lifespan(memory.app(), rmq_lifespan(memory.app())))
    add_routes(app)
    async with serving(app) as client:
        with pytest.raises(ConfigError, match=r"has 2 RabbitMQ objects.*producer_of\(billing\)"):
            await client.get(f"/{way}")


async def test_an_object_that_the_app_has_not_started_is_refused(memory: Stage) -> None:
    rmq, other = memory.app(), memory.app()
    app = FastAPI(lifespan=rmq_lifespan(rmq))

    @app.get("/async")
    async def ask(producer: Annotated[RabbitMQProducer, Depends(producer_of(other))]) -> None:
        raise AssertionError

    @app.get("/sync")
    def ask_blocking(producer: Annotated[BlockingProducer, Depends(sync_producer_of(other))]) -> None:
        raise AssertionError

    async with serving(app) as client:
        for way in ("async", "sync"):
            with pytest.raises(ConfigError, match="has not started: add it to the lifespan"):
                await client.get(f"/{way}")


@pytest.mark.parametrize("of", [producer_of, sync_producer_of])
def test_an_object_has_one_dependency_and_is_not_kept_alive_by_it(of: Callable[[RabbitMQ], object]) -> None:
    rmq, other = RabbitMQ("memory://kept"), RabbitMQ("memory://kept")
    dependency = of(rmq)
    assert of(rmq) is dependency
    assert of(other) is not dependency

    gone = ref(rmq)
    del rmq, dependency
    gc.collect()
    assert gone() is None


# --- without one ----------------------------------------------------------------------------------------


def add_routes(app: FastAPI) -> None:
    @app.get("/async")
    async def ask(producer: Producer) -> Any:  # noqa: ANN401
        return await producer.send_fire_and_forget("orders", 1)

    @app.get("/sync")
    def ask_blocking(producer: SyncProducer) -> Any:  # noqa: ANN401
        return producer.send_fire_and_forget("orders", 1)


WHAT_TO_DO = r"rmq_lifespan\(rmq\).*with TestClient\(app\).*LifespanManager"


@pytest.mark.parametrize("way", ["async", "sync"])
def test_a_test_client_that_runs_no_lifespan_is_told_what_to_do(way: str) -> None:
    app = FastAPI(lifespan=rmq_lifespan(RabbitMQ("memory://never")))
    add_routes(app)
    with pytest.raises(ConfigError, match=WHAT_TO_DO):
        TestClient(app).get(f"/{way}")


@pytest.mark.parametrize("way", ["async", "sync"])
async def test_httpx_without_a_lifespan_is_told_what_to_do(way: str) -> None:
    app = FastAPI()
    add_routes(app)
    async with client_of(app) as client:
        with pytest.raises(ConfigError, match=WHAT_TO_DO):
            await client.get(f"/{way}")


# --- replaced -------------------------------------------------------------------------------------------


class FakeProducer:
    def send_fire_and_forget(self, queue: str, data: object) -> str:
        return f"{queue}: {data}"


class AsyncFakeProducer:
    async def send_fire_and_forget(self, queue: str, data: object) -> str:
        return f"{queue}: {data}"


async def test_it_can_be_replaced_without_any_lifespan() -> None:
    app = FastAPI(lifespan=rmq_lifespan(RabbitMQ("memory://never")))
    add_routes(app)
    app.dependency_overrides[get_producer] = AsyncFakeProducer
    app.dependency_overrides[get_sync_producer] = FakeProducer
    async with client_of(app) as client:
        for way in ("async", "sync"):
            assert (await client.get(f"/{way}")).json() == "orders: 1"


async def test_the_one_of_an_object_can_be_replaced() -> None:
    billing, app = RabbitMQ("memory://never"), FastAPI()

    @app.get("/async")
    async def ask(producer: Annotated[RabbitMQProducer, Depends(producer_of(billing))]) -> Any:  # noqa: ANN401
        return await producer.send_fire_and_forget("bills", 1)

    @app.get("/sync")
    def ask_blocking(producer: Annotated[BlockingProducer, Depends(sync_producer_of(billing))]) -> Any:  # noqa: ANN401
        return producer.send_fire_and_forget("bills", 1)

    app.dependency_overrides[producer_of(billing)] = AsyncFakeProducer
    app.dependency_overrides[sync_producer_of(billing)] = FakeProducer
    async with client_of(app) as client:
        for way in ("async", "sync"):
            assert (await client.get(f"/{way}")).json() == "bills: 1"
