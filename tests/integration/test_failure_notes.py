"""What the store knows of a message that was given up: noted when its dead letter is there."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from autosell_rmq import MemoryStore, Message, RabbitMQ, Reject, RetryLater
from autosell_rmq.testing import Faults, FaultyStore
from tests.integration.app_fixtures import Gate, Stage
from tests.integration.stage_fixtures import MemoryStage
from tests.support.names import unique
from tests.support.waiting import eventually


async def fails(payload: Any) -> None:  # noqa: ANN401
    raise ValueError("no such item")


async def rejects(payload: Any) -> None:  # noqa: ANN401
    raise Reject("not ours")


async def typed(payload: int) -> int:
    return payload


async def failure(app: RabbitMQ, queue: str, sent: str) -> tuple[str, str]:
    """Code and words of what is noted."""
    record = await app.lookup(queue, sent)
    assert record is not None
    assert record.state == "failed"
    assert record.data is not None
    noted = json.loads(record.data)
    return noted["error_code"], noted["error"]


@pytest.mark.parametrize(
    ("handler", "body", "code", "words"),
    [
        (fails, b"1", "max_retries_exceeded", "ValueError: no such item"),
        (rejects, b"1", "rejected", "not ours"),
        (typed, b'"one"', "invalid_message", "valid integer"),
        (typed, b"{", "invalid_json", "EOF"),
        (typed, b"1" * 200, "too_large", "200 bytes"),
    ],
    ids=["max_retries_exceeded", "rejected", "invalid_message", "invalid_json", "too_large"],
)
async def test_each_dead_letter_is_noted_as_the_reply_says_it(
    stage: Stage, handler: Callable[..., object], body: bytes, code: str, words: str
) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=1, retry_delay=1.0, max_body_bytes=150)
    app.handler(queue)(handler)
    await app.start_consuming()

    sent = await stage.ask(queue, body=body)

    reply = await stage.reply(sent)
    assert await failure(app, queue, sent) == (code, reply["error"])
    assert reply["error_code"] == code
    assert words in reply["error"]


async def test_the_note_is_there_before_the_reply_and_the_ack(memory: MemoryStage) -> None:
    queue, faults = memory.queue(), Faults()
    held = faults.hold("note")
    app = memory.app(store=FaultyStore(MemoryStore(), faults))
    app.handler(queue)(rejects)
    await app.start_consuming()
    sent = await memory.ask(queue, 1)

    await held.reached.wait()

    assert await memory.depth(f"{queue}_dlq") == 1
    assert memory.replies(sent) == 0
    assert memory.server.queue(queue).unacked == 1
    held.released.set()
    assert not (await memory.reply(sent))["success"]


@pytest.mark.parametrize("error", [OSError("no store"), ValueError("odd")])
async def test_a_store_that_cannot_note_stops_nothing(
    stage: Stage, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    queue, faults = stage.queue(), Faults()
    faults.on("note", before=error)
    app = stage.app(store=FaultyStore(MemoryStore(), faults))
    app.handler(queue)(rejects)
    await app.start_consuming()

    sent = await stage.ask(queue, 1)

    assert (await stage.reply(sent))["error_code"] == "rejected"
    await stage.has(f"{queue}_dlq", 1)
    await stage.has(queue, 0)
    assert await app.lookup(queue, sent) is None
    assert "could not be noted" in caplog.text


async def test_a_replay_is_done_and_forgets_the_failure(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    fixed: list[bool] = []

    @app.handler(queue)
    async def handler(payload: int) -> int:
        if not fixed:
            raise Reject("broken")
        return payload + 1

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    await stage.reply(sent)
    assert (await failure(app, queue, sent))[0] == "rejected"

    fixed.append(True)
    await stage.ask(queue, 1, correlation_id=sent)

    assert (await stage.reply(sent))["data"] == 2
    record = await app.lookup(queue, sent)
    assert record is not None
    assert (record.state, record.data) == ("done", b"2")


async def test_what_waits_for_a_retry_is_still_accepted(memory: MemoryStage) -> None:
    queue, gate = memory.queue(), Gate()
    app = memory.app(retry_delay=8.0)

    @app.handler(queue)
    async def handler(payload: int, message: Message) -> int:
        if message.attempt == 1:
            raise RetryLater
        await gate()
        return payload

    async def state() -> str | None:
        record = await app.lookup(queue, sent)
        return record.state if record is not None else None

    await app.start_consuming()
    sent = await app.accept(queue, 1)
    assert await state() == "accepted"
    await memory.until(lambda: app.statistics.retried == 1)
    assert await state() == "accepted"
    await memory.until(lambda: gate.entered == 1)
    assert await state() == "processing"
    gate.open()

    async def is_done() -> bool:
        return await state() == "done"

    await eventually(is_done)


async def test_a_reply_in_a_queue_of_requests_says_nothing_of_the_request(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(typed)
    await app.start_consuming()
    sent = unique("id")

    await stage.ask(queue, {"success": True}, correlation_id=sent, type="reply")

    assert (await stage.reply(sent))["error_code"] == "rejected"
    assert await app.lookup(queue, sent) is None


async def test_a_key_function_that_fails_leaves_no_note(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=0)

    def no_key(message: Message) -> str:
        raise LookupError("no key in it")

    app.handler(queue, idempotency_key=no_key)(typed)
    await app.start_consuming()

    sent = await stage.ask(queue, 1)

    assert "no key in it" in (await stage.reply(sent))["error"]
    await stage.has(queue, 0)


async def test_an_error_that_no_json_carries_is_no_obstacle(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=0)

    @app.handler(queue)
    async def handler(payload: int) -> None:
        raise ValueError("\x00 é \ud800 \U0001f600")

    await app.start_consuming()
    sent = await stage.ask(queue, 1)

    reply = await stage.reply(sent)
    assert (await failure(app, queue, sent))[1] == reply["error"]


async def test_a_failure_beside_a_result_changes_nothing(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue, on_conflict="reject")(typed)
    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    await stage.reply(sent)

    await stage.ask(queue, 2, correlation_id=sent)

    assert (await stage.reply(sent))["error_code"] == "rejected"
    record = await app.lookup(queue, sent)
    assert record is not None
    assert (record.state, record.data) == ("done", b"1")
