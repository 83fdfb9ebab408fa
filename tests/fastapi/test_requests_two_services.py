"""A gateway on FastAPI and a consumer elsewhere, with RabbitMQ and a store in Redis between them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from asgi_lifespan import LifespanManager

from autosell_rmq import Message, RabbitMQ, RedisStore, Reject
from tests.contract.store_fixtures import REDIS_URL, redis_prefix
from tests.fastapi.requests_fixtures import client, gateway
from tests.integration.app_fixtures import Gate
from tests.integration.stage_fixtures import RabbitStage, rabbit_stage
from tests.support.waiting import eventually

pytestmark = [pytest.mark.rabbitmq, pytest.mark.redis]


@pytest.fixture
async def stage() -> AsyncIterator[RabbitStage]:
    async with rabbit_stage() as stage:
        yield stage


@pytest.fixture
async def services(stage: RabbitStage) -> AsyncIterator[tuple[RabbitMQ, RabbitMQ]]:
    """A gateway's app and a consumer's: of their own connections, to RabbitMQ and to Redis."""
    async with AsyncExitStack() as stack:
        prefix = stack.enter_context(redis_prefix())
        gateway, consumer = (stage.app(store=RedisStore(REDIS_URL, prefix=prefix)) for _ in range(2))
        yield gateway, consumer


async def test_from_the_request_to_the_reply_and_from_the_failure_to_the_replay(
    stage: RabbitStage, services: tuple[RabbitMQ, RabbitMQ]
) -> None:
    rmq, consumer = services
    queue, gate = await stage.declared(), Gate()
    runs: list[str] = []
    stock: list[str] = ["apple"]

    @consumer.handler(queue, declare=False)
    async def create_order(order: dict[str, str], message: Message) -> str:
        runs.append(message.correlation_id or "")
        await gate()
        if order["item"] not in stock:
            raise Reject(f"no {order['item']}")
        return f"one {order['item']}"

    app = gateway(rmq, queue)
    async with LifespanManager(app), client(app) as http:

        async def status(key: str) -> str:
            return str((await http.get(f"/orders/requests/{key}")).json()["status"])

        async def reaches(key: str, wanted: str) -> None:
            async def reached() -> bool:
                return await status(key) == wanted

            await eventually(reached)

        for key, item in (("first", "apple"), ("second", "unicorn"), ("first", "apple")):
            response = await http.post("/orders", json={"item": item}, headers={"Idempotency-Key": key})
            assert response.status_code == 202
        assert [await status(key) for key in ("first", "second")] == ["pending", "pending"]

        await consumer.start_consuming()
        await gate.has(2)
        assert [await status(key) for key in ("first", "second")] == ["pending", "pending"]
        gate.open()
        await reaches("first", "done")
        await reaches("second", "failed")
        failed = (await http.get("/orders/requests/second")).json()
        assert (failed["error"], failed["error_code"]) == ("Reject: no unicorn", "rejected")
        assert sorted(runs) == ["anna:first", "anna:second"]

        stock.append("unicorn")
        letter = await stage.letter(queue)
        await stage.ask(queue, body=letter["original_body"].encode(), correlation_id=letter["correlation_id"])
        await reaches("second", "done")
        done = (await http.get("/orders/requests/second")).json()
        assert done["reply"] == {"success": True, "data": "one unicorn", "correlation_id": "anna:second"}


async def test_a_restarted_gateway_knows_what_the_first_accepted(
    stage: RabbitStage, services: tuple[RabbitMQ, RabbitMQ]
) -> None:
    queue = await stage.declared()
    for rmq in services:
        app = gateway(rmq, queue)
        async with LifespanManager(app), client(app) as http:
            if rmq is services[0]:
                await http.post("/orders", json={"item": "apple"}, headers={"Idempotency-Key": "k"})
            assert (await http.get("/orders/requests/k")).json() == {"id": "k", "status": "pending"}
            other = await http.post("/orders", json={"item": "pear"}, headers={"Idempotency-Key": "k"})
            assert other.status_code == 422
    await stage.has(queue, 1)
