"""What a message may cost, above the seam and in it, in instructions: a regression shows on any machine.

When a limit fails, look for
a task, a copy, an await or a log line that every message pays now. When you made something cheaper, lower it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import pydantic
import pytest
from aiormq.abc import AbstractChannel

from autosell_rmq import HandlerKwargs, RabbitMQ, RabbitMQProducer
from autosell_rmq.broker import Delivery
from autosell_rmq.brokers.rabbitmq.confirms import ConfirmChannel
from autosell_rmq.brokers.rabbitmq.consuming import RabbitSubscription
from autosell_rmq.brokers.rabbitmq.frames import Outgoing
from autosell_rmq.message import NO_HEADERS, Message, Properties, Publication
from tests.support.framed import Channel, delivery
from tests.support.instant_broker import InstantBroker
from tests.support.instructions import counting, each

BODY = b'{"user_id": 123, "text": "hello", "items": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}'


class Order(pydantic.BaseModel):
    user_id: int
    text: str
    items: list[int]


async def untyped(data: dict[str, object]) -> dict[str, bool]:
    return {"ok": True}


async def typed(order: Order) -> None: ...


def one_that_suspends() -> Callable[[dict[str, object]], Awaitable[None]]:
    async def handle(data: dict[str, object]) -> None:
        await asyncio.sleep(0)

    return handle


@pytest.fixture(autouse=True)
def usual_logging() -> Iterator[None]:
    """As Python starts: informational records are off, and must then cost next to nothing."""
    logger = logging.getLogger("autosell_rmq")
    before = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(before)


def consuming(
    handler: Callable[..., object], *, reply_to: str | None = None, **options: object
) -> Callable[[int], None]:
    def work(n: int) -> None:
        async def run() -> None:
            broker = InstantBroker()
            rmq = RabbitMQ(broker=broker)
            given: HandlerKwargs = {"prefetch": 1000, **options}  # type: ignore[typeddict-item]
            rmq.handler("orders", **given)(handler)
            messages = [
                Message(
                    queue="orders",
                    body=BODY,
                    properties=Properties(correlation_id=f"{i}", message_id=f"{i}", reply_to=reply_to),
                )
                for i in range(n)
            ]
            async with rmq:
                await rmq.start_consuming()
                await broker.deliver(messages)
            assert broker.published == (n if reply_to else 0)

        asyncio.run(run())

    return work


def sending(call: Callable[[RabbitMQProducer], Awaitable[object]]) -> Callable[[int], None]:
    def work(n: int) -> None:
        async def run() -> None:
            async with RabbitMQProducer(broker=InstantBroker()) as producer:
                for _ in range(n):
                    await call(producer)

        asyncio.run(run())

    return work


DELIVERIES = [delivery(tag, BODY, channel=Channel.number) for tag in range(1, 200)]


def delivering(n: int) -> None:
    """From the socket to the handler's door, and the ack back to the socket."""

    async def run() -> None:
        channel = Channel()
        subscription = RabbitSubscription(cast("AbstractChannel", channel), "orders", lambda _: None)
        deliveries: list[Delivery] = []
        await subscription.start(deliveries.append, 1000, NO_HEADERS, 1.0)
        channel.frames.data_received(b"".join(DELIVERIES[:n]))
        for each_of_them in deliveries:
            await each_of_them.ack()
        channel.frames.writer.flush()
        assert len(deliveries) == n

    asyncio.run(run())


def publishing(n: int) -> None:
    """From the seam to the socket, and the confirm back."""

    async def run() -> None:
        channel = Channel()
        confirms = ConfirmChannel(cast("AbstractChannel", channel))
        publication = Publication(
            body=BODY,
            routing_key="orders",
            properties=Properties(content_type="application/json", correlation_id="1" * 32),
        )
        sends = [confirms.publish(publication, Outgoing(publication), 1e12).__await__() for _ in range(n)]
        for send in sends:
            next(send)
        channel.confirm(n, multiple=True)
        for send in sends:
            with pytest.raises(StopIteration):
                next(send)

    asyncio.run(run())


DATA = {"user_id": 123, "text": "hello", "items": [1, 2, 3]}

CASES = [
    pytest.param(consuming(untyped, idempotency_key=None), 1_130, id="consume, no idempotency"),
    pytest.param(consuming(untyped), 1_460, id="consume"),
    pytest.param(consuming(one_that_suspends()), 1_790, id="consume, a handler that suspends"),
    pytest.param(consuming(typed), 1_460, id="consume, typed"),
    pytest.param(consuming(untyped, reply_to="answers"), 1_790, id="consume and reply"),
    pytest.param(sending(lambda p: p.send_fire_and_forget("orders", DATA)), 400, id="send"),
    pytest.param(sending(lambda p: p.publish_to_exchange("events", "a.b", DATA)), 510, id="publish"),
    pytest.param(sending(lambda p: p.send_message("orders", DATA)), 1_600, id="request"),
    pytest.param(delivering, 710, id="delivery and ack, at the seam"),
    pytest.param(publishing, 870, id="publish, at the seam"),
]


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="counts the instructions of Python 3.13")
@pytest.mark.parametrize(("work", "most"), CASES)
def test_a_message_costs_no_more_instructions_than(work: Callable[[int], None], most: int) -> None:
    assert each(work) <= most


def test_the_count_sees_one_more_task_per_message() -> None:
    async def with_a_task(data: dict[str, object]) -> dict[str, bool]:
        return await asyncio.create_task(untyped(data))

    assert each(consuming(with_a_task)) > each(consuming(untyped)) + 20


def test_instructions_are_counted() -> None:
    with counting() as nothing:
        pass
    with counting() as something:
        sum(i for i in range(100))

    assert something.executed - nothing.executed > 300
