"""Debian's amqp-tools talk to it, both ways: bodies without a single property, from a shell."""

import asyncio
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import quote

import pika  # type: ignore[import-untyped]
import pytest

from autosell_rmq import Binding, Message, RabbitMQ, RabbitMQProducer
from autosell_rmq.config import BrokerURL
from tests.support import services
from tests.support.names import unique
from tests.support.services import RABBITMQ_URL
from tests.support.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq]


def on_channel[T](use: Callable[[Any], T]) -> T:
    connection = pika.BlockingConnection(pika.URLParameters(RABBITMQ_URL))
    try:
        return use(connection.channel())
    finally:
        connection.close()


def delete(*queues: str) -> None:
    on_channel(lambda channel: [channel.queue_delete(queue) for queue in queues])


@pytest.fixture
def queue() -> Iterator[str]:
    """A name; the queue and its DLQ are deleted at the end."""
    services.require("rabbitmq")
    name = unique("tools")
    yield name
    delete(name, f"{name}_dlq")


@pytest.fixture
async def app(queue: str) -> AsyncIterator[RabbitMQ]:
    """Our consumer: doubles the quantity."""
    rmq = RabbitMQ(RABBITMQ_URL)

    @rmq.handler(queue, max_retries=0)
    async def double(order: dict[str, Any]) -> dict[str, Any]:
        return {"quantity": order["quantity"] * 2, "city": order.get("city")}

    async with rmq:
        await rmq.start_consuming()
        yield rmq


def amqp(program: str, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run a program of amqp-tools; what it printed."""
    path = shutil.which(program)
    if path is None:
        missing = f"{program} is not installed: python scripts/services.py amqp-tools"
        if os.environ.get("AUTOSELL_RMQ_REQUIRE_SERVICES") == "1":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    url = BrokerURL.parse(RABBITMQ_URL)
    address = f"{url.scheme}://{quote(url.user)}:{quote(url.password)}@{url.host}:{url.port}"
    command = [path, f"--url={address}/{quote(url.vhost, safe='')}", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


async def run(program: str, *arguments: str, stdin: bytes = b"") -> bytes:
    return await asyncio.to_thread(amqp, program, *arguments, stdin=stdin)


async def until_got(queue: str) -> bytes:
    """The next message of a queue, by amqp-get."""
    got: list[bytes] = []

    async def try_it() -> bool:
        if on_channel(lambda channel: channel.queue_declare(queue, passive=True).method.message_count) == 0:
            return False
        got.append(await run("amqp-get", "-q", queue))
        return True

    await eventually(try_it)
    return got[0]


async def test_amqp_publish_needs_no_properties_to_be_handled(app: RabbitMQ, queue: str) -> None:
    for n in (1, 2):
        await run("amqp-publish", "-r", queue, "-b", json.dumps({"quantity": n}))

    await eventually(lambda: app.statistics.handled == 2)
    assert (app.statistics.without_id, app.statistics.replies) == (2, 0)


async def test_amqp_publish_names_a_reply_queue_and_amqp_get_reads_the_reply(
    app: RabbitMQ, queue: str
) -> None:
    other = unique("replies")
    await run("amqp-declare-queue", "-q", other)
    try:
        await run("amqp-publish", "-r", queue, "-t", other, "-b", '{"quantity": 3, "city": "Ақтау"}')
        reply = json.loads(await until_got(other))
    finally:
        delete(other)

    assert reply == {"success": True, "data": {"quantity": 6, "city": "Ақтау"}, "correlation_id": None}


@pytest.mark.parametrize("body", [b"not json", b"\xff\xfe\x00", b""], ids=["text", "bytes", "empty"])
async def test_what_is_no_json_of_amqp_publish_lies_in_the_dlq_for_amqp_get(
    app: RabbitMQ, queue: str, body: bytes
) -> None:
    await run("amqp-publish", "-r", queue, stdin=body)

    letter = json.loads(await until_got(f"{queue}_dlq"))

    assert letter["reason_code"] == "invalid_json"
    assert letter["reason"].startswith("Ошибка парсинга JSON: ")
    assert (letter["original_queue"], letter["correlation_id"]) == (queue, None)
    assert app.statistics.handled == 0


async def test_amqp_publish_reaches_a_queue_that_is_bound_to_an_exchange(queue: str) -> None:
    exchange = unique("events")
    got: list[Message] = []
    rmq = RabbitMQ(RABBITMQ_URL)

    @rmq.handler(queue, bind=Binding(exchange, "order.*"))
    async def on_event(event: dict[str, Any], message: Message) -> None:
        got.append(message)

    try:
        async with rmq:
            await rmq.start_consuming()
            await run("amqp-publish", "-e", exchange, "-r", "order.created", "-H", "tenant: kz", "-b", "{}")
            await eventually(lambda: len(got) == 1)
    finally:
        on_channel(lambda channel: channel.exchange_delete(exchange))

    assert (got[0].exchange, got[0].routing_key) == (exchange, "order.created")
    assert got[0].headers["tenant"] == "kz"


async def test_our_producer_is_read_by_amqp_get_and_amqp_consume(queue: str) -> None:
    await run("amqp-declare-queue", "-d", "-q", queue)
    sent = [{"text": "Привет, мир!"}, {"n": 2}, {"n": 3}]

    async with RabbitMQProducer(RABBITMQ_URL) as producer:
        for data in sent:
            await producer.send_fire_and_forget(queue, data)
        first = await run("amqp-get", "-q", queue)
        others = await run("amqp-consume", "-q", queue, "-c", "2", "awk", "1")

    assert json.loads(first) == sent[0]
    assert [json.loads(line) for line in others.splitlines()] == sent[1:]


async def test_our_consumer_takes_queues_that_amqp_declare_queue_has_made(queue: str) -> None:
    """Classic, durable, without arguments: as they stand, or as what they are."""
    for name in (queue, f"{queue}_dlq"):
        await run("amqp-declare-queue", "-d", "-q", name)
    got: list[object] = []
    rmq = RabbitMQ(RABBITMQ_URL)

    @rmq.handler(queue, declare=False)
    async def take(payload: object) -> object:
        got.append(payload)
        return payload

    async with rmq:
        await rmq.start_consuming()
        await run("amqp-publish", "-r", queue, "-b", "[1]")
        await run("amqp-publish", "-r", queue, "-b", "[")
        letter = json.loads(await until_got(f"{queue}_dlq"))
        reply = await rmq.producer.send_message(queue, [2], correlation_id=uuid.uuid4().hex)

    assert letter["original_body"] == "["
    assert (got, reply["data"]) == ([[1], [2]], [2])
