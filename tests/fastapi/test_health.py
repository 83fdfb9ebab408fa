"""Liveness and readiness, as probes ask for them."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from autosell_rmq import BrokerUnavailable, ConfigError, RabbitMQ
from autosell_rmq.config import SettingsKwargs
from autosell_rmq.testing import Faults
from autosell_rmq_fastapi import rmq_lifespan, rmq_router
from tests.fastapi.serving import client_of, serving
from tests.integration.app_fixtures import Stage
from tests.integration.stage_fixtures import MemoryStage
from tests.support.amqp_proxy import AlarmingProxy, alarming_proxy
from tests.support.waiting import PATIENCE, eventually

# A queue that is gone is declared again after the back-off: none of these tests lasts so long.
STAYS_AWAY: SettingsKwargs = {"backoff": 9 * PATIENCE, "max_backoff": 9 * PATIENCE}

type Answer = tuple[int, str, list[str]]


async def double(payload: int) -> int:
    return payload * 2


async def ready(client: httpx2.AsyncClient, path: str = "/health/ready") -> Answer:
    response = await client.get(path)
    body = response.json()
    return response.status_code, body["status"], body["problems"]


async def is_ready(client: httpx2.AsyncClient) -> bool:
    return await ready(client) == (200, "ready", [])


async def is_unavailable(client: httpx2.AsyncClient) -> bool:
    return (await ready(client))[:2] == (503, "unavailable")


def app_with(*rmqs: RabbitMQ, consume: bool = True, **options: Any) -> FastAPI:  # noqa: ANN401
    lifespan = None
    for rmq in rmqs:
        lifespan = rmq_lifespan(rmq, lifespan, consume=consume)
    app = FastAPI(lifespan=lifespan)
    app.include_router(rmq_router(*rmqs, **options))
    return app


async def test_live_says_that_the_process_serves_whatever_the_broker_does() -> None:
    async with client_of(app_with(RabbitMQ("amqp://127.0.0.1:1/"))) as client:
        response = await client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_ready_while_it_runs(stage: Stage) -> None:
    rmq = stage.app()
    rmq.handler(stage.queue())(double)
    app = app_with(rmq)

    async with client_of(app) as client:
        assert await is_unavailable(client)
        async with serving(app) as running:
            assert await is_ready(running)
        status, _, [problem] = await ready(client)
        assert status == 503
        assert "not connected" in problem


async def test_a_consumer_that_ended_by_itself_is_named(stage: Stage) -> None:
    queue = stage.queue()
    rmq = stage.app(**STAYS_AWAY)
    rmq.handler(queue)(double)

    async with serving(app_with(rmq)) as client:
        await stage.delete_queue(queue)
        await eventually(lambda: is_unavailable(client))
        _, _, [problem] = await ready(client)
        assert queue in problem


async def test_an_outcome_that_cannot_be_published_is_named_until_it_can(memory: Stage) -> None:
    queue, faults = memory.queue(), Faults()
    rmq = await memory.faulty_app(faults)
    rmq.handler(queue)(double)
    faults.on("publish", before=BrokerUnavailable, times=1)
    again = faults.hold("publish")

    async with serving(app_with(rmq)) as client:
        asked = await memory.ask(queue, 2)
        await again.reached.wait()
        status, _, [problem] = await ready(client)
        assert status == 503
        assert "a reply to" in problem
        again.released.set()
        assert (await memory.reply(asked))["data"] == 4
        await eventually(lambda: is_ready(client))


async def test_an_app_that_only_sends_is_ready_when_it_is_connected(stage: Stage) -> None:
    rmq = stage.app()
    rmq.handler(stage.queue())(double)
    async with serving(app_with(rmq, consume=False)) as client:
        assert await is_ready(client)


async def test_an_app_that_only_sends_is_ready_again_after_an_outage(memory: MemoryStage) -> None:
    """Nobody has to send for it: a load balancer would let nobody."""
    rmq = memory.app()
    async with serving(app_with(rmq)) as client:
        memory.server.stop()
        assert await is_unavailable(client)
        assert await is_unavailable(client)
        memory.server.start()
        assert await is_ready(client)


@pytest.fixture
async def between(rabbit: Stage) -> AsyncGenerator[AlarmingProxy]:
    async with alarming_proxy(rabbit.url) as proxy:
        yield proxy


@pytest.mark.rabbitmq
async def test_a_lost_connection_is_opened_again_by_the_probe(between: AlarmingProxy) -> None:
    rmq = RabbitMQ(between.url)
    async with serving(app_with(rmq)) as client:
        assert await is_ready(client)
        between.cut()
        await eventually(lambda: bool(rmq.problems))
        await eventually(lambda: is_ready(client))

        await between.stop()
        await eventually(lambda: bool(rmq.problems))
        assert await is_unavailable(client)
        await between.start()
        await eventually(lambda: is_ready(client))


@pytest.mark.rabbitmq
async def test_a_memory_alarm_is_named_while_it_lasts(between: AlarmingProxy) -> None:
    rmq = RabbitMQ(between.url)
    async with serving(app_with(rmq)) as client:
        between.block()
        await eventually(lambda: is_unavailable(client))
        _, _, [problem] = await ready(client)
        assert "alarm" in problem
        between.unblock()
        await eventually(lambda: is_ready(client))


async def test_an_app_that_can_do_without_the_broker_stays_in_rotation(memory: MemoryStage) -> None:
    rmq = memory.app()
    async with serving(app_with(rmq, require_broker=False)) as client:
        assert await is_ready(client)
        memory.server.stop()
        status, word, [problem] = await ready(client)
        assert (status, word) == (200, "degraded")
        assert "not connected" in problem


async def test_each_of_several_objects_has_to_work(stage: Stage) -> None:
    queue = stage.queue()
    orders, billing = stage.app(**STAYS_AWAY), stage.app()
    orders.handler(queue)(double)
    billing.handler(stage.queue())(double)
    async with serving(app_with(orders, billing)) as client:
        assert await is_ready(client)
        await stage.delete_queue(queue)
        await eventually(lambda: is_unavailable(client))


async def test_the_routes_may_have_a_prefix(memory: Stage) -> None:
    app = FastAPI()
    app.include_router(rmq_router(memory.app()), prefix="/internal")
    async with client_of(app) as client:
        assert (await client.get("/internal/health/live")).status_code == 200
        assert (await ready(client, "/internal/health/ready"))[0] == 503


@pytest.mark.parametrize(("require_broker", "codes"), [(True, ["200", "503"]), (False, ["200"])])
def test_both_answers_are_in_the_openapi_document(require_broker: bool, codes: list[str]) -> None:
    schema = app_with(RabbitMQ("memory://documented"), require_broker=require_broker).openapi()

    responses = schema["paths"]["/health/ready"]["get"]["responses"]
    assert sorted(responses) == codes
    for code in codes:
        reference = responses[code]["content"]["application/json"]["schema"]["$ref"]
        assert reference == "#/components/schemas/Readiness"
    assert "$ref" in str(schema["paths"]["/health/live"]["get"]["responses"]["200"])


@pytest.mark.parametrize("rmqs", [(), ("amqp://localhost/",), (None,)])
def test_a_router_of_nothing_is_refused(rmqs: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match="rmq_router"):
        rmq_router(*rmqs)
