"""What a handler returns: written as JSON, or dead-lettered at once where JSON has no form for it."""

import asyncio
import dataclasses
import datetime as dt
import uuid
from decimal import Decimal

import pydantic
import pytest

from autosell_rmq.pipeline import Statistics
from tests.integration.app_fixtures import Stage
from tests.support.waiting import eventually

LIMIT = 20_000  # bytes of a body, for the tests that go over it


class Item(pydantic.BaseModel):
    name: str
    price: Decimal


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@pytest.mark.parametrize(
    ("result", "data"),
    [
        (None, None),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Item(name="tea", price=Decimal("0.30")), {"name": "tea", "price": "0.30"}),
        ([dt.date(2024, 2, 29), dt.timedelta(hours=1)], ["2024-02-29", "PT1H"]),
        (uuid.UUID(int=5), str(uuid.UUID(int=5))),
        ({"a": (1, {2})}, {"a": [1, [2]]}),
        (b"bytes of text", "bytes of text"),
        ("\N{GRINNING FACE} \x00 \u2028", "\N{GRINNING FACE} \x00 \u2028"),
        (2**70, 2**70),
    ],
)
async def test_each_kind_of_result(memory: Stage, result: object, data: object) -> None:
    queue = memory.queue()
    app = memory.app()

    @app.handler(queue)
    def returns(payload: object) -> object:
        return result

    await app.start_consuming()
    assert (await app.producer.send_message(queue, 1))["data"] == data


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (b"\xff\xfe", "utf-8"),
        (float("nan"), "NaN"),
        ([1.0, {"deep": float("-inf")}], "NaN"),
        (object(), "object"),
        (lambda: None, "function"),
        ("x" * LIMIT, f"limit is {LIMIT - 4096}"),
    ],
    ids=["bytes", "nan", "infinity", "object", "function", "too_large"],
)
async def test_a_result_that_cannot_be_sent_is_dead_lettered_without_a_retry(
    stage: Stage, result: object, why: str
) -> None:
    queue = stage.queue()
    app = stage.app(max_body_bytes=LIMIT)
    runs = 0

    @app.handler(queue, max_retries=3)
    async def returns(payload: object) -> object:
        nonlocal runs
        runs += 1
        return result

    await app.start_consuming()
    sent = await stage.ask(queue, {"n": 1})
    reply, letter = await stage.reply(sent), await stage.letter(queue)

    assert (reply["success"], reply["error_code"]) == (False, "unhandled_exception")
    assert (letter["reason_code"], letter["attempts"]) == ("unhandled_exception", 1)
    assert why in letter["reason"]
    assert why in reply["error"]
    assert runs == 1
    await eventually(lambda: app.statistics == Statistics(dead_lettered=1, replies=1))


async def test_a_result_just_within_the_limit_is_sent(memory: Stage) -> None:
    queue = memory.queue()
    app = memory.app(max_body_bytes=LIMIT)

    @app.handler(queue)
    async def returns(payload: int) -> str:
        return "x" * (payload - 2)  # and two quotes

    await app.start_consuming()
    largest = LIMIT - 4096
    assert len((await app.producer.send_message(queue, largest))["data"]) == largest - 2
    assert (await app.producer.send_message(queue, largest + 1))["error_code"] == "unhandled_exception"


async def test_a_coroutine_of_a_sync_function_is_awaited(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()

    async def later(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    @app.handler(queue)
    def delegates(payload: int) -> object:
        return later(payload)

    await app.start_consuming()
    assert (await app.producer.send_message(queue, 4))["data"] == 8
