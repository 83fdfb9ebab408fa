"""A request that becomes a message: 202, the status route, and what comes of it."""

import asyncio
import json
import logging
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response

from autosell_rmq import (
    BrokerUnavailable,
    ConfigError,
    MemoryStore,
    PublishUnknown,
    RabbitMQ,
    Record,
    Reject,
    StoreUnavailable,
)
from autosell_rmq.testing import Faults, FaultyStore
from autosell_rmq_fastapi import Accept, Accepted, AcceptedRequests
from autosell_rmq_fastapi.requests.answers import status_body
from tests.fastapi.requests_fixtures import caller, client, gateway, memory, stage
from tests.integration.app_fixtures import Gate, Stage
from tests.integration.stage_fixtures import MemoryStage
from tests.support.waiting import eventually

__all__ = ["memory", "stage"]

KEY = {"Idempotency-Key": "k-1"}
ORDER = {"item": 1}
STATUS_URL = "/orders/requests/k-1"


async def test_a_request_is_accepted_handled_and_its_reply_found(stage: Stage) -> None:
    queue, gate = stage.queue(), Gate()
    rmq = stage.app()

    @rmq.handler(queue)
    async def handler(order: dict[str, int]) -> dict[str, int]:
        await gate()
        return {"doubled": order["item"] * 2}

    async with rmq, client(gateway(rmq, queue)) as http:
        await rmq.start_consuming()
        response = await http.post("/orders", json=ORDER, headers=KEY)

        assert response.status_code == 202
        assert response.json() == {"id": "k-1", "status": "pending", "status_url": STATUS_URL}
        assert response.headers["Location"] == STATUS_URL
        assert response.headers["Retry-After"] == "1"

        pending = await http.get(STATUS_URL)
        assert (pending.status_code, pending.json()) == (200, {"id": "k-1", "status": "pending"})
        assert (pending.headers["Retry-After"], pending.headers["Cache-Control"]) == ("1", "no-store")

        await gate.has(1)
        assert (await http.get(STATUS_URL)).json() == pending.json()
        gate.open()
        await eventually(lambda: rmq.statistics.handled == 1)

        done = await http.get(STATUS_URL)
        assert done.status_code == 200
        assert done.json() == {
            "id": "k-1",
            "status": "done",
            "reply": {"success": True, "data": {"doubled": 2}, "correlation_id": "anna:k-1"},
        }
        assert "Retry-After" not in done.headers
        assert done.headers["Cache-Control"] == "no-store"
        assert done.headers["Content-Type"] == "application/json"

        again = await http.post("/orders", json=ORDER, headers=KEY)
        assert (again.status_code, again.json()) == (202, response.json())
        assert (await http.get(STATUS_URL)).content == done.content
        assert (rmq.statistics.handled, rmq.statistics.duplicates) == (1, 0)


async def test_a_failure_is_told_until_a_repeat_or_a_replay_succeeds(stage: Stage) -> None:
    queue, fixed = stage.queue(), list[bool]()
    rmq = stage.app()

    @rmq.handler(queue)
    async def handler(order: dict[str, int]) -> str:
        if not fixed:
            raise Reject("no such item")
        return "sold"

    async def status() -> dict[str, Any]:
        body: dict[str, Any] = (await http.get(STATUS_URL)).json()
        return body

    async def is_over() -> bool:
        return bool((await status())["status"] != "pending")

    async with rmq, client(gateway(rmq, queue)) as http:
        await rmq.start_consuming()
        await http.post("/orders", json=ORDER, headers=KEY)
        await eventually(is_over)

        assert await status() == {
            "id": "k-1",
            "status": "failed",
            "error": "Reject: no such item",
            "error_code": "rejected",
        }
        letter = await stage.letter(queue)

        fixed.append(True)
        await stage.ask(queue, body=letter["original_body"].encode(), correlation_id=letter["correlation_id"])
        await stage.reply("anna:k-1")
        assert (await status())["reply"]["data"] == "sold"


def test_the_stored_result_comes_byte_for_byte() -> None:
    data = b'{"sum": 1.10, "big":12345678901234567890123.50,"e":1E5,"text":"\\u0435"}'
    record = Record(state="done", fingerprint="f", data=data)

    body = status_body(record, id_="k", correlation_id='odd"')

    assert b'"data":' + data + b"," in body
    assert json.loads(body)["reply"]["correlation_id"] == 'odd"'


