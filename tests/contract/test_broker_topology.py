"""Queues, exchanges and bindings; what happens to messages that expire, overflow or fail too often."""

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from autosell_rmq.broker import Broker
from autosell_rmq.config import HOME
from autosell_rmq.exceptions import QueueNotFound, TopologyMismatch
from autosell_rmq.message import NO_HEADERS, Headers, Message, Properties, Publication
from autosell_rmq.topology import Exchange, Queue, QueueBinding, Topology, delay_hop, delay_name, way_home
from tests.support.broker_labs import BrokerLab
from tests.support.inbox import Inbox
from tests.support.names import unique
from tests.support.publications import send, send_bodies, to


async def bind(
    broker: Broker, queue: str, exchange: str, routing_key: str = "", arguments: Headers = NO_HEADERS
) -> None:
    binding = QueueBinding(queue=queue, exchange=exchange, routing_key=routing_key, arguments=arguments)
    await broker.declare(Topology(bindings=(binding,)))


async def publish(broker: Broker, exchange: str, key: str = "", headers: Headers = NO_HEADERS) -> None:
    """Its body says what it was."""
    await send(
        broker,
        Publication(
            body=(key or str(dict(headers))).encode(),
            exchange=exchange,
            routing_key=key,
            properties=Properties(headers=headers),
            mandatory=False,
        ),
    )


async def arrivals(lab: BrokerLab, broker: Broker, queue: str) -> list[str]:
    """The bodies in the queue."""
    await send(broker, to(queue, b"end"))
    inbox = await Inbox.of(broker, queue, prefetch=100)
    found: list[str] = []
    while (body := (await inbox.next()).message.body) != b"end":
        found.append(body.decode())
    return found


# --- declaring ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"x-queue-type": "quorum", "x-delivery-limit": 3, "x-dead-letter-exchange": ""},
        {"x-queue-type": "classic", "x-message-ttl": 60_000, "x-single-active-consumer": True},
    ],
    ids=["none", "quorum", "classic"],
)
async def test_declaring_again_changes_nothing(
    lab: BrokerLab, broker: Broker, arguments: dict[str, object]
) -> None:
    queue = await lab.queue(broker, arguments)
    await send(broker, to(queue))

    await broker.declare(Topology(queues=(Queue(name=queue, arguments=arguments),)))

    assert await lab.depth(queue) == 1


async def test_no_arguments_are_those_of_a_classic_queue(lab: BrokerLab, broker: Broker) -> None:
    queue = await lab.queue(broker)

    await broker.declare(Topology(queues=(Queue(name=queue, arguments={"x-queue-type": "classic"}),)))


@pytest.mark.parametrize(
    ("current", "received", "said"),
    [
        (
            {"x-queue-type": "quorum"},
            {},
            "'x-queue-type' for queue '{}' in vhost '{}': received none"
            " but current is the value 'quorum' of type 'longstr'",
        ),
        (
            {"x-message-ttl": 1000},
            {"x-message-ttl": 100_000},
            "'x-message-ttl' for queue '{}' in vhost '{}': received '100000' but current is '1000'",
        ),
        (
            {},
            {"x-message-ttl": 1000},
            "'x-message-ttl' for queue '{}' in vhost '{}': received the value '1000' of type 'short'"
            " but current is none",
        ),
        (
            {"x-single-active-consumer": True},
            {},
            "'x-single-active-consumer' for queue '{}' in vhost '{}': received none"
            " but current is the value 'true' of type 'bool'",
        ),
        (
            {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "a"},
            {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "b"},
            "'x-dead-letter-routing-key' for queue '{}' in vhost '{}': received 'b' but current is 'a'",
        ),
    ],
    ids=["type", "ttl", "new", "flag", "key"],
)
async def test_other_arguments_are_a_mismatch_that_names_them(
    lab: BrokerLab, broker: Broker, current: Headers, received: Headers, said: str
) -> None:
    queue = await lab.queue(broker, current)

    with pytest.raises(TopologyMismatch) as caught:
        await broker.declare(Topology(queues=(Queue(name=queue, arguments=received),)))

    assert f"inequivalent arg {said.format(queue, broker.vhost)}" in str(caught.value)
    await send(broker, to(queue))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"x-message-ttl": -1}, "invalid arg 'x-message-ttl' for queue '{}' in vhost '{}'"),
        ({"x-message-ttl": "soon"}, "invalid arg 'x-message-ttl' for queue '{}' in vhost '{}'"),
        ({"x-overflow": "burst"}, "invalid arg 'x-overflow' for queue '{}' in vhost '{}'"),
        ({"x-queue-type": "heap"}, "invalid arg 'x-queue-type' for queue '{}' in vhost '{}'"),
        ({"x-dead-letter-routing-key": "a"}, "routing_key_but_no_dlx_defined"),
    ],
    ids=["negative", "text", "overflow", "type", "key"],
)
async def test_arguments_that_no_queue_can_have_are_refused(
    broker: Broker, arguments: Headers, said: str
) -> None:
    queue = unique("refused")

    with pytest.raises(TopologyMismatch) as caught:
        await broker.declare(Topology(queues=(Queue(name=queue, arguments=arguments),)))

    assert said.format(queue, broker.vhost) in str(caught.value)


