"""What the seed promises beyond its snippets: idempotency, and the four ways into the DLQ."""

import datetime as dt
import json
from typing import Any

import pytest

from autosell_rmq import RabbitMQConsumer, RabbitMQProducer
from autosell_rmq.message import Properties
from tests.acceptance.consumers import consuming
from tests.acceptance.markdown import SEED, blocks, rewritten, seed_snippet
from tests.acceptance.places import Place
from tests.acceptance.snippets import execute

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(60)]

TWICE = seed_snippet("unique-id-123")


@pytest.fixture(scope="module")
def seed_envelope() -> dict[str, str]:
    [block] = blocks(SEED, "json")
    envelope: dict[str, str] = json.loads(block.code)
    return envelope


# --- idempotency ---------------------------------------------------------------------------------------


async def test_same_correlation_id_gets_the_same_answer_and_one_run(place: Place) -> None:
    seen: list[dict[str, Any]] = []

    async def handler(message_data: dict[str, Any]) -> dict[str, Any]:
        seen.append(message_data)
        return {"run": len(seen)}

    queue = place.queue("test_queue")
    async with consuming(place, queue, handler) as consumer, RabbitMQProducer(place.url) as producer:
        names = await execute(rewritten(TWICE, {'"test_queue"': repr(queue)}), {"producer": producer})

    assert names["response1"] == names["response2"]
    assert names["response1"] == {"success": True, "data": {"run": 1}, "correlation_id": "unique-id-123"}
    assert seen == [{"data": "test"}]
    assert (consumer.statistics.duplicates, consumer.statistics.conflicts) == (1, 1)


async def test_failure_is_not_remembered_as_done(place: Place) -> None:
    runs = 0

    async def handler(message_data: dict[str, Any]) -> str:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError("not yet")
        return "done"

    queue = place.queue()
    async with consuming(place, queue, handler, max_retries=0), RabbitMQProducer(place.url) as producer:
        first = await producer.send_message(queue, {}, correlation_id="one-id")
        second = await producer.send_message(queue, {}, correlation_id="one-id")

    assert (first["success"], second["success"], second["data"]) == (False, True, "done")


# --- the DLQ -------------------------------------------------------------------------------------------


def check(letter: dict[str, Any], seed: dict[str, str], *, queue: str, body: str, code: str) -> None:
    """The seed's five fields first, in its order; the added ones behind them."""
    assert list(letter)[:5] == list(seed)
    assert letter["original_body"] == body
    assert letter["original_queue"] == queue
    assert letter["reason_code"] == code
    failed_at = dt.datetime.fromisoformat(letter["failed_at"])
    assert abs(dt.datetime.now(dt.UTC) - failed_at) < dt.timedelta(minutes=1)


async def fails(message_data: dict[str, Any]) -> None:
    raise ValueError("мимо")


async def test_too_many_attempts(place: Place, seed_envelope: dict[str, str]) -> None:
    queue = place.queue()

    async with consuming(place, queue, fails, max_retries=1), RabbitMQProducer(place.url) as producer:
        reply = await producer.send_message(queue, {"n": 1}, correlation_id="c-1")
        letter = await place.letter(f"{queue}_dlq")

    check(letter, seed_envelope, queue=queue, body='{"n":1}', code="max_retries_exceeded")
    assert seed_envelope["reason"] == "Превышено максимальное количество попыток: ..."
    assert letter["reason"].startswith(seed_envelope["reason"].removesuffix("..."))
    assert letter["reason"].endswith("мимо")
    assert (letter["correlation_id"], letter["attempts"]) == ("c-1", 2)
    assert reply == {
        "success": False,
        "data": None,
        "error": "ValueError: мимо",
        "error_code": "max_retries_exceeded",
        "correlation_id": "c-1",
    }


async def test_body_that_is_no_json(place: Place, seed_envelope: dict[str, str]) -> None:
    queue = place.queue()

    async with consuming(place, queue):
        await place.put(queue, b"{no json", Properties(correlation_id="c-2"))
        letter = await place.letter(f"{queue}_dlq")

    check(letter, seed_envelope, queue=queue, body="{no json", code="invalid_json")
    assert letter["reason"].startswith("Ошибка парсинга JSON: ")
    assert letter["correlation_id"] == "c-2"


async def test_unhandled_exception(place: Place, seed_envelope: dict[str, str]) -> None:
    queue = place.queue()

    async with consuming(place, queue, fails, max_retries=0):
        await place.put(queue, b'{"n": 2}')
        letter = await place.letter(f"{queue}_dlq")

    check(letter, seed_envelope, queue=queue, body='{"n": 2}', code="unhandled_exception")
    assert "мимо" in letter["reason"]
    assert (letter["correlation_id"], letter["error_type"]) == (None, "ValueError")


async def test_no_handler(place: Place, seed_envelope: dict[str, str]) -> None:
    queue = place.queue()
    consumer = RabbitMQConsumer(place.url, queue)
    await consumer.start_consuming()
    try:
        async with RabbitMQProducer(place.url) as producer:
            reply = await producer.send_message(queue, {"n": 3})
        letter = await place.letter(f"{queue}_dlq")
    finally:
        await consumer.close()

    check(letter, seed_envelope, queue=queue, body='{"n":3}', code="no_handler")
    assert letter["reason"] == reply["error"] == "Обработчик сообщений не установлен"
