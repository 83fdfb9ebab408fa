"""Where the answer 202 points to: the status route of the same requests, wherever the app has put it."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header

from autosell_rmq import RabbitMQ
from autosell_rmq_fastapi import Accept, Accepted, AcceptedRequests
from tests.fastapi.requests_fixtures import caller, client, memory
from tests.integration.stage_fixtures import MemoryStage

__all__ = ["memory"]

KEY = {"Idempotency-Key": "k-1"}


def partner(x_partner: Annotated[str, Header()]) -> str:
    return x_partner


def add_route(router: APIRouter | FastAPI, path: str, requests: AcceptedRequests) -> None:
    @router.post(path, status_code=202)
    async def create(accept: Annotated[Accept, Depends(requests.accept)]) -> Accepted:
        return await accept({"item": 1})


async def test_two_kinds_of_callers_of_one_queue_have_a_status_route_each(memory: MemoryStage) -> None:
    queue = await memory.declared()
    rmq = memory.app()
    app = FastAPI()
    scopes: dict[str, Callable[..., str]] = {"users": caller, "partners": partner}
    for name, scope in scopes.items():
        requests = AcceptedRequests(rmq, queue, scope=scope)
        app.include_router(requests.router, prefix=f"/{name}/requests")
        add_route(app, f"/{name}/orders", requests)

    async with rmq, client(app) as http:
        http.headers["X-Partner"] = "acme"
        for name in scopes:
            answer = await http.post(f"/{name}/orders", headers=KEY)
            assert answer.headers["Location"] == f"/{name}/requests/k-1"
            assert (await http.get(answer.headers["Location"])).json()["status"] == "pending"


def test_a_factory_of_apps_names_their_routes_alike() -> None:
    rmq = RabbitMQ("memory://")
    documents: list[object] = []
    for _ in range(2):
        app = FastAPI()
        app.include_router(AcceptedRequests(rmq, "orders", scope=caller).router)
        documents.append(app.openapi())

    assert documents[0] == documents[1]


async def test_the_prefix_of_a_tenant(memory: MemoryStage) -> None:
    queue = await memory.declared()
    rmq = memory.app()
    requests = AcceptedRequests(rmq, queue, scope=caller)
    router = APIRouter(prefix="/tenants/{tenant}")
    router.include_router(requests.router, prefix="/requests")
    add_route(router, "/orders", requests)
    app = FastAPI()
    app.include_router(router)

    async with rmq, client(app) as http:
        answer = await http.post("/tenants/7/orders", headers=KEY)

        assert answer.headers["Location"] == "/tenants/7/requests/k-1"
        assert (await http.get(answer.headers["Location"])).status_code == 200


async def test_a_route_may_have_parameters_that_the_prefix_has_not(memory: MemoryStage) -> None:
    queue = await memory.declared()
    rmq = memory.app()
    requests = AcceptedRequests(rmq, queue, scope=caller)
    app = FastAPI()
    app.include_router(requests.router, prefix="/requests")
    add_route(app, "/shops/{shop}/orders", requests)

    async with rmq, client(app) as http:
        answer = await http.post("/shops/7/orders", headers=KEY)

        assert answer.headers["Location"] == "/requests/k-1"