async def test_an_exchange_of_another_type_is_a_mismatch(lab: BrokerLab, broker: Broker) -> None:
    exchange = await lab.exchange(broker, "topic")

    with pytest.raises(TopologyMismatch, match="received 'fanout' but current is 'topic'"):
        await broker.declare(Topology(exchanges=(Exchange(name=exchange, type="fanout"),)))


async def test_a_passive_queue_is_taken_as_it_stands(lab: BrokerLab, broker: Broker) -> None:
    queue = await lab.queue(broker, {"x-message-ttl": 60_000})

    await broker.declare(Topology(queues=(Queue(name=queue, passive=True),)))


async def test_a_passive_queue_has_to_be_there(broker: Broker) -> None:
    missing = unique("missing")

    with pytest.raises(QueueNotFound, match=f"no queue '{missing}'"):
        await broker.declare(Topology(queues=(Queue(name=missing, passive=True),)))


async def test_a_binding_needs_both_ends(lab: BrokerLab, broker: Broker, queue: str) -> None:
    exchange = await lab.exchange(broker, "topic")

    with pytest.raises(QueueNotFound, match="no exchange"):
        await bind(broker, queue, unique("missing"))
    with pytest.raises(QueueNotFound, match="no queue"):
        await bind(broker, unique("missing"), exchange)


# --- routing -----------------------------------------------------------------------------------------

KEYS = ["", "a", "a.b", "a.b.c", "b.a", "a.", "a..c", "x.y.b", "café.é"]


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("#", KEYS),
        ("a", ["a"]),
        ("a.*", ["a.b", "a."]),
        ("a.#", ["a", "a.b", "a.b.c", "a.", "a..c"]),
        ("#.b", ["a.b", "x.y.b"]),
        ("*.b.#", ["a.b", "a.b.c"]),
        ("a.*.c", ["a.b.c", "a..c"]),
        ("a.#.#.c", ["a.b.c", "a..c"]),
        ("*", ["a"]),
        ("", [""]),
        ("café.*", ["café.é"]),
    ],
)
async def test_topic_patterns(
    lab: BrokerLab, broker: Broker, queue: str, pattern: str, taken: list[str]
) -> None:
    exchange = await lab.exchange(broker, "topic")
    await bind(broker, queue, exchange, pattern)

    for key in KEYS:
        await publish(broker, exchange, key)

    assert await arrivals(lab, broker, queue) == [key or "{}" for key in taken]


async def test_two_matching_bindings_are_one_copy(lab: BrokerLab, broker: Broker, queue: str) -> None:
    exchange = await lab.exchange(broker, "topic")
    await bind(broker, queue, exchange, "a.*")
    await bind(broker, queue, exchange, "*.b")
    await bind(broker, queue, exchange, "*.b")

    await publish(broker, exchange, "a.b")

    assert await arrivals(lab, broker, queue) == ["a.b"]


