"""docs/fastapi-handlers.md: its code runs, and says what happens."""

import json
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from fastapi.security import OAuth2PasswordBearer

from autosell_rmq import ConfigError, RabbitMQ
from autosell_rmq.testing import memory_server
from autosell_rmq_fastapi import rmq_lifespan
from tests.acceptance.markdown import ROOT, blocks
from tests.acceptance.snippets import execute
from tests.fastapi.injection.conftest import Service

PAGE = ROOT / "docs" / "fastapi-handlers.md"


async def test_the_code_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with memory_server() as server:
        monkeypatch.setenv("RABBITMQ_URL", server.url)
        page: dict[str, Any] = {"__name__": "page"}
        for block in blocks(PAGE, "hidden", "python"):
            await execute(block.code, page)
        app, rmq, lifespan = page["app"], page["rmq"], page["lifespan"]
        assert isinstance(app, FastAPI)
        assert isinstance(rmq, RabbitMQ)

        async with rmq_lifespan(rmq, lifespan)(app) as state:
            reply = await rmq.producer.send_message(
                "orders", {"id": 1, "item": "tea"}, headers={"tenant": "north"}
            )
            await rmq.producer.send_message("orders", {"id": "one"})
            letter = json.loads(server.queue("orders_dlq").messages[0].body)

            assert reply["data"] == {"tenant": "north"}
            assert state["pool"] == ["the first row", "north: tea"]
            assert letter["errors"] == shown_errors()
            assert await answer_of(app, state) == ["the first row", "north: tea"]


async def test_the_error_that_the_page_shows_is_the_real_one(service: Service) -> None:
    def get_user(token: Annotated[str, Depends(OAuth2PasswordBearer("token"))]) -> str:
        return token

    async def create_order(payload: object, user: Annotated[str, Depends(get_user)]) -> None: ...

    for function, module in ((get_user, "shop.deps"), (create_order, "shop.rmq")):
        function.__module__, function.__qualname__ = module, function.__name__
    with pytest.raises(ConfigError) as raised:
        await service.consume(create_order)

    [shown] = [block.code for block in blocks(PAGE, "text")]
    assert shown.split() == ["ConfigError:", *str(raised.value).split()]


def shown_errors() -> object:
    [block] = blocks(PAGE, "json")
    return json.loads(block.code)


async def answer_of(app: FastAPI, state: dict[str, Any]) -> object:
    """Of the page's route, with the state that a server would pass on."""

    async def served(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        await app({**scope, "state": dict(state)}, receive, send)

    transport = httpx2.ASGITransport(served)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        return (await client.get("/rows")).json()
