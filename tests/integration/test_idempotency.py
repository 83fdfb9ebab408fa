"""One effect per id: duplicates get the first result, byte for byte, and failures are not remembered."""

import asyncio
import itertools
from typing import Any, Unpack

import pytest

from autosell_rmq import Message, RabbitMQ
from autosell_rmq.config import HandlerKwargs, IdempotencyKey
from autosell_rmq.idempotency import idempotency_key
from tests.integration.app_fixtures import Gate, Stage
from tests.support.waiting import eventually


class Counter:
    """A handler whose every run has another result."""

    def __init__(self) -> None:
        self.runs = 0
        self.keys: list[str | None] = []

    async def __call__(self, payload: object, message: Message) -> dict[str, Any]:
        self.runs += 1
        self.keys.append(message.idempotency_key)
        await asyncio.sleep(0)
        return {"run": self.runs, "payload": payload}


async def serving(stage: Stage, app: RabbitMQ, **options: Unpack[HandlerKwargs]) -> tuple[str, Counter]:
    queue, handler = stage.queue(), Counter()
    app.handler(queue, **options)(handler)
    await app.start_consuming()
    return queue, handler


async def test_a_duplicate_later_gets_the_stored_reply(stage: Stage) -> None:
    app = stage.app()
    queue, handler = await serving(stage, app)
    sent = await stage.ask(queue, {"n": 1})
    first = await stage.reply_message(sent)
    for _ in range(3):
        await stage.ask(queue, {"n": 1}, correlation_id=sent)
        assert (await stage.reply_message(sent)).body == first.body

    assert handler.runs == 1
    await eventually(lambda: (app.statistics.handled, app.statistics.duplicates) == (1, 3))


async def test_duplicates_at_once_are_one_run_with_equal_replies(stage: Stage) -> None:
    app = stage.app()
    queue, handler = await serving(stage, app)
    await asyncio.gather(*(stage.ask(queue, {"n": 1}, correlation_id="same") for _ in range(15)))

    bodies = {(await stage.reply_message("same")).body for _ in range(15)}
    assert bodies == {b'{"success":true,"data":{"run":1,"payload":{"n":1}},"correlation_id":"same"}'}
    assert handler.runs == 1
    assert app.statistics.busy == 0  # they waited here, not in the delay line


