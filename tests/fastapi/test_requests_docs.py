"""docs/fastapi-requests.md: its two services run, and answer what the page shows."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest
from asgi_lifespan import LifespanManager

from autosell_rmq import RabbitMQ
from autosell_rmq.testing import memory_server
from tests.acceptance.markdown import ROOT, blocks, rewritten
from tests.contract.store_fixtures import REDIS_URL, redis_prefix
from tests.fastapi.requests_fixtures import client
from tests.support.waiting import eventually

PAGE = ROOT / "docs" / "fastapi-requests.md"
KEYS = [("k-1", "apple"), ("k-2", "unicorn")]

pytestmark = pytest.mark.redis


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The modules of the page, in this process, with keys of their own in Redis."""
    with ExitStack() as stack:
        monkeypatch.setenv("RABBITMQ_URL", stack.enter_context(memory_server()).url)
        monkeypatch.setenv("REDIS_URL", REDIS_URL)
        prefix = stack.enter_context(redis_prefix())
        mine = {
            'RedisStore(os.environ["REDIS_URL"]': f'RedisStore(os.environ["REDIS_URL"], prefix={prefix!r}'
        }
        files: dict[str, str] = {}
        for block in blocks(PAGE, "python"):
            assert block.filename is not None
            files[block.filename] = files.get(block.filename, "") + block.code
        modules: dict[str, Any] = {}
        for name, code in files.items():
            module = ModuleType(f"page_{name.removesuffix('.py')}")
            monkeypatch.setitem(sys.modules, module.__name__, module)
            exec(rewritten(code, mine), vars(module))
            modules[name] = module
        yield modules


async def test_the_page_shows_what_its_services_answer(services: dict[str, Any]) -> None:
    accepted, pending, done, failed = [json.loads(block.code) for block in blocks(PAGE, "json")]
    gateway, consumer = services["gateway.py"], services["consumer.py"].rmq
    async with LifespanManager(gateway.app), consumer, client(gateway.app, "user-7") as http:
        await consumer.start_consuming()
        await consumer.stop_consuming()  # the queues are there now, and nobody handles anything
        for key, item in KEYS:
            response = await http.post("/orders", json={"item": item}, headers={"Idempotency-Key": key})
            assert response.status_code == 202
            if key == "k-1":
                assert response.json() == accepted
                assert response.headers["Location"] == "/orders/requests/k-1"
                assert response.headers["Retry-After"] == "1"
        assert (await http.get("/orders/requests/k-1")).json() == pending

        await consumer.start_consuming()

        async def over() -> bool:
            found = [(await http.get(f"/orders/requests/{key}")).json() for key, _ in KEYS]
            return found == [done, failed]

        await eventually(over)


async def test_a_request_of_the_page_waits_for_its_reply(services: dict[str, Any]) -> None:
    gateway = services["gateway.py"]
    consumer: RabbitMQ = services["consumer.py"].rmq

    @consumer.handler("prices")
    async def price(order: dict[str, str]) -> int:
        return len(order["item"])

    async with LifespanManager(gateway.app), consumer, client(gateway.app, "user-7") as http:
        await consumer.start_consuming()
        headers = {"Idempotency-Key": '"k-1"'}
        first, again = [await http.post("/prices", json={"item": "apple"}, headers=headers) for _ in range(2)]

        assert first.json() == {"success": True, "data": 5, "correlation_id": "user-7:k-1"}
        assert again.content == first.content
        assert consumer.statistics.duplicates == 1


async def test_a_def_route_of_the_page_accepts_too(services: dict[str, Any]) -> None:
    gateway, consumer = services["gateway.py"], services["consumer.py"].rmq
    async with LifespanManager(gateway.app), consumer, client(gateway.app, "user-7") as http:
        await consumer.start_consuming()
        headers = {"Idempotency-Key": "k-1"}
        answer = await http.post("/orders/from-a-thread", json={"item": "apple"}, headers=headers)

        assert (answer.status_code, answer.headers["Location"]) == (202, "/orders/requests/k-1")