async def test_another_request_under_the_key_is_refused(stage: Stage) -> None:
    queue = await stage.declared()
    rmq = stage.app()
    async with rmq, client(gateway(rmq, queue)) as http:
        await http.post("/orders", json=ORDER, headers=KEY)

        refused = await http.post("/orders", json={"item": 2}, headers=KEY)

        assert refused.status_code == 422
        assert "Idempotency-Key was used before" in refused.json()["detail"]
        assert "Location" not in refused.headers
        await stage.has(queue, 1)


async def test_nobody_finds_or_blocks_the_requests_of_another_caller(stage: Stage) -> None:
    queue = await stage.declared()
    rmq = stage.app()
    app = gateway(rmq, queue)
    async with rmq, client(app, "anna") as anna, client(app, "bert") as bert, client(app, None) as nobody:
        assert (await anna.post("/orders", json=ORDER, headers=KEY)).status_code == 202

        assert (await bert.get(STATUS_URL)).status_code == 404
        assert (await bert.get("/orders/requests/anna:k-1")).status_code == 404
        assert (await nobody.get(STATUS_URL)).status_code == 401
        assert (await bert.post("/orders", json={"item": 2}, headers=KEY)).status_code == 202
        await stage.has(queue, 2)


async def test_what_was_never_accepted_is_not_found(memory: MemoryStage) -> None:
    rmq = memory.app()
    async with rmq, client(gateway(rmq, "orders")) as http:
        for id_ in ("k-1", "..%2fx", "a%3Ab", "%00", "%ED%A0%80", "x" * 5000):
            response = await http.get(f"/orders/requests/{id_}")
            assert response.status_code == 404
        assert (await http.get(STATUS_URL)).json() == {"detail": "no such request is known"}
        assert (await http.get(STATUS_URL)).headers["Cache-Control"] == "no-store"


async def test_the_url_of_any_key_can_be_followed(memory: MemoryStage) -> None:
    queue = await memory.declared()
    rmq = memory.app()
    async with rmq, client(gateway(rmq, queue)) as http:
        for key in ("a/b?c#d", "..", '"a b"', "%2F", "~", "-", "a" * 255, r'"\"\\"'):
            response = await http.post("/orders", json=ORDER, headers={"Idempotency-Key": key})
            status = await http.get(response.headers["Location"])
            assert status.json() == {"id": response.json()["id"], "status": "pending"}, key


async def test_a_request_without_a_key_is_refused_or_gets_one(memory: MemoryStage) -> None:
    queue = await memory.declared()
    rmq = memory.app()
    async with rmq:
        async with client(gateway(rmq, queue)) as http:
            assert (await http.post("/orders", json=ORDER)).status_code == 400
            assert await memory.depth(queue) == 0
        async with client(gateway(rmq, queue, required=False)) as http:
            urls = [(await http.post("/orders", json=ORDER)).headers["Location"] for _ in range(2)]
            assert len(set(urls)) == 2
            assert (await http.get(urls[0])).json()["status"] == "pending"


