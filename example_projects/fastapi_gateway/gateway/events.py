"""The shop's events: each service that binds a queue gets its own copy of them."""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI

from autosell_rmq import Binding, Router
from autosell_rmq_fastapi import LifespanState
from gateway.messages import Order
from gateway.settings import EVENTS, FEED

routes = APIRouter(tags=["events"])
handlers = Router()

type Latest = deque[Order]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Latest]]:
    """The latest events, newest first; they live as long as the app."""
    yield {"latest": deque(maxlen=50)}


def get_latest(state: LifespanState) -> Latest:
    """For routes and for handlers of messages alike."""
    latest: Latest = state.latest
    return latest


@handlers.handler(FEED, bind=Binding(EVENTS, "order.created"))
async def remember(order: Order, latest: Annotated[Latest, Depends(get_latest)]) -> None:
    """Keep what has happened, to be shown."""
    latest.appendleft(order)


@routes.get("/events")
async def events(latest: Annotated[Latest, Depends(get_latest)]) -> list[Order]:
    """The latest orders of the shop, whoever has placed them; newest first."""
    return list(latest)
