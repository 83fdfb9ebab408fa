"""An app as users have it: everything at the level of a module, its RabbitMQ object named by an address."""

# No `from __future__ import annotations`: FastAPI reads those below, and they name what a closure holds.
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx2
import pytest
from asgi_lifespan import LifespanManager
from fastapi import Depends, FastAPI
from pydantic import BaseModel

from autosell_rmq import Binding, Message, RabbitMQ, Reject
from autosell_rmq_fastapi import (
    Accept,
    Accepted,
    AcceptedRequests,
    LifespanState,
    Producer,
    SyncProducer,
    rmq_lifespan,
    rmq_router,
)


class Order(BaseModel):
    item: str
    key: str = ""


class Shop:
    """Nothing answers at its address: a test that leaves memory fails."""

    def __init__(self) -> None:
        self.rmq = rmq = RabbitMQ("amqp://guest:secret@127.0.0.1:1/", startup_timeout=0.1)
        self.handled: list[object] = []
        self.broken: list[str] = []

        @asynccontextmanager
        async def own(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
            yield {"stock": {"lamp": 3}}

        def stock(state: LifespanState) -> dict[str, int]:
            found: dict[str, int] = state.stock
            return found

        @rmq.handler("orders", max_retries=3, retry_delay=3600, max_retry_delay=7200)
        async def create(order: Order, stock: Annotated[dict[str, int], Depends(stock)], m: Message) -> int:
            if order.item in self.broken:
                raise OSError(f"no {order.item} today")
            if order.item not in stock:
                raise Reject(f"no such item: {order.item}")
            self.handled.append(order.item)
            await m.producer.publish_to_exchange(
                "events", "order.created", {"item": order.item}, mandatory=False
            )
            return stock[order.item]

        @rmq.handler("mails", bind=Binding("events", "order.*"))
        def mail(event: dict[str, str], message: Message) -> None:
            price = message.sync_producer.send_message("prices", event)["data"]
            self.handled.append(("mail", event["item"], price))

        self.app = FastAPI(lifespan=rmq_lifespan(rmq, own))
        self.app.include_router(rmq_router(rmq))
        add_asking_routes(self.app)
        add_sending_routes(self.app, AcceptedRequests(rmq, "orders", scope=None))


def add_asking_routes(app: FastAPI) -> None:
    @app.post("/orders")
    async def ask(order: Order, producer: Producer) -> dict[str, Any]:
        return await producer.send_message("orders", order, timeout=5)

    @app.post("/sync")
    def ask_sync(order: Order, producer: SyncProducer) -> dict[str, Any]:
        return producer.send_message("orders", order, timeout=5)

    @app.get("/price")
    async def price(item: str, producer: Producer) -> dict[str, Any]:
        return await producer.send_message("prices", item, timeout=5)


def add_sending_routes(app: FastAPI, requests: AcceptedRequests) -> None:
    app.include_router(requests.router, prefix="/accepted")

    @app.post("/later")
    async def later(order: Order, producer: Producer) -> str:
        return await producer.send_fire_and_forget("orders", order, headers={"tenant": "x"}, delay=60)

    @app.post("/accepted", status_code=202)
    async def accept(order: Order, accept: Annotated[Accept, Depends(requests.accept)]) -> Accepted:
        return await accept(order)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncGenerator[httpx2.AsyncClient]:
    """As docs/fastapi-testing.md has it."""
    async with LifespanManager(app) as manager:
        transport = httpx2.ASGITransport(app=manager.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
