"""The lifespan: the order of starts and stops, the state, several objects in one app."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request

from autosell_rmq import ConfigError, RabbitMQ, RabbitMQProducer
from autosell_rmq_fastapi import Producer, producer_of, rmq_lifespan
from tests.fastapi.serving import serving
from tests.integration.app_fixtures import Gate, Stage
from tests.support.waiting import eventually


async def double(payload: int) -> int:
    return payload * 2


async def test_the_apps_own_lifespan_is_entered_first_and_left_last(stage: Stage) -> None:
    queue, gate, log = stage.queue(), Gate(), list[str]()
    rmq = stage.app()

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[None]:
        assert rmq.problems
        app.state.factor = 3
        yield
        assert rmq.problems
        log.append("left")

    app = FastAPI(lifespan=rmq_lifespan(rmq, own))

    @rmq.handler(queue)
    async def multiply(payload: int) -> int:
        await gate()
        log.append("handled")
        return payload * int(app.state.factor)

    async with serving(app):
        asked = await stage.ask(queue, 2)
        await gate.has(1)
        asyncio.get_running_loop().call_soon(gate.open)

    assert log == ["handled", "left"]
    assert (await stage.reply(asked))["data"] == 6


async def test_the_state_of_the_apps_own_lifespan_is_kept(memory: Stage) -> None:
    rmq = memory.app()

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        yield {"pool": "a pool"}

    app = FastAPI(lifespan=rmq_lifespan(rmq, own))

    @app.get("/")
    async def look(request: Request) -> list[bool]:
        return [request.state.pool == "a pool", request.state.autosell_rmq == (rmq,)]

    async with serving(app) as client:
        assert (await client.get("/")).json() == [True, True]


async def test_an_app_without_handlers_only_sends(stage: Stage) -> None:
    queue = await stage.declared()
    rmq = stage.app()
    async with serving(FastAPI(lifespan=rmq_lifespan(rmq))):
        assert rmq.problems == ()
        await rmq.producer.send_fire_and_forget(queue, 1)
    await stage.has(queue, 1)


async def test_an_app_that_is_not_to_consume_leaves_the_messages_there(stage: Stage) -> None:
    queue = await stage.declared()
    rmq = stage.app()
    rmq.handler(queue)(double)
    async with serving(FastAPI(lifespan=rmq_lifespan(rmq, consume=False))):
        await rmq.producer.send_fire_and_forget(queue, 1)
        await stage.has(queue, 1)
    await stage.has(queue, 1)


async def test_several_objects_by_nesting(stage: Stage) -> None:
    orders_queue, billing_queue = stage.queue("orders"), stage.queue("billing")
    orders, billing = stage.app(), stage.app()
    orders.handler(orders_queue)(double)
    billing.handler(billing_queue)(double)

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        yield {"pool": "a pool"}

    app = FastAPI(lifespan=rmq_lifespan(billing, rmq_lifespan(orders, own)))

    @app.get("/")
    async def look(
        request: Request,
        to_orders: Annotated[RabbitMQProducer, Depends(producer_of(orders))],
        to_billing: Annotated[RabbitMQProducer, Depends(producer_of(billing))],
    ) -> list[bool]:
        asked = await asyncio.gather(
            to_orders.send_message(billing_queue, 1), to_billing.send_message(orders_queue, 2)
        )
        return [
            request.state.autosell_rmq == (orders, billing),
            request.state.pool == "a pool",
            [reply["data"] for reply in asked] == [2, 4],
            (to_orders, to_billing) == (orders.producer, billing.producer),
        ]

    async with serving(app) as client:
        assert (await client.get("/")).json() == [True] * 4
    assert orders.problems
    assert billing.problems


async def test_routers_and_mounted_apps_have_it_too(stage: Stage) -> None:
    queue = stage.queue()
    rmq = stage.app()
    rmq.handler(queue)(double)
    router, mounted = APIRouter(), FastAPI()

    @router.post("/{number}")
    @mounted.post("/{number}")
    async def ask(number: int, producer: Producer) -> int:
        data: int = (await producer.send_message(queue, number))["data"]
        return data

    app = FastAPI(lifespan=rmq_lifespan(rmq))
    app.include_router(router, prefix="/router")
    app.mount("/mounted", mounted)

    async with serving(app) as client:
        assert (await client.post("/router/1")).json() == 2
        assert (await client.post("/mounted/2")).json() == 4


async def test_a_routers_lifespan_may_have_it(memory: Stage) -> None:
    rmq = memory.app()
    app = FastAPI()
    app.include_router(APIRouter(lifespan=rmq_lifespan(rmq)))

    @app.get("/")
    async def look(producer: Producer) -> bool:
        return producer is rmq.producer

    async with serving(app) as client:
        assert (await client.get("/")).json() is True


async def test_two_lifespans_beside_each_other_are_refused(memory: Stage) -> None:
    """FastAPI would keep one of the two states."""
    orders, billing = memory.app(), memory.app()
    app = FastAPI(lifespan=rmq_lifespan(orders))
    app.include_router(APIRouter(lifespan=rmq_lifespan(billing)))

    with pytest.raises(ConfigError, match=r"rmq_lifespan\(billing, rmq_lifespan\(orders\)\)"):
        async with serving(app):
            pass
    assert orders.problems
    async with serving(FastAPI(lifespan=rmq_lifespan(orders))):
        pass


@pytest.mark.parametrize("value", ["mine", (), (1,)], ids=repr)
async def test_a_state_with_our_key_is_refused(memory: Stage, value: object) -> None:
    rmq = memory.app()

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        yield {"autosell_rmq": value}

    app = FastAPI(lifespan=rmq_lifespan(rmq, own))
    if value == ():  # says the same as we do
        async with serving(app):
            return
    with pytest.raises(ConfigError, match="the key 'autosell_rmq'"):
        async with serving(app):
            pass


async def _bare(app: FastAPI) -> AsyncGenerator[None]:
    yield


def _sync(app: FastAPI) -> Iterator[None]:
    yield


async def _plain(app: FastAPI) -> None: ...


@pytest.mark.parametrize("own", [_bare, _sync, _plain])
def test_a_bare_function_is_refused_where_it_is_written(own: Any) -> None:  # noqa: ANN401
    with pytest.raises(ConfigError, match=rf"decorate {own.__name__}\(\) with @contextlib.asynccontextm"):
        rmq_lifespan(RabbitMQ("memory://bare"), own)


@pytest.mark.parametrize("rmq", [None, "amqp://localhost/", FastAPI()], ids=["None", "url", "app"])
def test_what_is_no_rabbitmq_object_is_refused_where_it_is_written(rmq: Any) -> None:  # noqa: ANN401
    """The app is what it gets in `FastAPI(lifespan=rmq_lifespan)`."""
    with pytest.raises(ConfigError, match=rf"not {type(rmq).__name__}: write FastAPI\(lifespan=rmq_lifespan"):
        rmq_lifespan(rmq)


def test_two_objects_side_by_side_are_refused_where_they_are_written() -> None:
    second: Any = RabbitMQ("memory://second")

    with pytest.raises(ConfigError, match=r"nest them"):
        rmq_lifespan(RabbitMQ("memory://first"), second)


async def test_one_object_in_two_apps_is_refused_and_the_first_goes_on(stage: Stage) -> None:
    queue = stage.queue()
    rmq = stage.app()
    rmq.handler(queue)(double)
    first, second = (FastAPI(lifespan=rmq_lifespan(rmq)) for _ in range(2))

    async with serving(first):
        with pytest.raises(ConfigError, match="runs already"):
            async with serving(second):
                pass
        assert (await rmq.producer.send_message(queue, 2))["data"] == 4
    async with serving(second):
        assert (await rmq.producer.send_message(queue, 2))["data"] == 4


async def test_one_object_twice_in_one_app_is_refused(memory: Stage) -> None:
    rmq = memory.app()
    with pytest.raises(ConfigError, match="runs already"):
        async with serving(FastAPI(lifespan=rmq_lifespan(rmq, rmq_lifespan(rmq)))):
            pass
    async with serving(FastAPI(lifespan=rmq_lifespan(rmq))):
        pass


async def test_an_object_on_another_event_loop_is_refused_and_goes_on_there(stage: Stage) -> None:
    queue = stage.queue()
    rmq = stage.app()
    rmq.handler(queue)(double)
    await rmq.start_consuming()

    def elsewhere() -> None:
        async def run() -> None:
            async with serving(FastAPI(lifespan=rmq_lifespan(rmq))):
                pass

        asyncio.run(run())

    with pytest.raises(Exception, match="connected on another event loop"):
        await asyncio.to_thread(elsewhere)
    assert (await rmq.producer.send_message(queue, 2))["data"] == 4


async def test_an_object_that_the_apps_own_lifespan_has_connected(stage: Stage) -> None:
    queue = await stage.declared()
    rmq = stage.app()

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[None]:
        async with rmq:
            await rmq.producer.send_fire_and_forget(queue, "up")
            yield

    async with serving(FastAPI(lifespan=rmq_lifespan(rmq, own))):
        await rmq.producer.send_fire_and_forget(queue, "serving")
    await stage.has(queue, 2)


async def test_a_consumer_that_ends_by_itself_leaves_the_app_serving(stage: Stage) -> None:
    queue, other = stage.queue("deleted"), stage.queue("other")
    rmq = stage.app()
    for name in (queue, other):
        rmq.handler(name)(double)
    app = FastAPI(lifespan=rmq_lifespan(rmq))

    @app.get("/{number}")
    async def ask(number: int, producer: Producer) -> int:
        data: int = (await producer.send_message(other, number))["data"]
        return data

    async with serving(app) as client:
        await stage.delete_queue(queue)
        await eventually(lambda: bool(rmq.problems))
        assert (await client.get("/2")).json() == 4
        assert queue in rmq.problems[0]
