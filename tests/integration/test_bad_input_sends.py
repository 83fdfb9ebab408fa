"""Wrong arguments of a send: refused before anything is sent, in one line that names the argument."""

import datetime as dt
from typing import Any

import pytest

from autosell_rmq import ConfigError, RabbitMQ, RabbitMQProducer
from autosell_rmq.testing import memory_server


async def handler(payload: object) -> None: ...


NAIVE = dt.datetime(2030, 1, 1)  # noqa: DTZ001 - the mistake that the test is about


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"timeout": 0}, "timeout=0"),
        ({"queue_name": ""}, "queue_name=''"),
        ({"delay": -1}, "delay=-1"),
        ({"delay": 2**32}, "delay=4294967296"),
        ({"deliver_at": NAIVE}, "expected an aware datetime"),
        ({"deliver_at": "tomorrow"}, "deliver_at='tomorrow'"),
        ({"delay": 1, "deliver_at": dt.datetime.now(dt.UTC)}, "the same thing twice"),
        ({"deadline": NAIVE}, "deadline="),
        ({"ttl": 0}, "ttl=0"),
        ({"ttl": "5"}, "ttl='5'"),
        ({"headers": {"x-autosell-attempt": 1}}, "'x-autosell-attempt' is reserved"),
        ({"headers": {"x-retry-count": 1}}, "'x-retry-count' is reserved"),
    ],
    ids=str,
)
async def test_a_wrong_argument_of_a_send_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], said: str
) -> None:
    with memory_server() as server:
        async with RabbitMQ(server.url) as app:
            app.handler("orders")(handler)
            await app.start_consuming()
            with pytest.raises(ConfigError) as refused:
                await app.producer.send_message(**{"queue_name": "orders", "message_data": {}} | arguments)

        assert said in str(refused.value)
        assert app.statistics.handled == 0


async def test_an_event_cannot_be_delayed_nor_its_exchange_be_of_no_type() -> None:
    with memory_server() as server:
        async with RabbitMQProducer(server.url) as producer:
            with pytest.raises(ConfigError, match="an event goes to its exchange at once"):
                await producer.publish_to_exchange("events", "order.created", {}, delay=1)
            with pytest.raises(ConfigError, match="it belongs to the delay line"):
                await producer.publish_to_exchange("autosell.home", "orders", {})
            with pytest.raises(ConfigError, match="exchange_type='x'"):
                await producer.publish_to_exchange("events", "order.created", {}, "x")


async def test_an_app_without_a_handler_does_not_start() -> None:
    with memory_server() as server:
        async with RabbitMQ(server.url) as app:
            with pytest.raises(ConfigError, match="nothing to consume"):
                await app.start_consuming()
