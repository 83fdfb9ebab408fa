"""Moving over from 0.1.4: what changes for the code that uses it, both versions side by side."""

import asyncio
import importlib
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from autosell_rmq import (
    ClosedError,
    EncodeError,
    PublishUnroutable,
    RabbitMQ,
    RabbitMQConsumer,
    RabbitMQProducer,
    ReplyTimeout,
)
from tests.acceptance.migration_fixtures import (
    OldError,
    OldService,
    delete,
    depth,
    old_python,
    old_service,
    on_channel,
    take,
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
    async with RabbitMQ(RABBITMQ_URL, retry_delay=0.5) as app:
        yield app


@pytest.fixture
async def producer() -> AsyncIterator[RabbitMQProducer]:
    async with RabbitMQProducer(RABBITMQ_URL) as producer:
        yield producer


async def ours(data: dict[str, Any]) -> dict[str, Any]:
    return {"by": "1.0", "n": data["n"]}


async def test_our_class_takes_the_arguments_of_the_old_one(
    old: OldService, producer: RabbitMQProducer, queue: str
) -> None:
    consumer = RabbitMQConsumer(RABBITMQ_URL, queue, f"{queue}_dlq", 3, declare=False)
    consumer.set_message_handler(ours)
    await old.consume(queue)
    await old("stop_consuming")

    await consumer.start_consuming()
    try:
        assert (await producer.send_message(queue, {"n": 1}))["data"] == {"by": "1.0", "n": 1}
    finally:
        await consumer.close()


async def test_no_reply_in_time_was_none_and_is_an_error(
    old: OldService, producer: RabbitMQProducer, queue: str
) -> None:
    on_channel(lambda channel: channel.queue_declare(queue, durable=True))

    assert await old("send", queue=queue, data={}, timeout=0.3) is None
    with pytest.raises(ReplyTimeout):
        await producer.send_message(queue, {}, timeout=0.3)


async def test_a_missing_queue_was_a_silent_loss_and_is_an_error(
    old: OldService, producer: RabbitMQProducer
) -> None:
    gone = unique("gone")

    assert await old("send_fire_and_forget", queue=gone, data={})
    assert await old("send", queue=gone, data={}, wait_for_response=False)
    with pytest.raises(PublishUnroutable, match=gone):
        await producer.send_fire_and_forget(gone, {})
    with pytest.raises(PublishUnroutable, match=gone):
        await producer.send_message(gone, {})


async def test_an_event_that_nobody_is_bound_for_was_dropped_and_is_an_error_unless_not_mandatory(
    old: OldService, producer: RabbitMQProducer
) -> None:
    exchange = unique("events")
    try:
        assert await old("publish_to_exchange", exchange=exchange, routing_key="order.created", data={})
        with pytest.raises(PublishUnroutable, match=exchange):
            await producer.publish_to_exchange(exchange, "order.created", {})
        assert await producer.publish_to_exchange(exchange, "order.created", {}, mandatory=False)
    finally:
        on_channel(lambda channel: channel.exchange_delete(exchange))


async def test_nan_was_sent_and_is_refused_by_our_producer_and_dead_lettered_by_our_consumer(
    old: OldService, app: RabbitMQ, queue: str
) -> None:
    app.handler(queue)(ours)
    await app.start_consuming()

    reply = await old("send", queue=queue, data={"n": float("nan")})

    assert (reply["success"], reply["error_code"]) == (False, "invalid_json")
    assert take_letter(f"{queue}_dlq").body == b'{"n": NaN}'
    with pytest.raises(EncodeError, match="NaN"):
        await app.producer.send_message(queue, {"n": float("nan")})


async def test_importing_set_the_logging_up_and_does_not_any_more(old: OldService) -> None:
    program = "import logging, autosell_rmq; print(len(logging.getLogger().handlers))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()

    assert await old("root_handlers") == 1
    assert printed.split() == [b"0"]


async def test_each_version_knows_only_the_duplicates_of_what_it_handled_itself(
    old: OldService, app: RabbitMQ, producer: RabbitMQProducer, queue: str
) -> None:
    await old.consume(queue)
    by_old = await producer.send_message(queue, {"n": 1}, correlation_id="c-1")
    await old("stop_consuming")
    app.handler(queue, declare=False)(ours)
    await app.start_consuming()

    by_ours = await producer.send_message(queue, {"n": 1}, correlation_id="c-1")

    assert (by_old["data"]["by"], by_ours["data"]["by"]) == ("0.1.4", "1.0")


async def test_without_a_handler_the_old_one_left_messages_raw_and_ours_says_why(
    old: OldService, producer: RabbitMQProducer, queue: str
) -> None:
    consumer = RabbitMQConsumer(RABBITMQ_URL, queue, f"{queue}_dlq", declare=False)
    await old.consume(queue)
    await old("stop_consuming")
    await old("consume_without_handler", queue=queue, dlq=f"{queue}_dlq")
    assert not (await producer.send_message(queue, {"n": 1}))["success"]
    await eventually(lambda: depth(f"{queue}_dlq") == 1)
    await old("stop_consuming")
    assert take(f"{queue}_dlq")[1] == b'{"n":1}'

    async with consumer:
        await consumer.start_consuming()
        assert (await producer.send_message(queue, {"n": 2}))["error_code"] == "no_handler"
    assert take_letter(f"{queue}_dlq").reason == "Обработчик сообщений не установлен"


async def test_a_function_that_is_not_async_failed_and_is_a_handler_now(
    app: RabbitMQ, producer: RabbitMQProducer, queue: str
) -> None:
    def handler(data: dict[str, Any]) -> dict[str, Any]:
        return {"n": data["n"]}

    app.handler(queue)(handler)
    await app.start_consuming()

    assert (await producer.send_message(queue, {"n": 1}))["data"] == {"n": 1}


async def test_data_that_is_no_json_was_a_type_error_and_is_a_value_error_of_ours(
    old: OldService, producer: RabbitMQProducer, queue: str
) -> None:
    with pytest.raises(OldError, match="TypeError"):
        await old("send_unserialisable", queue=queue)
    with pytest.raises(EncodeError) as refused:
        await producer.send_fire_and_forget(queue, {"a": object()})
    assert isinstance(refused.value, ValueError)


async def test_a_closed_producer_says_so(queue: str) -> None:
    producer = RabbitMQProducer(RABBITMQ_URL)
    await producer.connect()
    await producer.close()

    with pytest.raises(ClosedError, match="closed"):
        await producer.send_fire_and_forget(queue, {})


async def test_the_exchange_type_may_still_be_the_client_librarys(producer: RabbitMQProducer) -> None:
    exchange = unique("events")
    kind: Any = aio_pika.ExchangeType.FANOUT
    try:
        assert await producer.publish_to_exchange(exchange, "", {}, kind, mandatory=False)
        assert await producer.publish_to_exchange(exchange, "", {}, "fanout", mandatory=False)
    finally:
        on_channel(lambda channel: channel.exchange_delete(exchange))


def test_what_was_inside_the_old_classes_is_gone_but_the_settings() -> None:
    consumer, producer = RabbitMQConsumer("amqp://guest:guest@localhost/"), RabbitMQProducer()

    for name in ("connection", "channel", "queue", "dlq", "idempotency_manager", "message_handler"):
        assert not hasattr(consumer, name)
    for name in ("connection", "channel", "response_queue", "responses"):
        assert not hasattr(producer, name)
    assert not hasattr(importlib.import_module("autosell_rmq.consumer"), "IdempotencyManager")
    assert (consumer.queue_name, consumer.dlq_name, consumer.max_retries) == ("main_queue", "dlq_queue", 3)
    assert consumer.connection_url == "amqp://guest:***@localhost:5672"


async def test_the_loggers_are_still_below_one_name(
    app: RabbitMQ, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app.handler(queue)(ours)
    await app.start_consuming()
    await app.producer.send_message(queue, {"n": 1})

    names = {record.name for record in caplog.records if record.name.startswith("autosell_rmq")}
    assert {name.split(".")[1] for name in names} >= {"consumer", "producer"}
