"""A user's file as type checkers see it: mypy and pyright check this one with all others; here it runs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict, assert_type

from fastapi import APIRouter, Depends, FastAPI

from autosell_rmq import BlockingProducer, RabbitMQ, RabbitMQProducer
from autosell_rmq_fastapi import (
    Producer,
    SyncProducer,
    producer_of,
    rmq_lifespan,
    rmq_router,
    sync_producer_of,
)


class Shop(FastAPI):
    """An app class of the user's own."""


class State(TypedDict):
    pool: str


@asynccontextmanager
async def stateless(app: FastAPI) -> AsyncGenerator[None]:
    yield


@asynccontextmanager
async def stateful(app: FastAPI) -> AsyncGenerator[State]:
    yield {"pool": "a pool"}


@asynccontextmanager
async def of_a_shop(app: Shop) -> AsyncGenerator[None]:
    yield


orders, billing = RabbitMQ("memory://typed"), RabbitMQ("memory://typed")

bare = rmq_lifespan(orders)
apps = [
    FastAPI(lifespan=bare),
    FastAPI(lifespan=rmq_lifespan(orders)),
    FastAPI(lifespan=rmq_lifespan(orders, stateless)),
    FastAPI(lifespan=rmq_lifespan(orders, stateful, consume=False)),
    FastAPI(lifespan=rmq_lifespan(billing, rmq_lifespan(orders, stateful))),
    Shop(lifespan=rmq_lifespan(orders, of_a_shop)),
    Shop(lifespan=rmq_lifespan(orders)),
]
app = apps[0]
assert_type(rmq_router(orders, billing, require_broker=False), APIRouter)
app.include_router(rmq_router(orders))


@app.post("/async")
async def create(
    producer: Producer, other: Annotated[RabbitMQProducer, Depends(producer_of(billing))]
) -> str:
    assert_type(producer, RabbitMQProducer)
    assert_type(other, RabbitMQProducer)
    return assert_type(await producer.send_fire_and_forget("orders", 1), str)


@app.post("/sync")
def create_blocking(
    producer: SyncProducer, other: Annotated[BlockingProducer, Depends(sync_producer_of(billing))]
) -> str:
    assert_type(producer, BlockingProducer)
    assert_type(other, BlockingProducer)
    return assert_type(producer.send_fire_and_forget("orders", 1), str)


def test_the_routes_are_there() -> None:
    assert {"/async", "/sync", "/health/live", "/health/ready"} <= set(app.openapi()["paths"])
