"""A prepared send: checked and encoded when it is made, one message however often it is sent."""

import asyncio
import datetime as dt
import json
from collections.abc import Iterator

import pytest

from autosell_rmq import (
    BrokerUnavailable,
    ConfigError,
    EncodeError,
    MessageTooLarge,
    PreparedSend,
    RabbitMQProducer,
    SyncRabbitMQProducer,
)
from autosell_rmq.testing import MemoryServer, memory_server
from autosell_rmq.topology import Exchange, Queue, QueueBinding, Topology


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    with memory_server() as server:
        server.declare(
            Topology(
                exchanges=(Exchange(name="events", type="topic"),),
                queues=(Queue(name="orders"), Queue(name="billing")),
                bindings=(QueueBinding(queue="billing", exchange="events", routing_key="order.*"),),
            )
        )
        yield server


async def test_a_message_is_sent_as_it_was_when_it_was_prepared(server: MemoryServer) -> None:
    data = {"n": 1}
    send = PreparedSend.to_queue("orders", data, correlation_id="flow", headers={"tenant": "x"}, priority=3)
    data["n"] = 2

    async with RabbitMQProducer(server.url) as producer:
        await send.send(producer)
        await send.send(producer)

    first, second = server.queue("orders").messages
    assert first.body == second.body == b'{"n":1}'
    assert first.message_id == second.message_id == send.message_id
    assert first.correlation_id == second.correlation_id == "flow"
    assert (first.headers["tenant"], first.properties.priority) == ("x", 3)


@pytest.mark.parametrize(
    "send",
    [
        PreparedSend.to_queue("orders", 1, outage_timeout=60),
        PreparedSend.to_exchange("events", "order.created", 1, outage_timeout=60),
    ],
    ids=["message", "event"],
)
async def test_who_sends_it_may_have_less_patience(server: MemoryServer, send: PreparedSend) -> None:
    async with RabbitMQProducer(server.url) as producer:
        server.stop()
        async with asyncio.timeout(5):
            with pytest.raises(BrokerUnavailable):
                await send.send(producer, outage_timeout=0)


def test_a_blocking_producer_sends_it_too(server: MemoryServer) -> None:
    with SyncRabbitMQProducer(server.url) as producer:
        PreparedSend.to_queue("orders", 1).send_sync(producer)
        PreparedSend.to_exchange("events", "order.created", 2, message_id="m-1").send_sync(producer)

    assert [message.body for message in server.queue("orders").messages] == [b"1"]
    [event] = server.queue("billing").messages
    assert (event.body, event.message_id, event.exchange) == (b"2", "m-1", "events")


async def test_an_event_that_nobody_needs_may_go(server: MemoryServer) -> None:
    send = PreparedSend.to_exchange("events", "nobody", 1, mandatory=False)

    async with RabbitMQProducer(server.url) as producer:
        await send.send(producer)


def test_a_delay_counts_from_the_preparation() -> None:
    before = dt.datetime.now(dt.UTC)
    send = PreparedSend.to_queue("orders", 1, delay=60)
    after = dt.datetime.now(dt.UTC)

    assert "delay" not in send.options
    deliver_at = send.options.get("deliver_at")
    assert deliver_at is not None
    assert before <= deliver_at - dt.timedelta(seconds=60) <= after
    assert send.routing_key == "orders"
    assert send.exchange == ""


async def test_a_delay_that_is_over_by_then_is_none(server: MemoryServer) -> None:
    send = PreparedSend.to_queue("orders", 1, deliver_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))

    async with RabbitMQProducer(server.url) as producer:
        await send.send(producer)

    assert server.queue("orders").depth == 1


async def test_the_bytes_are_those_of_a_plain_send(server: MemoryServer) -> None:
    data = {"nul": "a\0b", "huge": 10**30, "float": 1e16, "text": "NaN", "when": dt.date(2026, 1, 1)}

    async with RabbitMQProducer(server.url) as producer:
        await producer.send_fire_and_forget("orders", data)
        await PreparedSend.to_queue("orders", data).send(producer)

    plain, prepared = server.queue("orders").messages
    assert plain.body == prepared.body
    assert json.loads(plain.body)["huge"] == 10**30


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"headers": {"x-autosell-due": 1}}, ConfigError, "reserved"),
        ({"delay": 1, "deliver_at": dt.datetime.now(dt.UTC)}, ConfigError, "twice"),
        ({"ttl": -1}, ConfigError, "ttl"),
        ({"correlation_id": "x" * 256}, EncodeError, "correlation_id is 256 bytes"),
        ({"message_id": "\ud800"}, EncodeError, "message_id"),
        ({"limit": 3}, MessageTooLarge, "max_body_bytes"),
    ],
)
def test_what_is_wrong_is_told_at_once(
    options: dict[str, object], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        PreparedSend.to_queue("orders", "text", **options)  # type: ignore[arg-type]


def test_an_event_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="exchange_type"):
        PreparedSend.to_exchange("events", "key", 1, "nonsense")
    with pytest.raises(EncodeError, match="routing_key is 256 bytes"):
        PreparedSend.to_exchange("events", "x" * 256, 1)
    with pytest.raises(ConfigError, match="delay"):
        PreparedSend.to_exchange("events", "key", 1, delay=1)
    with pytest.raises(EncodeError):
        PreparedSend.to_exchange("events", "key", object())


def test_a_body_is_not_shown() -> None:
    assert "secret" not in repr(PreparedSend.to_queue("orders", "secret"))
