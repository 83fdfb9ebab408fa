"""Typed handlers over the wire: what comes in is validated, what goes out is JSON."""

import dataclasses
import datetime as dt
import functools
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NotRequired, TypedDict

import pydantic
import pytest

from autosell_rmq import Message
from tests.integration.app_fixtures import Stage


class Item(pydantic.BaseModel):
    name: str
    price: Decimal


class Order(pydantic.BaseModel):
    id: uuid.UUID
    items: list[Item]
    placed: dt.datetime


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Address(TypedDict):
    city: str
    zip: NotRequired[str]


@dataclasses.dataclass
class Receipt:
    order: uuid.UUID
    total: Decimal
    at: dt.datetime
    note: str | None = None


async def test_an_order_comes_as_its_model_and_its_receipt_goes_as_json(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    placed = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)

    @app.handler(queue)
    async def create(order: Order, message: Message) -> Receipt:
        assert isinstance(order.placed, dt.datetime)
        total = sum((item.price for item in order.items), Decimal())
        return Receipt(order=order.id, total=total, at=order.placed)

    await app.start_consuming()
    order = Order(id=uuid.uuid4(), items=[Item(name="tea", price=Decimal("1.10"))] * 3, placed=placed)
    reply = await app.producer.send_message(queue, order, correlation_id="order-1")

    assert reply == {
        "success": True,
        "data": {"order": str(order.id), "total": "3.30", "at": "2024-02-29T12:00:00Z", "note": None},
        "correlation_id": "order-1",
    }


async def of_point(payload: Point) -> object:
    return payload


async def of_address(payload: Address) -> object:
    return payload


def of_list(payload: list[int]) -> object:
    return sum(payload)


async def of_text(payload: str) -> object:
    return payload.upper()


def of_number(payload: int) -> object:
    return payload + 1


async def of_dict(payload: dict[str, Any]) -> object:
    return payload


async def of_plain_dict(payload: dict) -> object:  # type: ignore[type-arg]
    return payload


async def of_anything(payload: Any) -> object:  # noqa: ANN401
    return payload


@pytest.mark.parametrize(
    ("handler", "sent", "data"),
    [
        (of_point, {"x": 1}, {"x": 1, "y": 0}),
        (of_address, {"city": "Алматы"}, {"city": "Алматы"}),
        (of_list, [1, 2, 3], 6),
        (of_text, "tea", "TEA"),
        (of_number, 41, 42),
        (of_dict, {"a": [1, None]}, {"a": [1, None]}),
        (of_plain_dict, [1, 2], [1, 2]),
        (of_anything, None, None),
    ],
)
async def test_each_kind_of_payload(
    stage: Stage, handler: Callable[..., object], sent: object, data: object
) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(handler)
    await app.start_consuming()

    assert (await app.producer.send_message(queue, sent))["data"] == data


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    def method(self, order: Point) -> str:
        return f"{self.name} {order.x}"

    async def __call__(self, order: Point, message: Message) -> str:
        return f"{self.name} {order.x}"


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> object:
        return function(*args, **kwargs)

    return wrapper


@decorated
async def decorated_handler(order: Point, message: Message) -> str:
    return f"shop {order.x}"


async def with_dependency(name: str, order: Point) -> str:
    return f"{name} {order.x}"


@pytest.mark.parametrize(
    "handler",
    [
        Shop("shop").method,
        Shop("shop"),
        decorated_handler,
        functools.partial(with_dependency, "shop"),
        lambda payload: f"shop {payload['x']}",
    ],
    ids=["method", "object", "decorated", "partial", "lambda"],
)
async def test_each_kind_of_callable(memory: Stage, handler: Callable[..., object]) -> None:
    queue = memory.queue()
    app = memory.app()
    app.handler(queue)(handler)
    await app.start_consuming()

    assert (await app.producer.send_message(queue, {"x": 7}))["data"] == "shop 7"


async def test_a_handler_of_the_context_alone(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()

    @app.handler(queue)
    def context(message: Message) -> str:
        return message.body.decode()

    await app.start_consuming()
    assert (await app.producer.send_message(queue, [1]))["data"] == "[1]"


async def test_an_invalid_payload_is_dead_lettered_at_once_with_its_errors(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    runs = 0

    @app.handler(queue, max_retries=5)
    async def create(order: Order) -> None:
        nonlocal runs
        runs += 1

    await app.start_consuming()
    sent = await stage.ask(queue, {"id": "7", "items": [{"name": "tea"}]})

    reply = await stage.reply(sent)
    letter = await stage.letter(queue)
    assert (reply["success"], reply["data"], reply["error_code"]) == (False, None, "invalid_message")
    assert letter["reason"].startswith("Сообщение не прошло проверку: ")
    for place in ("id: ", "items.0.price: Field required", "placed: Field required"):
        assert place in reply["error"]
        assert place in letter["reason"]
    assert (letter["reason_code"], letter["attempts"], letter["error_type"]) == (
        ("invalid_message", 0, "InvalidMessage")
    )
    assert (runs, app.statistics.retried) == (0, 0)


async def test_the_dead_letter_of_an_invalid_message_lists_its_errors(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(redact=lambda text: text.replace("y: Input", "y: (no) Input"))

    @app.handler(queue)
    async def handler(payload: Point) -> None: ...

    await app.start_consuming()
    await stage.ask(queue, {"x": "zzz", "y": []})

    assert (await stage.letter(queue))["errors"] == [
        {
            "type": "int_parsing",
            "loc": ["body", "x"],
            "msg": "Input should be a valid integer, unable to parse string as an integer",
        },
        {"type": "int_type", "loc": ["body"], "msg": "y: (no) Input should be a valid integer"},
    ]


async def test_other_dead_letters_have_no_list_of_errors(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=0)

    @app.handler(queue)
    async def handler(payload: Point) -> None:
        raise LookupError

    await app.start_consuming()
    await stage.ask(queue, {"x": 1})
    assert "errors" not in await stage.letter(queue)
    await stage.ask(queue, body=b"{")
    assert "errors" not in await stage.letter(queue)
