"""A foreign client talks to it, both ways: pika, as it stands in pika's own tutorials."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pika  # type: ignore[import-untyped]
import pytest

from autosell_rmq import DecodeError, Message, RabbitMQ, RabbitMQProducer, ReplyTimeout
from tests.support import services
from tests.support.names import unique
from tests.support.services import RABBITMQ_URL
from tests.support.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq]

type Answer = Callable[[bytes, Any], bytes | None]


@contextmanager
def pika_channel() -> Generator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(RABBITMQ_URL))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


@pytest.fixture
def queue() -> Iterator[str]:
    """A name; the queue and its DLQ are deleted at the end."""
    services.require("rabbitmq")
    name = unique("interop")
    yield name
    with pika_channel() as channel:
        for each in (name, f"{name}_dlq"):
            channel.queue_delete(each)


@pytest.fixture
async def app(queue: str) -> AsyncIterator[RabbitMQ]:
    """Our consumer: doubles the quantity, fails without one."""
    rmq = RabbitMQ(RABBITMQ_URL)

    @rmq.handler(queue, max_retries=0)
    async def double(order: dict[str, Any], message: Message) -> dict[str, Any]:
        return {"quantity": order["quantity"] * 2, "city": order.get("city")}

    async with rmq:
        await rmq.start_consuming()
        yield rmq


# --- pika asks -------------------------------------------------------------------------------------


def ask_by_pika(
    queue: str, bodies: list[bytes], *, reply_to: str | None = None
) -> dict[str, tuple[Any, Any]]:
    """As pika's own RPC tutorial does it; all requests first, then the replies, by correlation id."""
    replies: dict[str, tuple[Any, Any]] = {}

    def on_reply(channel: object, method: object, properties: Any, body: bytes) -> None:  # noqa: ANN401
        replies[properties.correlation_id] = (properties, json.loads(body))

    with pika_channel() as channel:
        address = reply_to or channel.queue_declare("", exclusive=True).method.queue
        channel.basic_consume(address, on_reply, auto_ack=True)
        for number, body in enumerate(bodies):
            properties = pika.BasicProperties(reply_to=address, correlation_id=f"{queue}-{number}")
            channel.basic_publish("", queue, body, properties)
        while len(replies) < len(bodies):
            before = len(replies)
            channel.connection.process_data_events(time_limit=PATIENCE)
            if len(replies) == before:
                pytest.fail(f"{before} of {len(bodies)} replies after {PATIENCE} s")
    return replies


@pytest.mark.parametrize("reply_to", [None, "amq.rabbitmq.reply-to"], ids=["named", "direct"])
async def test_pika_asks_and_gets_its_replies(app: RabbitMQ, queue: str, reply_to: str | None) -> None:
    bodies = [json.dumps({"quantity": n, "city": "Алматы"}).encode() for n in range(20)]

    replies = await asyncio.to_thread(ask_by_pika, queue, bodies, reply_to=reply_to)

    for number in range(20):
        cid = f"{queue}-{number}"
        properties, reply = replies[cid]
        assert reply == {
            "success": True,
            "data": {"quantity": 2 * number, "city": "Алматы"},
            "correlation_id": cid,
        }
        assert (properties.correlation_id, properties.content_type) == (cid, "application/json")
    await eventually(lambda: app.statistics.replies == 20)  # the last confirm comes after the last reply


@pytest.mark.parametrize("reply_to", [None, "amq.rabbitmq.reply-to"], ids=["named", "direct"])
async def test_pika_gets_an_error_reply(app: RabbitMQ, queue: str, reply_to: str | None) -> None:
    replies = await asyncio.to_thread(ask_by_pika, queue, [b"{}", b"not json"], reply_to=reply_to)

    assert replies[f"{queue}-0"][1] == {
        "success": False,
        "data": None,
        "error": "KeyError: 'quantity'",
        "error_code": "unhandled_exception",
        "correlation_id": f"{queue}-0",
    }
    assert replies[f"{queue}-1"][1]["error_code"] == "invalid_json"