# --- what can go wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [PublishUnknown("no confirm"), BrokerUnavailable("no connection")])
async def test_a_send_that_fails_is_503_and_the_repeat_succeeds(
    stage: Stage, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    queue, faults = await stage.declared(), Faults()
    rmq = await stage.faulty_app(faults, outage_timeout=0)
    faults.on("publish", before=error)
    async with rmq, client(gateway(rmq, queue, retry_after=5)) as http:
        failed = await http.post("/orders", json=ORDER, headers=KEY)

        assert failed.status_code == 503
        assert "repeat the request under the same Idempotency-Key" in failed.json()["detail"]
        assert failed.headers["Retry-After"] == "5"
        assert "Location" not in failed.headers
        assert str(error) in caplog.text
        assert (await http.post("/orders", json=ORDER, headers=KEY)).status_code == 202
        await stage.has(queue, 1)


async def test_a_queue_that_is_not_there_is_503(memory: MemoryStage) -> None:
    rmq = memory.app()
    async with rmq, client(gateway(rmq, "nowhere")) as http:
        assert (await http.post("/orders", json=ORDER, headers=KEY)).status_code == 503


async def test_a_store_that_does_not_answer_is_503(memory: MemoryStage) -> None:
    queue, faults = await memory.declared(), Faults()
    rmq = memory.app(store=FaultyStore(MemoryStore(), faults))
    async with rmq, client(gateway(rmq, queue)) as http:
        faults.on("lookup", before=StoreUnavailable("down"), times=2)
        for response in (await http.post("/orders", json=ORDER, headers=KEY), await http.get(STATUS_URL)):
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "1"
        assert await memory.depth(queue) == 0


async def test_a_status_route_that_was_not_included_is_named_before_anything_is_sent(
    memory: MemoryStage,
) -> None:
    queue = await memory.declared()
    rmq = memory.app()
    orders = AcceptedRequests(rmq, queue, scope=caller)
    app = FastAPI()

    @app.post("/orders")
    async def create_order(accept: Annotated[Accept, Depends(orders.accept)]) -> Accepted:
        return await accept(1)

    async with rmq, client(app) as http:
        with pytest.raises(ConfigError, match=f"{queue}.*include_router"):
            await http.post("/orders", headers=KEY)
        assert await memory.depth(queue) == 0


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_wrong_retry_after_is_refused(seconds: int) -> None:
    with pytest.raises(ConfigError, match="retry_after"):
        AcceptedRequests(RabbitMQ("memory://"), "orders", scope=None, retry_after=seconds)


async def test_a_caller_that_hangs_up_loses_nothing(memory: MemoryStage) -> None:
    """Its repeat finds the note of the first, and sends the message again."""
    queue, faults = await memory.declared(), Faults()
    held = faults.hold("publish")
    rmq = await memory.faulty_app(faults)
    async with rmq, client(gateway(rmq, queue)) as http:
        request = asyncio.create_task(http.post("/orders", json=ORDER, headers=KEY))
        await held.reached.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert await memory.depth(queue) == 0

        assert (await http.post("/orders", json=ORDER, headers=KEY)).status_code == 202
        await memory.has(queue, 1)


# --- inside of FastAPI ---------------------------------------------------------------------------


async def test_it_lives_in_routers_and_mounted_apps_with_dependencies_of_theirs(memory: MemoryStage) -> None:
    queue = await memory.declared()
    rmq = memory.app()
    orders = AcceptedRequests(rmq, queue, scope=caller)
    router = APIRouter(prefix="/v1")

    def closed() -> None:
        raise HTTPException(403)

    @router.post("/orders", status_code=202)
    async def create_order(
        order: dict[str, int], accept: Annotated[Accept, Depends(orders.accept)], response: Response
    ) -> Accepted:
        response.headers["X-Other"] = "kept"
        return await accept(order, priority=3)

    router.include_router(orders.router, prefix="/requests", dependencies=[Depends(closed)])
    inner, outer = FastAPI(), FastAPI()
    inner.include_router(router)
    outer.mount("/shop", inner)

    async with rmq, client(outer) as http:
        response = await http.post("/shop/v1/orders", json=ORDER, headers=KEY)
        assert response.headers["Location"] == "/shop/v1/requests/k-1"
        assert response.headers["X-Other"] == "kept"
        assert (await http.get(response.headers["Location"])).status_code == 403
        inner.dependency_overrides[closed] = lambda: None
        assert (await http.get(response.headers["Location"])).status_code == 200


async def test_two_queues_of_one_app_are_apart(memory: MemoryStage) -> None:
    names = [await memory.declared() for _ in range(2)]
    rmq = memory.app()
    app = FastAPI()
    for number, name in enumerate(names):
        requests = AcceptedRequests(rmq, name, scope=caller)
        app.include_router(requests.router, prefix=f"/{number}/requests")

        @app.post(f"/{number}")
        async def create(
            order: dict[str, int], accept: Annotated[Accept, Depends(requests.accept)]
        ) -> Accepted:
            return await accept(order)

    async with rmq, client(app) as http:
        response = await http.post("/0", json=ORDER, headers=KEY)
        assert response.headers["Location"] == "/0/requests/k-1"
        assert (await http.get("/1/requests/k-1")).status_code == 404
        await http.post("/1", json={"item": 2}, headers=KEY)
        assert [await memory.depth(name) for name in names] == [1, 1]


def test_the_answers_are_part_of_the_api_description() -> None:
    document = gateway(RabbitMQ("memory://"), "orders").openapi()

    status = document["paths"]["/orders/requests/{id}"]["get"]
    assert set(status["responses"]) == {"200", "404", "422", "503"}
    schemas = document["components"]["schemas"]
    assert set(schemas["Status"]["discriminator"]["mapping"]) == {"pending", "done", "failed"}
    assert schemas["Accepted"]["required"] == ["id", "status", "status_url"]
    assert schemas["Failed"]["required"] == ["id", "status", "error", "error_code"]
    json.dumps(document)


async def test_a_key_is_no_log_line(memory: MemoryStage, caplog: pytest.LogCaptureFixture) -> None:
    """What a caller sends as a name or a key cannot forge one."""
    queue = await memory.declared()
    rmq = memory.app()
    with caplog.at_level(logging.INFO):
        async with rmq, client(gateway(rmq, queue), "anna bearer:secret") as http:
            await http.post("/orders", json=ORDER, headers={"Idempotency-Key": '"a b"'})

    assert "secret" not in caplog.text
    assert "a b" not in caplog.text
