"""Moving over from 0.1.4: both versions talk to each other, and share a queue, on one broker."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from autosell_rmq import (
    Binding,
    Message,
    RabbitMQ,
    RabbitMQProducer,
    RetryLater,
)
from tests.acceptance.migration_fixtures import (
    OldService,
    delete,
    depth,
    old_python,
    old_service,
    on_channel,
    take_letter,
)
from tests.support.names import unique
from tests.support.services import RABBITMQ_URL
from tests.support.waiting import eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq, pytest.mark.timeout(150)]


@pytest.fixture(scope="session")
def python_014(request: pytest.FixtureRequest) -> Path:
    cache = request.config.cache
    assert cache is not None
    return old_python(cache.mkdir("autosell-rmq-0.1.4") / "venv")


@pytest.fixture
async def old(python_014: Path) -> AsyncIterator[OldService]:
    async with old_service(python_014) as service:
        yield service


@pytest.fixture
async def queue() -> AsyncIterator[str]:
    name = unique("moving")
    yield name
    delete(name)


@pytest.fixture
async def app() -> AsyncIterator[RabbitMQ]:
    """Ours; handlers are added by the test."""
    async with RabbitMQ(RABBITMQ_URL, retry_delay=0.5) as app:
        yield app


@pytest.fixture
async def producer() -> AsyncIterator[RabbitMQProducer]:
    async with RabbitMQProducer(RABBITMQ_URL) as producer:
        yield producer


class Ours:
    """The handler of ours, with the manners of the old service's."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.messages: list[Message] = []

    async def __call__(self, data: dict[str, Any], message: Message) -> dict[str, Any]:
        self.seen.append(data.get("n"))
        self.messages.append(message)
        if data.get("fail"):
            raise ValueError("boom")
        await asyncio.sleep(data.get("takes", 0))
        return {"by": "1.0", "n": data.get("n")}


# --- the old producer asks our consumer ------------------------------------------------------------


async def test_the_old_producer_gets_the_replies_of_our_consumer(
    old: OldService, app: RabbitMQ, queue: str
) -> None:
    app.handler(queue)(Ours())
    await app.start_consuming()

    replies = await asyncio.gather(*(old("send", queue=queue, data={"n": n}) for n in range(20)))

    assert [reply["data"] for reply in replies] == [{"by": "1.0", "n": n} for n in range(20)]
    assert all(reply["success"] and reply["correlation_id"] for reply in replies)


async def test_the_old_producer_gets_one_error_reply_after_our_last_attempt(
    old: OldService, app: RabbitMQ, queue: str
) -> None:
    ours = Ours()
    app.handler(queue, max_retries=1)(ours)
    await app.start_consuming()

    reply = await old("send", queue=queue, data={"n": 1, "fail": True}, correlation_id="c-1")

    assert reply == {
        "success": False,
        "data": None,
        "error": "ValueError: boom",
        "error_code": "max_retries_exceeded",
        "correlation_id": "c-1",
    }
    assert ours.seen == [1, 1]
    assert take_letter(f"{queue}_dlq").properties.correlation_id == "c-1"


async def test_a_duplicate_of_the_old_producer_gets_the_stored_reply(
    old: OldService, app: RabbitMQ, queue: str
) -> None:
    """Though 0.1.4 puts a new message id on each."""
    ours = Ours()
    app.handler(queue)(ours)
    await app.start_consuming()

    first = await old("send", queue=queue, data={"n": 1}, correlation_id="c-1")
    second = await old("send", queue=queue, data={"n": 2}, correlation_id="c-1")

    assert first == second == {"success": True, "data": {"by": "1.0", "n": 1}, "correlation_id": "c-1"}
    assert ours.seen == [1]
    assert (app.statistics.duplicates, app.statistics.conflicts) == (1, 1)


async def test_what_the_old_producer_only_sends_is_handled(
    old: OldService, app: RabbitMQ, queue: str
) -> None:
    ours, exchange = Ours(), unique("events")
    app.handler(queue, bind=Binding(exchange, "order.*"))(ours)
    await app.start_consuming()

    try:
        await old("send_fire_and_forget", queue=queue, data={"n": 1})
        sent = await old("send", queue=queue, data={"n": 2}, wait_for_response=False, correlation_id="c-2")
        await old("publish_to_exchange", exchange=exchange, routing_key="order.created", data={"n": 3})
        await eventually(lambda: len(ours.seen) == 3)
    finally:
        on_channel(lambda channel: channel.exchange_delete(exchange))

    assert sent == {"correlation_id": "c-2", "sent": True}
    assert sorted(ours.seen) == [1, 2, 3]


