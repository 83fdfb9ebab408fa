"""A handler that takes too long: an async one is cancelled and retried, a sync one is waited for."""

import asyncio
import threading

import pytest

from autosell_rmq import Message
from tests.integration.app_fixtures import Gate, Stage
from tests.support.waiting import PATIENCE, eventually

TIMEOUT = 0.2


async def test_an_async_handler_is_cancelled_and_runs_again(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    gate = Gate()

    @app.handler(queue, timeout=TIMEOUT, max_retries=1)
    async def handler(payload: object, message: Message) -> int:
        if message.attempt == 1:
            await gate()
        return message.attempt

    await app.start_consuming()
    sent = await stage.ask(queue, 1)

    assert (await stage.reply(sent))["data"] == 2
    assert (gate.entered, gate.cancelled) == (1, 1)


async def test_after_the_last_attempt_the_letter_says_that_it_ran_too_long(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    gate = Gate()

    @app.handler(queue, timeout=TIMEOUT, max_retries=0)
    async def handler(payload: object) -> None:
        await gate()

    await app.start_consuming()
    sent = await stage.ask(queue, 1)

    reply, letter = await stage.reply(sent), await stage.letter(queue)
    assert reply["error"] == "HandlerTimeout: the handler ran longer than 0.2 s"
    assert (letter["error_type"], letter["attempts"]) == ("HandlerTimeout", 1)


async def test_a_timeout_of_the_users_own_is_an_error_like_any_other(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=0)

    @app.handler(queue, timeout=30)
    async def handler(payload: object) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    assert (await stage.reply(sent))["error"] == "TimeoutError"


async def test_a_handler_that_cleans_up_after_its_timeout_is_waited_for(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(max_retries=0)
    cleaned = asyncio.Event()

    @app.handler(queue, timeout=TIMEOUT)
    async def handler(payload: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    assert (await stage.reply(sent))["error_code"] == "unhandled_exception"
    assert cleaned.is_set()


async def test_a_sync_handler_keeps_its_message_until_its_thread_returns(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    queue = stage.queue()
    app = stage.app()
    runs: list[bool] = []
    go_on = threading.Event()

    @app.handler(queue, timeout=TIMEOUT, max_retries=3)
    def handler(payload: object, message: Message) -> int:
        runs.append(go_on.wait(PATIENCE))
        return message.attempt

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    try:
        await eventually(lambda: "runs for over 0.2 s" in caplog.text)
        duplicate = await stage.ask(queue, 1, correlation_id=sent)  # waits for its twin, runs nothing
        assert stage.replies(sent) == 0
    finally:
        go_on.set()

    assert (await stage.reply(sent))["data"] == 1
    assert (await stage.reply(duplicate))["data"] == 1
    assert runs == [True]
    record = next(r for r in caplog.records if "runs for over" in r.message)
    assert record.levelname == "ERROR"
    assert queue in record.message
    assert await stage.depth(f"{queue}_dlq") == 0


async def test_a_fast_sync_handler_is_not_reported(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    queue = stage.queue()
    app = stage.app()

    @app.handler(queue, timeout=0.05)
    def handler(payload: object) -> None: ...

    @app.handler(stage.queue("slow"), timeout=30)
    async def slow(payload: object) -> None: ...

    await app.start_consuming()
    await app.producer.send_message(queue, 1)
    told = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, told.set)
    await told.wait()
    assert "runs for over" not in caplog.text
