"""What the lifespan yielded: the same dependency in a route and in a handler."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from autosell_rmq_fastapi.injection import LifespanState
from tests.fastapi.injection.conftest import Service


def get_pool(state: LifespanState) -> list[str]:
    pool = state.pool
    assert isinstance(pool, list)
    return pool


def read(pool: Annotated[list[str], Depends(get_pool)], state: LifespanState) -> object:
    found = [*pool, state["name"], getattr(state, "mark", None)]
    state.mark = "seen"  # by nobody else
    pool.append("shared")
    return found


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
    yield {"pool": ["first"], "name": "orders"}


def test_a_route_reads_it() -> None:
    app = FastAPI(lifespan=lifespan)
    app.get("/")(read)
    with TestClient(app) as client:
        assert client.get("/").json() == ["first", "orders", None]
        assert client.get("/").json() == ["first", "shared", "orders", None]


async def test_a_handler_reads_it(service: Service) -> None:
    async def handler(payload: object, found: Annotated[object, Depends(read)]) -> object:
        return found

    async with lifespan(service.app) as state:
        assert await service.called(handler, state=state) == ["first", "orders", None]
        assert await service.reply() == ["first", "shared", "orders", None]


async def test_a_lifespan_that_yields_nothing_has_an_empty_one(service: Service) -> None:
    async def handler(payload: object, state: LifespanState) -> object:
        return len(state)

    assert await service.called(handler, state=None) == 0