async def test_pika_asks_twice_and_gets_the_same_bytes(app: RabbitMQ, queue: str) -> None:
    body = [b'{"quantity": 1}']

    first = await asyncio.to_thread(ask_by_pika, queue, body)
    second = await asyncio.to_thread(ask_by_pika, queue, body)

    assert first[f"{queue}-0"][1] == second[f"{queue}-0"][1]
    assert (app.statistics.handled, app.statistics.duplicates) == (1, 1)


# --- pika answers ----------------------------------------------------------------------------------


@contextmanager
def pika_server(queue: str, answer: Answer) -> Generator[list[Any]]:
    """An RPC server in a thread; yields the properties of the requests it has seen."""
    seen: list[Any] = []
    ready, stop = threading.Event(), threading.Event()

    def on_request(channel: Any, method: Any, properties: Any, body: bytes) -> None:  # noqa: ANN401
        seen.append(properties)
        reply = answer(body, properties)
        if reply is not None:
            about = pika.BasicProperties(correlation_id=properties.correlation_id)
            channel.basic_publish("", properties.reply_to, reply, about)
        channel.basic_ack(method.delivery_tag)

    def serve() -> None:
        with pika_channel() as channel:
            channel.queue_declare(queue, durable=True)
            channel.basic_qos(prefetch_count=5)
            channel.basic_consume(queue, on_request)
            ready.set()
            while not stop.is_set():
                channel.connection.process_data_events(time_limit=0.05)

    thread = threading.Thread(target=serve, name="pika-server")
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield seen
    finally:
        stop.set()
        thread.join(PATIENCE)


async def test_pika_answers_our_producer(queue: str) -> None:
    """Whatever JSON object it answers is returned; no field of ours is needed in it."""

    def answer(body: bytes, properties: object) -> bytes:
        return json.dumps({"echo": json.loads(body)}).encode()

    with pika_server(queue, answer) as seen:
        async with RabbitMQProducer(RABBITMQ_URL) as producer:
            replies = await asyncio.gather(*(producer.send_message(queue, {"n": n}) for n in range(20)))

    assert replies == [{"echo": {"n": n}} for n in range(20)]
    assert {properties.content_type for properties in seen} == {"application/json"}
    assert {properties.delivery_mode for properties in seen} == {2}
    assert len({properties.correlation_id for properties in seen}) == 20
    assert len({properties.message_id for properties in seen}) == 20


async def test_an_answer_of_pika_that_is_no_json_object_is_an_error_of_its_own(queue: str) -> None:
    with pika_server(queue, lambda body, properties: body):
        async with RabbitMQProducer(RABBITMQ_URL) as producer:
            for body in ("text", [1], 5, None):
                with pytest.raises(DecodeError, match="a reply is a JSON object"):
                    await producer.send_message(queue, body)


async def test_a_pika_server_that_does_not_answer_is_a_timeout(queue: str) -> None:
    with pika_server(queue, lambda body, properties: None) as seen:
        async with RabbitMQProducer(RABBITMQ_URL) as producer:
            with pytest.raises(ReplyTimeout, match=queue):
                await producer.send_message(queue, {}, timeout=0.3)

            await eventually(lambda: len(seen) == 1)
            assert producer.requests_in_flight == 0


async def test_a_late_answer_of_pika_is_counted_and_dropped(queue: str) -> None:
    go_on = threading.Event()

    def answer(body: bytes, properties: object) -> bytes:
        go_on.wait(PATIENCE)
        return body

    with pika_server(queue, answer):
        async with RabbitMQProducer(RABBITMQ_URL) as producer:
            with pytest.raises(ReplyTimeout):
                await producer.send_message(queue, {"n": 1}, timeout=0.2)
            go_on.set()

            assert await producer.send_message(queue, {"n": 2}) == {"n": 2}
            assert producer.late_replies == 1
