"""Publishing: the outcome is what it says, and what arrives is what was sent."""

import asyncio
import datetime as dt
from contextlib import suppress
from dataclasses import fields, replace
from decimal import Decimal

import pytest

from autosell_rmq.broker import Broker
from autosell_rmq.exceptions import (
    BrokerUnavailable,
    ClosedError,
    EncodeError,
    PublishNacked,
    PublishUnknown,
    PublishUnroutable,
)
from autosell_rmq.message import Message, Properties, Publication
from tests.support.broker_labs import BrokerLab
from tests.support.inbox import Inbox
from tests.support.names import unique
from tests.support.publications import send, send_bodies, to
from tests.support.waiting import eventually

# Every property has a value here, and one that a sloppy copy would spoil.
EVERYTHING = Properties(
    content_type="application/json",
    content_encoding="utf-8",
    headers={
        "text": "Заказ № 1",
        "имя": "x",
        "bytes": b"\x00\xff\xfe",
        "empty": "",
        "none": None,
        "true": True,
        "zero": 0,
        "negative": -5,
        "big": 2**62,
        "float": 1.5,
        "decimal": Decimal("1.25"),
        "when": dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC),
        "list": [1, "два", [b"three", None], {"four": [5]}],
        "table": {"a": {"b": {"c": [True, 1.5, "d"]}}},
    },
    persistent=False,
    priority=7,
    correlation_id="ид-42",
    reply_to="replies",
    expiration=3600.5,
    message_id="m-1",
    timestamp=dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
    type="order.created",
    user_id="guest",
    app_id="shop",
)


def own(message: Message) -> Properties:
    """What the sender wrote, without what the broker added."""
    headers = {name: value for name, value in message.headers.items() if name != "x-delivery-count"}
    return replace(message.properties, headers=headers)


async def test_a_confirmed_message_is_stored(lab: BrokerLab, broker: Broker, queue: str) -> None:
    await send_bodies(broker, queue, [b"1", b"2"])

    await broker.close()

    other = await lab.open()
    inbox = await Inbox.of(other, queue)
    assert [delivery.message.body for delivery in await inbox.take(2)] == [b"1", b"2"]


async def test_a_mandatory_message_without_a_queue_is_unroutable(broker: Broker) -> None:
    nowhere = unique("nowhere")

    with pytest.raises(PublishUnroutable, match=nowhere):
        await send(broker, to(nowhere))


async def test_one_that_is_not_mandatory_is_dropped(broker: Broker) -> None:
    await send(broker, to(unique("nowhere"), mandatory=False))


@pytest.mark.parametrize("mandatory", [True, False])
async def test_a_missing_exchange_is_an_error_anyway(broker: Broker, queue: str, mandatory: bool) -> None:
    exchange = unique("missing")

    with pytest.raises(PublishUnroutable, match=f"no exchange '{exchange}'"):
        await send(broker, Publication(body=b"", exchange=exchange, routing_key="k", mandatory=mandatory))
    await send(broker, to(queue))


async def test_an_exchange_without_a_matching_binding_is_unroutable(lab: BrokerLab, broker: Broker) -> None:
    exchange = await lab.exchange(broker, "topic")

    with pytest.raises(PublishUnroutable):
        await send(broker, Publication(body=b"", exchange=exchange, routing_key="k"))


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_a_full_queue_refuses(lab: BrokerLab, broker: Broker, queue_type: str) -> None:
    queue = await lab.queue(
        broker, {"x-queue-type": queue_type, "x-max-length": 2, "x-overflow": "reject-publish"}
    )

    with pytest.raises(PublishNacked):
        await send(broker, *[to(queue)] * 100)

    # A quorum queue takes a few more than its limit before it refuses.
    assert 2 <= await lab.depth(queue) < 100


async def test_a_refusal_does_not_spoil_the_next_publish(lab: BrokerLab, broker: Broker, queue: str) -> None:
    full = await lab.queue(broker, {"x-max-length": 0, "x-overflow": "reject-publish"})

    with pytest.raises(PublishNacked):
        await send(broker, to(full))
    await send(broker, to(queue))


async def test_five_hundred_at_once_are_all_confirmed(lab: BrokerLab, broker: Broker, queue: str) -> None:
    bodies = [b"%d" % number for number in range(500)]

    await asyncio.gather(*(send(broker, to(queue, body)) for body in bodies))

    inbox = await Inbox.of(broker, queue, prefetch=500)
    received = [delivery.message.body for delivery in await inbox.take(500)]
    assert sorted(received) == sorted(bodies)


