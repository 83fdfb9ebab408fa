"""A payload is validated like the body of a route."""

import datetime as dt
import json
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field, field_validator

from autosell_rmq import RabbitMQ
from autosell_rmq.testing import memory_server
from tests.support.waiting import eventually


class Item(BaseModel):
    name: Annotated[str, Field(min_length=2)]
    price: Annotated[Decimal, Field(gt=0)]


class Order(BaseModel):
    id: int
    items: list[Item]
    kind: Literal["gift", "sale"] = "sale"
    placed: dt.datetime | None = None

    model_config = {"extra": "forbid"}

    @field_validator("id")
    @classmethod
    def even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": "zzz", "items": [{"name": "x", "price": -1}], "kind": "loan", "more": 1},
        {"id": 3, "items": [{}], "placed": "yesterday"},
    ],
    ids=str,
)
async def test_its_errors_are_those_that_a_route_answers_with(body: object) -> None:
    answered, listed = await both(body)
    assert listed == answered


async def test_what_is_no_object_is_told_in_the_words_for_json() -> None:
    for body, place in (([], ["body"]), ({"id": 2, "items": [3]}, ["body", "items", 0])):
        [answered], [listed] = await both(body)
        assert (answered["type"], answered["loc"]) == ("model_attributes_type", place)
        assert listed == {"type": "model_type", "loc": place, "msg": "Input should be an object"}


async def both(body: object) -> tuple[list[Any], list[Any]]:
    """What a route answers with, without the values, and what the dead letter lists."""
    api = FastAPI()

    @api.post("/")
    async def create(order: Order) -> None: ...

    answer = TestClient(api).post("/", json=body)
    assert answer.status_code == 422
    answered = [{name: entry[name] for name in ("type", "loc", "msg")} for entry in answer.json()["detail"]]

    with memory_server() as server:
        async with RabbitMQ(server.url) as rmq:
            rmq.handler("orders")(create)
            await rmq.start_consuming()
            await rmq.producer.send_fire_and_forget("orders", body)
            await eventually(lambda: server.queue("orders_dlq").depth == 1)
            letter = json.loads(server.queue("orders_dlq").messages[0].body)

    return answered, letter["errors"]
