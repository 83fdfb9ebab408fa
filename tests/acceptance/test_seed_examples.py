"""The seed's longer examples: robust handler, consumer as a context, batch, and the life of a consumer."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from autosell_rmq import RabbitMQConsumer, RabbitMQProducer
from tests.acceptance.consumers import consuming, echo
from tests.acceptance.markdown import rewritten, seed_snippet
from tests.acceptance.places import Place
from tests.acceptance.snippets import execute
from tests.support.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(60)]

ROBUST = seed_snippet("async def robust_handler")
CONTEXT = seed_snippet("async def consumer_context")
BATCH = seed_snippet("async def send_batch_messages")


# --- the snippets --------------------------------------------------------------------------------------


async def test_robust_handler(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    names: dict[str, Any] = {
        "process_business_logic": lambda data: {"doubled": data["n"] * 2},
        "datetime": datetime,
        "logging": logging,
    }
    await execute(ROBUST, names)
    queue = place.queue("robust")

    async with (
        consuming(place, queue, names["robust_handler"], max_retries=1),
        RabbitMQProducer(place.url) as producer,
    ):
        good = await producer.send_message(queue, {"n": 21})
        bad = await producer.send_message(queue, {"simulate_error": True})
        letter = await place.letter(f"{queue}_dlq")

    assert good["data"]["result"] == {"doubled": 42}
    assert datetime.fromisoformat(good["data"]["processed_at"])
    assert bad["success"] is False
    assert bad["error"] == "ValueError: Имитация ошибки"
    assert letter["reason"].endswith("Имитация ошибки")
    assert caplog.messages.count("Ошибка обработки: Имитация ошибки") == 2  # the first run and its retry


async def test_consumer_as_a_context_runs_forever_after_start_consuming(place: Place) -> None:
    queue = place.queue("orders_queue")
    code = rewritten(
        CONTEXT, {'"orders_queue"': repr(queue), "(queue_name=queue_name)": "(URL, queue_name=queue_name)"}
    )
    names: dict[str, Any] = {"RabbitMQConsumer": RabbitMQConsumer, "URL": place.url, "my_handler": echo}
    await execute(code, names)
    made: list[RabbitMQConsumer] = []
    context: Callable[[str], AbstractAsyncContextManager[RabbitMQConsumer]] = names["consumer_context"]

    @asynccontextmanager
    async def watched(name: str) -> AsyncGenerator[RabbitMQConsumer]:
        async with context(name) as consumer:
            made.append(consumer)
            yield consumer

    names["consumer_context"] = watched
    main = asyncio.create_task(names["main"]())
    async with RabbitMQProducer(place.url) as producer:
        await eventually(lambda: place.exists(queue))
        reply = await producer.send_message(queue, {"order": 1})
    assert not main.done()
    made[0].stop()
    async with asyncio.timeout(PATIENCE):
        await main

    assert reply["data"] == {"order": 1}


async def test_batch(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    queue = place.queue("batch_queue")
    code = rewritten(BATCH, {'"batch_queue"': repr(queue), "RabbitMQProducer()": "RabbitMQProducer(URL)"})
    names: dict[str, Any] = {"asyncio": asyncio, "RabbitMQProducer": RabbitMQProducer, "URL": place.url}
    await execute(code, names)

    async with consuming(place, queue):
        await names["send_batch_messages"]()

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    for i, line in enumerate(lines):  # each answer belongs to its own message
        assert line.startswith(
            f"Ответ {i}: {{'success': True, 'data': {{'batch_id': 'batch_001', 'item': {i},"
        )


async def test_batch_shows_errors_as_results(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"asyncio": asyncio, "RabbitMQProducer": RabbitMQProducer, "URL": place.url}
    missing = place.queue("missing")
    await execute(
        rewritten(BATCH, {'"batch_queue"': repr(missing), "RabbitMQProducer()": "RabbitMQProducer(URL)"}),
        names,
    )

    await names["send_batch_messages"]()

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all(line.startswith(f"Ошибка в сообщении {i}: ") for i, line in enumerate(lines))
    assert all(missing in line for line in lines)


# --- the life of a consumer ----------------------------------------------------------------------------


async def test_stop_before_the_start_ends_run_forever_at_once(place: Place) -> None:
    consumer = RabbitMQConsumer(place.url, place.queue())
    consumer.set_message_handler(echo)
    consumer.stop()

    async with asyncio.timeout(PATIENCE):
        await consumer.run_forever()
    await consumer.close()


async def test_stop_twice_and_after_the_end_is_harmless(place: Place) -> None:
    queue = place.queue()
    async with consuming(place, queue) as consumer:
        run = asyncio.create_task(consumer.run_forever())
        await eventually(lambda: place.exists(queue))
        consumer.stop()
        consumer.stop()
        async with asyncio.timeout(PATIENCE):
            await run
        consumer.stop()


async def test_stop_from_another_thread(place: Place) -> None:
    async with consuming(place, place.queue()) as consumer:
        run = asyncio.create_task(consumer.run_forever())
        await asyncio.sleep(0)  # it waits now, in this loop, until another thread wakes it
        threading.Thread(target=consumer.stop).start()
        async with asyncio.timeout(PATIENCE):
            await run


async def test_stop_lets_the_running_handler_finish(place: Place) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(message_data: dict[str, Any]) -> str:
        started.set()
        await go_on.wait()
        return "finished"

    queue = place.queue()
    async with consuming(place, queue, slow) as consumer, RabbitMQProducer(place.url) as producer:
        run = asyncio.create_task(consumer.run_forever())
        reply = asyncio.create_task(producer.send_message(queue, {}))
        await started.wait()
        consumer.stop()
        await asyncio.sleep(0)
        go_on.set()
        async with asyncio.timeout(PATIENCE):
            await run
            assert (await reply)["data"] == "finished"


async def test_run_forever_off_the_main_thread(place: Place) -> None:
    queue = place.queue()
    consumer = RabbitMQConsumer(place.url, queue)
    consumer.set_message_handler(echo)

    async def serve() -> None:
        try:
            await consumer.run_forever()
        finally:
            await consumer.close()

    thread = asyncio.create_task(asyncio.to_thread(asyncio.run, serve()))
    await eventually(lambda: place.exists(queue))
    async with RabbitMQProducer(place.url) as producer:
        reply = await producer.send_message(queue, {"n": 1})
    consumer.stop()
    async with asyncio.timeout(PATIENCE):
        await thread

    assert reply["data"] == {"n": 1}


async def test_close_twice_and_without_a_start(place: Place) -> None:
    consumer, producer = RabbitMQConsumer(place.url, place.queue()), RabbitMQProducer(place.url)
    for _ in range(2):
        await consumer.close()
        await producer.close()