async def test_a_direct_exchange_takes_the_key_literally(lab: BrokerLab, broker: Broker, queue: str) -> None:
    exchange = await lab.exchange(broker, "direct")
    await bind(broker, queue, exchange, "a.*")

    for key in ("a.b", "a.*", "a"):
        await publish(broker, exchange, key)

    assert await arrivals(lab, broker, queue) == ["a.*"]


async def test_a_fanout_exchange_copies_to_every_queue(lab: BrokerLab, broker: Broker, queue: str) -> None:
    other = await lab.queue(broker)
    exchange = await lab.exchange(broker, "fanout")
    await bind(broker, queue, exchange)
    await bind(broker, other, exchange, "ignored")

    await publish(broker, exchange, "key")

    assert await arrivals(lab, broker, queue) == await arrivals(lab, broker, other) == ["key"]


HEADERS: list[dict[str, object]] = [
    {},
    {"a": 1},
    {"a": 2},
    {"a": "1"},
    {"b": "x"},
    {"a": 1, "b": "x", "c": 3},
    {"x-a": 1},
]


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        ({"x-match": "all", "a": 1, "b": "x"}, [{"a": 1, "b": "x", "c": 3}]),
        ({"x-match": "any", "a": 1, "b": "x"}, [{"a": 1}, {"b": "x"}, {"a": 1, "b": "x", "c": 3}]),
        ({"a": 1}, [{"a": 1}, {"a": 1, "b": "x", "c": 3}]),
        ({"a": None}, [{"a": 1}, {"a": 2}, {"a": "1"}, {"a": 1, "b": "x", "c": 3}]),
        ({}, HEADERS),
        ({"x-match": "any"}, []),
        ({"x-match": "all", "x-a": 1}, HEADERS),
        ({"x-match": "all-with-x", "x-a": 1}, [{"x-a": 1}]),
        ({"x-match": "any-with-x", "x-a": 1, "b": "x"}, [{"b": "x"}, {"a": 1, "b": "x", "c": 3}, {"x-a": 1}]),
    ],
    ids=["all", "any", "default", "exists", "none", "any-of-none", "x-ignored", "all-with-x", "any-with-x"],
)
async def test_a_headers_exchange_compares_headers(
    lab: BrokerLab, broker: Broker, queue: str, arguments: Headers, taken: list[dict[str, object]]
) -> None:
    exchange = await lab.exchange(broker, "headers")
    await bind(broker, queue, exchange, arguments=arguments)

    for headers in HEADERS:
        await publish(broker, exchange, headers=headers)

    assert await arrivals(lab, broker, queue) == [str(headers) for headers in taken]


# --- dead letters ------------------------------------------------------------------------------------


def to_dlq(dlq: str, queue_type: str, **arguments: object) -> dict[str, object]:
    """Arguments of a queue whose dead letters go to `dlq`."""
    return {
        "x-queue-type": queue_type,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dlq,
    } | {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}


def deaths(message: Message) -> list[dict[str, Any]]:
    """What the broker wrote of the message's deaths, the last one first."""
    found = message.headers["x-death"]
    assert isinstance(found, list)
    return found


TYPES = pytest.mark.parametrize("queue_type", ["quorum", "classic"])


@TYPES
async def test_an_expired_message_is_a_dead_letter(lab: BrokerLab, broker: Broker, queue_type: str) -> None:
    dlq = await lab.queue(broker)
    queue = await lab.queue(broker, to_dlq(dlq, queue_type))
    inbox = await Inbox.of(broker, dlq)
    started = broker.now()

    await send(broker, to(queue, b"late", Properties(expiration=0.2, headers={"mine": 1}, message_id="m")))
    await lab.pass_time(0.2)

    message = (await inbox.next()).message
    assert (message.body, message.message_id) == (b"late", "m")
    assert (message.exchange, message.routing_key) == ("", dlq)
    assert not message.redelivered
    assert message.properties.expiration is None
    headers = dict(message.headers)
    [death] = deaths(message)
    del headers["x-death"]
    when = death.pop("time")
    assert isinstance(when, dt.datetime)
    assert abs(when.timestamp() - started) < 60
    assert death == {
        "count": 1,
        "reason": "expired",
        "queue": queue,
        "exchange": "",
        "routing-keys": [queue],
        "original-expiration": "200",
    }
    assert {name: value for name, value in headers.items() if not name.startswith("x-last-death")} == {
        "mine": 1,
        "x-first-death-reason": "expired",
        "x-first-death-queue": queue,
        "x-first-death-exchange": "",
    }


