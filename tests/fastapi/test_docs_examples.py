"""Example payloads are of their schema, or there is none; limits are said in words."""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal

import pydantic
import pytest
from pydantic import Field

from autosell_rmq import RabbitMQ, asyncapi_document
from autosell_rmq_fastapi.docs.constraints import constraints
from autosell_rmq_fastapi.docs.examples import NoExample, example
from autosell_rmq_fastapi.docs.reading import Document
from autosell_rmq_fastapi.docs.tables import type_of
from tests.support.asyncapi import accepts
from tests.support.documented_shop import (
    Card,
    Invoice,
    Money,
    Order,
    OrderCreated,
    Stock,
    documented_shop,
)
from tests.support.names import unique


class Tree(pydantic.BaseModel):
    name: str
    children: list["Tree"] = []


class Endless(pydantic.BaseModel):
    next: "Endless"


class Optional(pydantic.BaseModel):
    number: int
    strange: Annotated[str, Field(pattern=r"^\d{3}-\w{9}$")] | None = None
    stranger: str = Field(pattern=r"^\d{3}-\w{9}$", default_factory=str)


def described(payload: object) -> tuple[dict[str, Any], dict[str, Any]]:
    async def handler(data: object) -> None: ...

    handler.__annotations__ = {"data": payload}
    rmq = RabbitMQ("memory://")
    rmq.handler("q")(handler)
    document = asyncapi_document(rmq, title="t", version="1")
    return document, document["components"]["messages"]["q.request"]["payload"]


@pytest.mark.parametrize(
    "payload",
    [
        Order,
        OrderCreated,
        Money,
        Stock,
        Tree,
        Optional,
        Card | Invoice,
        dict[str, Stock],
        list[dt.datetime],
        tuple[int, str],
        set[int],
        uuid.UUID,
        dt.date,
        dt.time,
        dt.timedelta,
        Decimal,
        bool,
        None,
        Literal["a", "b"],
        Annotated[int, Field(gt=5)],
        Annotated[int, Field(lt=-5)],
        Annotated[int, Field(ge=7, multiple_of=5)],
        Annotated[float, Field(gt=0, lt=1)],
        Annotated[float, Field(le=0.25)],
        Annotated[str, Field(min_length=150)],
        Annotated[str, Field(max_length=1)],
        Annotated[str, Field(max_length=0)],
        Annotated[str, Field(pattern=r"^[A-Z]{3}$")],
        Annotated[str, Field(pattern=r"^\d{5}$")],
        Annotated[list[int], Field(min_length=3)],
        Annotated[list[int], Field(max_length=0)],
        Annotated[int, Field(examples=[42])],
        dict,
        Any,
    ],
    ids=str,
)
def test_an_example_is_of_its_schema(payload: object) -> None:
    document, schema = described(payload)

    assert accepts(document, schema, example(Document(document), schema))


@pytest.mark.parametrize(
    "payload",
    [
        Endless,
        Annotated[str, Field(pattern=r"^\d{3}-\w{9}$")],
        Annotated[str, Field(pattern=r"^(?<name>a)\p{L}$")],  # no pattern of Python's
        Annotated[int, Field(gt=5, lt=6)],
        Annotated[set[int], Field(min_length=3)],
    ],
    ids=str,
)
def test_there_is_none_where_none_can_be_derived(payload: object) -> None:
    document, schema = described(payload)

    with pytest.raises(NoExample):
        example(Document(document), schema)


async def test_the_example_is_accepted_and_its_reply_is_of_the_schema() -> None:
    rmq = documented_shop(f"memory://{unique('examples')}")
    document = asyncapi_document(rmq, title="t", version="1")
    messages = document["components"]["messages"]
    order = example(Document(document), messages["orders.request"]["payload"])

    async with rmq:
        await rmq.start_consuming()
        reply = await rmq.producer.send_message("orders", order)
        refused = await rmq.producer.send_message("orders", {**order, "lines": []})

    assert reply["data"]["label"] == "order 7"
    assert accepts(document, messages["orders.reply"]["payload"], reply)
    assert accepts(document, messages["error_reply"]["payload"], refused)


def test_what_the_model_gives_as_an_example_is_taken() -> None:
    document, schema = described(Order)
    found = example(Document(document), schema)

    assert found["lines"][0]["sku"] == "TEA-100"
    assert found["customer"] == "ada@example.com"
    assert found["lines"][0]["price"]["currency"] == "EUR"


def test_an_optional_field_that_cannot_be_derived_is_null_or_left_out() -> None:
    document, schema = described(Optional)

    assert example(Document(document), schema) == {"number": 1, "strange": None}


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (Annotated[int, Field(ge=1, le=9)], ["≥ 1", "≤ 9"]),
        (Annotated[float, Field(gt=0, lt=0.5)], ["&gt; 0", "&lt; 0.5"]),
        (Annotated[int, Field(multiple_of=5)], ["a multiple of 5"]),
        (Annotated[str, Field(min_length=1)], ["at least 1 character"]),
        (Annotated[str, Field(min_length=2)], ["at least 2 characters"]),
        (Annotated[str, Field(max_length=9)], ["at most 9 characters"]),
        (Annotated[str, Field(min_length=2, max_length=9)], ["2 to 9 characters"]),
        (Annotated[list[int], Field(min_length=1, max_length=1)], ["1 item"]),
        (Annotated[dict[str, int], Field(min_length=2)], ["at least 2 entries"]),
        (set[int], ["no item twice"]),
        (Literal["a", "b"], ["one of <code>&quot;a&quot;</code>, <code>&quot;b&quot;</code>"]),
        (Annotated[str | None, Field(max_length=9)], ["at most 9 characters"]),
        (Annotated[str, Field(pattern="^<a>")], ["matches <code>^&lt;a&gt;</code>"]),
        (Annotated[bool, Field(default=False)], ["by default <code>false</code>"]),
    ],
    ids=str,
)
def test_limits_in_words(payload: object, words: list[str]) -> None:
    assert constraints(described(payload)[1]) == words


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (list[int], "array of integer"),
        (tuple[int, str], "[integer, string]"),
        (dict[str, Stock], 'object of <a href="#schema-Stock">Stock</a>'),
        (int | None, "integer or null"),
        (uuid.UUID, "string · uuid"),
        (Literal["<a>"], "<code>&quot;&lt;a&gt;&quot;</code>"),
        (dict, "object"),
        (Any, "any"),
    ],
    ids=str,
)
def test_types_in_words(payload: object, words: str) -> None:
    assert type_of(described(payload)[1]) == words