# --- our producer asks the old consumer ------------------------------------------------------------


async def test_our_producer_gets_the_replies_of_the_old_consumer(
    old: OldService, producer: RabbitMQProducer, queue: str
) -> None:
    await old.consume(queue)

    replies = await asyncio.gather(*(producer.send_message(queue, {"n": n}) for n in range(20)))

    assert [reply["data"] for reply in replies] == [{"by": "0.1.4", "n": n} for n in range(20)]


async def test_our_producer_gets_the_error_reply_of_the_old_consumer_after_its_retry(
    old: OldService, producer: RabbitMQProducer, queue: str
) -> None:
    await old.consume(queue)

    reply = await producer.send_message(queue, {"fail": True}, correlation_id="c-1")

    assert reply == {
        "success": False,
        "error": "Ошибка обработки сообщения: boom",
        "correlation_id": "c-1",
    }


async def test_the_old_consumer_takes_what_our_producer_delays(
    old: OldService, producer: RabbitMQProducer, queue: str
) -> None:
    await old.consume(queue)

    await producer.send_fire_and_forget(queue, {"n": 1}, delay=1)
    await producer.send_fire_and_forget(queue, {"n": 2})

    assert await old.until_seen(2) == [2, 1]


# --- side by side on one queue ---------------------------------------------------------------------


async def test_side_by_side_every_message_is_answered_by_one_of_the_two(
    old: OldService, app: RabbitMQ, producer: RabbitMQProducer, queue: str
) -> None:
    ours = Ours()
    await old.consume(queue)
    app.handler(queue, declare=False)(ours)
    await app.start_consuming()

    replies = await asyncio.gather(
        *(
            producer.send_message(queue, {"n": n, "takes": 0.02}, correlation_id=f"{queue}-{n}")
            for n in range(80)
        )
    )

    seen = await old("seen")
    assert [reply["data"]["n"] for reply in replies] == list(range(80))
    assert {reply["data"]["by"] for reply in replies} == {"0.1.4", "1.0"}
    assert sorted(seen + ours.seen) == list(range(80))
    assert (depth(queue), depth(f"{queue}_dlq")) == (0, 0)


async def test_what_the_old_consumer_had_in_hand_when_it_was_killed_is_handled_by_ours(
    old: OldService, app: RabbitMQ, producer: RabbitMQProducer, queue: str
) -> None:
    ours = Ours()
    await old.consume(queue)
    app.handler(queue, declare=False)(ours)
    await app.start_consuming()
    asked = [
        asyncio.create_task(
            producer.send_message(queue, {"n": n, "takes": 0.3}, correlation_id=f"{queue}-{n}")
        )
        for n in range(40)
    ]

    await old.until_seen(5)
    await old.kill()

    replies = await asyncio.gather(*asked)
    assert [reply["data"] for reply in replies] == [{"by": "1.0", "n": n} for n in range(40)]
    assert sorted(ours.seen) == list(range(40))
    assert (depth(queue), depth(f"{queue}_dlq")) == (0, 0)


async def test_nothing_that_ours_took_is_lost_when_ours_goes_and_the_old_one_stays(
    old: OldService, producer: RabbitMQProducer, queue: str
) -> None:
    """The way back: a drain gives back what is not done, retries come home to the old consumer."""
    running: list[Any] = []
    app = RabbitMQ(RABBITMQ_URL, drain_timeout=0.2)

    async def every_other_fails(data: dict[str, Any]) -> None:
        if data["n"] % 2:
            raise RetryLater("not here", delay=0.5)
        running.append(data["n"])
        await asyncio.Event().wait()  # until the drain gives up waiting

    app.handler(queue, declare=False, prefetch=5)(every_other_fails)
    await old.consume(queue)
    await old("stop_consuming")
    asked = []
    async with app:
        await app.start_consuming()
        for n in range(20):
            cid = f"{queue}-{n}"
            asked.append(asyncio.create_task(producer.send_message(queue, {"n": n}, correlation_id=cid)))
        await eventually(lambda: len(running) == 5)
    await old.consume(queue)

    replies = await asyncio.gather(*asked)
    assert [reply["data"] for reply in replies] == [{"by": "0.1.4", "n": n} for n in range(20)]
    assert app.statistics.retried >= 4
    assert sorted(set(await old("seen"))) == list(range(20))