async def test_a_duplicate_of_a_sync_handler_waits_for_its_twin(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    runs = itertools.count(1)

    @app.handler(queue)
    def handler(payload: int) -> int:
        return next(runs)

    await app.start_consuming()
    await asyncio.gather(*(stage.ask(queue, 1, correlation_id="same") for _ in range(10)))
    assert [(await stage.reply("same"))["data"] for _ in range(10)] == [1] * 10
    assert next(runs) == 2


async def test_a_failure_is_not_remembered(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=0)
    fails = True
    runs = 0

    @app.handler(queue)
    async def handler(payload: int) -> int:
        nonlocal runs
        runs += 1
        if fails:
            raise ValueError("not yet")
        return payload

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    assert not (await stage.reply(sent))["success"]
    await stage.ask(queue, 1, correlation_id=sent)
    assert not (await stage.reply(sent))["success"]
    fails = False
    await stage.ask(queue, 1, correlation_id=sent)
    assert (await stage.reply(sent))["data"] == 1
    assert runs == 3


async def test_duplicates_of_a_message_that_is_retried_get_its_final_result(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()

    @app.handler(queue, max_retries=3)
    async def handler(payload: int, message: Message) -> int:
        if message.attempt == 1:
            raise ValueError("once")
        return message.attempt

    await app.start_consuming()
    for _ in range(3):
        await stage.ask(queue, 1, correlation_id="same")
    assert {(await stage.reply_message("same")).body for _ in range(3)} == {
        b'{"success":true,"data":2,"correlation_id":"same"}'
    }
    assert app.statistics.handled == 1


async def test_another_body_under_a_used_id_gets_the_first_result_and_a_flag(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    app = stage.app()
    queue, handler = await serving(stage, app)
    sent = await stage.ask(queue, {"n": 1})
    first = await stage.reply_message(sent)
    await stage.ask(queue, {"n": 2}, correlation_id=sent)
    second = await stage.reply_message(sent)
    await stage.ask(queue, {"n": 1}, correlation_id=sent)
    third = await stage.reply_message(sent)

    assert first.body == second.body == third.body
    flags = [message.headers.get("x-idempotency-conflict") for message in (first, second, third)]
    assert flags == [None, 1, None]
    assert handler.runs == app.statistics.conflicts == 1
    assert any(r.levelname == "WARNING" and "another body" in r.message for r in caplog.records)


async def test_another_body_under_a_used_id_may_be_rejected(stage: Stage) -> None:
    app = stage.app()
    queue, handler = await serving(stage, app, on_conflict="reject")
    sent = await stage.ask(queue, {"n": 1})
    assert (await stage.reply(sent))["success"]
    await stage.ask(queue, {"n": 2}, correlation_id=sent)

    assert (await stage.reply(sent))["error_code"] == "rejected"
    letter = await stage.letter(queue)
    assert letter["reason_code"] == "rejected"
    assert letter["original_body"] == '{"n": 2}'
    assert "another body" in letter["reason"]
    assert handler.runs == 1
    await stage.ask(queue, {"n": 1}, correlation_id=sent)
    assert (await stage.reply(sent))["success"]


@pytest.mark.parametrize(
    ("option", "ids", "runs"),
    [
        ("correlation_id", [("c", "m1"), ("c", "m2"), ("d", "m1")], 2),
        ("message_id", [("c", "m1"), ("d", "m1"), ("c", "m2")], 2),
        (None, [("c", "m"), ("c", "m")], 2),
        (lambda message: message.headers["order"], [("c", "m1"), ("d", "m2")], 1),
        (lambda message: None, [("c", "m"), ("c", "m")], 2),
    ],
    ids=["correlation_id", "message_id", "off", "callable", "callable_none"],
)
async def test_which_id_makes_a_duplicate(
    stage: Stage, option: IdempotencyKey, ids: list[tuple[str, str]], runs: int
) -> None:
    app = stage.app()
    queue, handler = await serving(stage, app, idempotency_key=option)
    for correlation_id, message_id in ids:
        await stage.ask(
            queue, 1, correlation_id=correlation_id, message_id=message_id, headers={"order": "o-1"}
        )
        assert (await stage.reply(correlation_id))["success"]
    assert handler.runs == runs
    off = option is None or (callable(option) and runs == 2)
    assert app.statistics.without_id == (2 if off else 0)


@pytest.mark.parametrize(
    ("option", "wire"),
    [
        ("correlation_id", {"correlation_id": None, "message_id": "only"}),
        ("message_id", {"correlation_id": "only", "message_id": None}),
    ],
)
async def test_either_id_falls_back_on_the_other(
    memory: Stage, option: IdempotencyKey, wire: dict[str, Any]
) -> None:
    app = memory.app()
    queue, handler = await serving(memory, app, idempotency_key=option)
    for _ in range(2):
        await memory.ask(queue, 1, **wire)
    await eventually(lambda: app.statistics.duplicates == 1)
    assert handler.keys == [idempotency_key("/", queue, "only")]


async def test_a_key_function_that_raises_is_a_failure(stage: Stage) -> None:
    app = stage.app(max_retries=0)

    def broken(message: Message) -> str:
        raise KeyError("order")

    queue, handler = await serving(stage, app, idempotency_key=broken)
    sent = await stage.ask(queue, 1)
    assert (await stage.reply(sent))["error"] == "KeyError: 'order'"
    assert handler.runs == 0
    assert (await stage.letter(queue))["reason_code"] == "unhandled_exception"


async def test_without_any_id_a_message_is_handled_and_counted(stage: Stage) -> None:
    app = stage.app()
    queue, handler = await serving(stage, app)
    for _ in range(2):
        await stage.send_bare(queue, b"1")
    await eventually(lambda: app.statistics.without_id == app.statistics.handled == 2)
    assert handler.keys == [None, None]


async def test_ids_that_look_alike_are_different(stage: Stage) -> None:
    app = stage.app()
    queue, handler = await serving(stage, app)
    alike = ["AbC", "abc", "abc ", "é", "e\u0301", "a\nb", "%s", "x" * 255]
    for identity in alike:
        await stage.ask(queue, 1, correlation_id=identity)
        assert (await stage.reply(identity))["correlation_id"] == identity
    assert handler.runs == len(set(handler.keys)) == len(alike)


async def test_one_id_in_two_queues_is_two_effects(stage: Stage) -> None:
    app = stage.app()
    one, other = stage.queue(), stage.queue()
    handler = Counter()
    app.handler(one)(handler)
    app.handler(other)(handler)
    await app.start_consuming()
    for queue in (one, other):
        await stage.ask(queue, 1, correlation_id="same")
        await stage.reply("same")
    assert handler.runs == 2


async def test_fifty_duplicates_of_a_slow_handler_do_not_starve_the_others(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(busy_timeout=0.1)
    gate = Gate()

    @app.handler(queue, prefetch=10)
    async def handler(payload: str) -> str:
        if payload == "slow":
            await gate()
        return payload

    await app.start_consuming()
    for _ in range(51):
        await stage.ask(queue, "slow", correlation_id="slow")
    others = [await stage.ask(queue, "quick") for _ in range(5)]

    for identity in others:
        assert (await stage.reply(identity))["data"] == "quick"
    assert gate.entered == 1
    assert app.statistics.busy >= 42
    assert app.statistics.retried == 0
    gate.open()
    answers = [(await stage.reply_message("slow")).body for _ in range(51)]
    assert set(answers) == {b'{"success":true,"data":"slow","correlation_id":"slow"}'}
    assert gate.entered == 1


async def test_a_cancelled_twin_lets_the_duplicate_run(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    gate = Gate()

    @app.handler(queue, timeout=0.2, max_retries=0)
    async def handler(payload: int) -> int:
        if not gate.entered:
            await gate()
        return payload

    await app.start_consuming()
    for _ in range(2):
        await stage.ask(queue, 1, correlation_id="same")
    replies = [await stage.reply("same") for _ in range(2)]
    assert sorted(reply["success"] for reply in replies) == [False, True]