@TYPES
async def test_a_dead_letter_that_dies_again_is_counted(
    lab: BrokerLab, broker: Broker, queue_type: str
) -> None:
    dlq = await lab.queue(broker)
    queue = await lab.queue(broker, to_dlq(dlq, queue_type, message_ttl=50))
    inbox = await Inbox.of(broker, dlq)

    await send(broker, to(queue))
    await lab.pass_time(0.05)
    first = (await inbox.next()).message
    await send(broker, to(queue, properties=replace(first.properties, headers=first.headers)))
    await lab.pass_time(0.05)

    [death] = deaths((await inbox.next()).message)
    assert (death["count"], death["queue"], death["reason"]) == (2, queue, "expired")


@TYPES
async def test_expiry_looks_at_the_head_only(lab: BrokerLab, broker: Broker, queue_type: str) -> None:
    dlq = await lab.queue(broker)
    queue = await lab.queue(broker, to_dlq(dlq, queue_type))
    inbox = await Inbox.of(broker, dlq)

    await send(broker, to(queue, b"slow", Properties(expiration=0.5)))
    await send(broker, to(queue, b"fast", Properties(expiration=0.01)))
    await lab.pass_time(0.5)

    assert [(await inbox.next()).message.body for _ in range(2)] == [b"slow", b"fast"]


@TYPES
async def test_what_drops_out_at_the_head_is_a_dead_letter(
    lab: BrokerLab, broker: Broker, queue_type: str
) -> None:
    dlq = await lab.queue(broker)
    queue = await lab.queue(broker, to_dlq(dlq, queue_type, max_length=2))
    inbox = await Inbox.of(broker, dlq)

    await send_bodies(broker, queue, [b"1", b"2", b"3"])

    message = (await inbox.next()).message
    assert message.body == b"1"
    assert message.headers["x-first-death-reason"] == "maxlen"
    assert await lab.depth(queue) == 2


async def test_a_message_that_failed_too_often_is_a_dead_letter(lab: BrokerLab, broker: Broker) -> None:
    dlq = await lab.queue(broker)
    queue = await lab.queue(broker, to_dlq(dlq, "quorum", delivery_limit=2))
    inbox, dead = await Inbox.of(broker, queue), await Inbox.of(broker, dlq)
    await send(broker, to(queue))

    for delivery_count in (None, 1, 2):
        delivery = await inbox.next()
        assert delivery.message.delivery_count == delivery_count
        await delivery.fail()

    message = (await dead.next()).message
    assert message.headers["x-first-death-reason"] == "delivery_limit"
    assert not message.redelivered
    assert inbox.deliveries.empty()


async def test_the_delay_line_brings_a_message_home(lab: BrokerLab, broker: Broker) -> None:
    home = await lab.queue(broker, {"x-queue-type": "quorum"})
    await broker.declare(delay_hop(1) + way_home(home))
    inbox = await Inbox.of(broker, home)
    started = broker.now()

    await send(
        broker,
        Publication(
            body=b"later", exchange=delay_name(1), routing_key=home, properties=Properties(message_id="m")
        ),
    )
    await lab.pass_time(1)

    message = (await inbox.next()).message
    assert broker.now() - started >= 0.99
    assert (message.body, message.message_id) == (b"later", "m")
    assert (message.queue, message.exchange, message.routing_key) == (home, HOME, home)


async def test_the_delay_line_keeps_the_order(lab: BrokerLab, broker: Broker) -> None:
    home = await lab.queue(broker, {"x-queue-type": "quorum"})
    await broker.declare(delay_hop(1) + way_home(home))
    sent = [b"%d" % number for number in range(20)]

    await send(broker, *(Publication(body=body, exchange=delay_name(1), routing_key=home) for body in sent))
    await lab.pass_time(1)

    inbox = await Inbox.of(broker, home, prefetch=20)
    assert [delivery.message.body for delivery in await inbox.take(20)] == sent