async def test_two_publishes_with_one_message_id_each_get_their_own_outcome(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    same = Properties(message_id="the-same")

    lost, stored = await asyncio.gather(
        send(broker, to(unique("nowhere"), properties=same)),
        send(broker, to(queue, properties=same)),
        return_exceptions=True,
    )

    assert isinstance(lost, PublishUnroutable)
    assert stored is None
    assert await lab.depth(queue) == 1


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024], ids=["empty", "byte", "MiB"])
async def test_bodies_are_kept_byte_for_byte(lab: BrokerLab, broker: Broker, queue: str, size: int) -> None:
    body = bytes(number % 256 for number in range(256)) * (size // 256) + b"\xff" * (size % 256)

    await send(broker, to(queue, body))

    inbox = await Inbox.of(broker, queue)
    assert (await inbox.next()).message.body == body


async def test_every_property_is_kept(lab: BrokerLab, broker: Broker, queue: str) -> None:
    assert all(getattr(EVERYTHING, f.name) != getattr(Properties(), f.name) for f in fields(Properties))

    await send(broker, to(queue, properties=EVERYTHING))

    inbox = await Inbox.of(broker, queue)
    message = (await inbox.next()).message
    properties = own(message)
    assert properties == EVERYTHING
    assert {name: type(value) for name, value in properties.headers.items()} == {
        name: type(value) for name, value in EVERYTHING.headers.items()
    }
    assert (message.queue, message.exchange, message.routing_key) == (queue, "", queue)


async def test_no_property_is_made_up(lab: BrokerLab, broker: Broker, queue: str) -> None:
    # aiormq, like our producer, stamps a message_id where there is none.
    little = Properties(message_id="m-1")

    await send(broker, to(queue, properties=little))

    inbox = await Inbox.of(broker, queue)
    assert own((await inbox.next()).message) == little


async def test_times_are_kept_as_far_as_amqp_can(lab: BrokerLab, broker: Broker, queue: str) -> None:
    zone = dt.timezone(dt.timedelta(hours=3))
    moment = dt.datetime(2024, 1, 2, 3, 4, 5, 678_900, tzinfo=zone)

    await send(
        broker,
        to(queue, properties=Properties(timestamp=moment, expiration=600.0004, headers={"when": moment})),
    )

    inbox = await Inbox.of(broker, queue)
    properties = (await inbox.next()).message.properties
    assert properties.timestamp == properties.headers["when"] == moment.replace(microsecond=0)
    assert properties.expiration == 600.0


async def test_the_message_is_the_one_at_the_time_of_the_publish(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    headers: dict[str, object] = {"list": [1]}
    await send(broker, to(queue, properties=Properties(headers=headers)))
    headers["list"] = "changed"

    inbox = await Inbox.of(broker, queue)
    assert (await inbox.next()).message.headers["list"] == [1]


@pytest.mark.parametrize(
    "properties",
    [
        Properties(headers={"x": object()}),
        Properties(headers={"x": [{"y": {1, 2}}]}),
        Properties(headers={"x": 2**64}),
        Properties(headers={"x": "\ud800"}),
        Properties(correlation_id="\ud800"),
        Properties(correlation_id="ы" * 128),
        Properties(priority=256),
        Properties(priority=-1),
    ],
    ids=["object", "set", "2**64", "surrogate", "id-surrogate", "id-long", "256", "-1"],
)
async def test_what_amqp_cannot_carry_is_refused_before_it_is_sent(
    lab: BrokerLab, broker: Broker, queue: str, properties: Properties
) -> None:
    with pytest.raises(EncodeError):
        await send(broker, to(queue, properties=properties))

    await send(broker, to(queue, b"after"))
    assert await lab.depth(queue) == 1


async def test_a_routing_key_that_amqp_cannot_carry_is_refused(broker: Broker, queue: str) -> None:
    with pytest.raises(EncodeError):
        await send(broker, to("k" * 256))
    await send(broker, to(queue))


async def test_a_closed_broker_publishes_nothing(broker: Broker, queue: str) -> None:
    await broker.close()

    with pytest.raises(ClosedError):
        await send(broker, to(queue))


async def test_a_broker_can_be_opened_and_closed_again_and_again(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    await broker.open()
    await broker.close()
    await broker.close()

    await broker.open()
    await send(broker, to(queue))

    assert await lab.depth(queue) == 1


async def test_publishing_goes_on_after_the_connection_was_cut(lab: BrokerLab, queue: str) -> None:
    broker, cut = await lab.open_cuttable()
    await send(broker, to(queue))

    cut()

    # Whoever publishes at that very moment learns that it failed, and tries again.
    async def goes_out() -> bool:
        with suppress(BrokerUnavailable, PublishUnknown):
            await send(broker, to(queue))
            return True
        return False

    await eventually(goes_out)
    assert await lab.depth(queue) >= 2
