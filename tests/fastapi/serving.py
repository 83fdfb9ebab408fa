"""Apps in the test's own event loop: lifespan and requests, without a server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
from asgi_lifespan import LifespanManager
from fastapi import FastAPI


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncGenerator[httpx2.AsyncClient]:
    """Run the lifespan; the client's requests see its state."""
    manager = LifespanManager(app, startup_timeout=None, shutdown_timeout=None)
    async with manager, client_of(manager.app) as client:
        yield client


def client_of(app: object) -> httpx2.AsyncClient:
    """A client of an app that nobody has started."""
    transport = httpx2.ASGITransport(app=app)  # type: ignore[arg-type]
    return httpx2.AsyncClient(transport=transport, base_url="http://test")
