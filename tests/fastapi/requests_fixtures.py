"""Gateways for the tests of requests: FastAPI apps whose callers say who they are, on either broker."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException

from autosell_rmq import RabbitMQ
from autosell_rmq_fastapi import Accept, Accepted, AcceptedRequests
from tests.integration.app_fixtures import Stage
from tests.integration.stage_fixtures import MemoryStage, memory_stage, rabbit_stage


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    if request.param == "memory":
        async with memory_stage() as memory:
            yield memory
    else:
        async with rabbit_stage() as rabbit:
            yield rabbit


@pytest.fixture
async def memory() -> AsyncIterator[MemoryStage]:
    async with memory_stage() as stage:
        yield stage


def caller(x_user: Annotated[str | None, Header()] = None) -> str:
    """Who sent the request, without any proof of it: this is a test."""
    if x_user is None:
        raise HTTPException(401)
    return x_user


def gateway(rmq: RabbitMQ, queue: str, **options: Any) -> FastAPI:  # noqa: ANN401
    """``POST /orders`` and ``GET /orders/requests/{id}``; its lifespan connects `rmq`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with rmq:
            yield

    orders = AcceptedRequests(rmq, queue, **{"scope": caller, **options})
    app = FastAPI(lifespan=lifespan)
    app.include_router(orders.router, prefix="/orders/requests")

    @app.post("/orders")
    async def create_order(
        order: dict[str, Any], accept: Annotated[Accept, Depends(orders.accept)]
    ) -> Accepted:
        return await accept(order)

    return app


@asynccontextmanager
async def client(app: FastAPI, user: str | None = "anna") -> AsyncGenerator[httpx2.AsyncClient]:
    headers = {} if user is None else {"X-User": user}
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
        yield client
