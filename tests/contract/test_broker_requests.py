"""Requests: replies find the one who asked, and do no harm where nobody asks any more."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from autosell_rmq.broker import Broker
from autosell_rmq.exceptions import BrokerError, BrokerUnavailable, PublishError, PublishUnroutable
from autosell_rmq.message import DIRECT_REPLY_TO, Message, Properties, Publication
from tests.support.broker_labs import BrokerLab
from tests.support.inbox import Inbox
from tests.support.names import unique
from tests.support.publications import send, to
from tests.support.waiting import PATIENCE, eventually


def reply_to(request: Message, body: bytes) -> Publication:
    """As our consumer replies: direct reply-to must not be mandatory."""
    assert request.reply_to is not None
    properties = Properties(correlation_id=request.correlation_id, message_id=unique("reply"))
    return to(request.reply_to, body, properties, mandatory=False)


async def test_a_reply_reaches_the_one_who_asked(lab: BrokerLab, broker: Broker, queue: str) -> None:
    replies: asyncio.Queue[Message] = asyncio.Queue()
    requester = await broker.open_requester(replies.put_nowait, on_lost=lambda _: None)
    service = await lab.open()
    inbox = await Inbox.of(service, queue)

    await requester.publish(to(queue, b"?", Properties(correlation_id="c-1")), timeout=PATIENCE)
    request = (await inbox.next()).message
    await send(service, reply_to(request, b"!"))

    async with asyncio.timeout(PATIENCE):
        reply = await replies.get()
    assert request.reply_to is not None
    assert request.reply_to.startswith(f"{DIRECT_REPLY_TO}.")
    assert (reply.body, reply.correlation_id) == (b"!", "c-1")
    assert (reply.queue, reply.exchange, reply.routing_key) == (DIRECT_REPLY_TO, "", request.reply_to)


async def test_many_requests_are_in_flight_at_once(lab: BrokerLab, broker: Broker, queue: str) -> None:
    replies: list[Message] = []
    requester = await broker.open_requester(replies.append, on_lost=lambda _: None)
    service = await lab.open()
    inbox = await Inbox.of(service, queue, prefetch=100)

    await asyncio.gather(
        *(
            requester.publish(to(queue, b"%d" % n, Properties(correlation_id=str(n))), timeout=PATIENCE)
            for n in range(100)
        )
    )
    requests = [delivery.message for delivery in await inbox.take(100)]
    await asyncio.gather(*(send(service, reply_to(request, request.body)) for request in requests[::-1]))

    await eventually(lambda: len(replies) == 100)
    assert {reply.correlation_id: reply.body for reply in replies} == {str(n): b"%d" % n for n in range(100)}


async def test_two_who_ask_get_their_own_replies(lab: BrokerLab, broker: Broker, queue: str) -> None:
    replies: dict[str, list[bytes]] = {"a": [], "b": []}
    inbox = await Inbox.of(broker, queue)
    for name in replies:
        requester = await broker.open_requester(
            lambda reply, name=name: replies[name].append(reply.body),  # type: ignore[misc]
            on_lost=lambda _: None,
        )
        await requester.publish(to(queue, name.encode()), timeout=PATIENCE)

    for delivery in await inbox.take(2):
        await send(broker, reply_to(delivery.message, delivery.message.body))

    await eventually(lambda: replies == {"a": [b"a"], "b": [b"b"]})


async def test_a_request_to_no_queue_is_unroutable_and_the_address_lives_on(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    replies: list[bytes] = []
    requester = await broker.open_requester(lambda reply: replies.append(reply.body), on_lost=lambda _: None)
    inbox = await Inbox.of(broker, queue)

    with pytest.raises(PublishUnroutable):
        await requester.publish(to(unique("nowhere")), timeout=PATIENCE)
    await requester.publish(to(queue), timeout=PATIENCE)
    await send(broker, reply_to((await inbox.next()).message, b"!"))

    await eventually(lambda: replies == [b"!"])


async def test_a_reply_to_somebody_who_is_gone_is_harmless(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    replies: list[Message] = []
    client = await lab.open()
    requester = await client.open_requester(replies.append, on_lost=lambda _: None)
    inbox = await Inbox.of(broker, queue)
    await requester.publish(to(queue), timeout=PATIENCE)
    request = (await inbox.next()).message

    await requester.close()
    await client.close()

    await send(broker, reply_to(request, b"!"), reply_to(request, b"again"), to(queue, b"next"))
    assert (await inbox.next()).message.body == b"next"
    assert not replies


async def test_an_address_that_never_was_is_harmless(broker: Broker, queue: str) -> None:
    request = Message(queue=queue, body=b"", properties=Properties(reply_to=f"{DIRECT_REPLY_TO}.nobody"))

    with suppress(PublishError):  # RabbitMQ may refuse an address that it never wrote
        await send(broker, reply_to(request, b"!"))
    await send(broker, to(queue))


async def test_a_requester_closes_quietly(broker: Broker, queue: str) -> None:
    lost: list[BrokerError] = []
    requester = await broker.open_requester(lambda _: None, on_lost=lost.append)

    await requester.close()
    await requester.close()

    with pytest.raises(BrokerUnavailable):
        await requester.publish(to(queue), timeout=PATIENCE)
    await broker.close()
    assert not lost


async def test_a_cut_connection_ends_the_requester(lab: BrokerLab, queue: str) -> None:
    broker, cut = await lab.open_cuttable()
    lost: list[BrokerError] = []
    requester = await broker.open_requester(lambda _: None, on_lost=lost.append)

    cut()

    await eventually(lambda: bool(lost))
    assert isinstance(lost[0], BrokerUnavailable)
    with pytest.raises(BrokerUnavailable):
        await requester.publish(to(queue), timeout=PATIENCE)
    another = await broker.open_requester(lambda _: None, on_lost=lost.append)
    await another.publish(to(queue), timeout=PATIENCE)
    assert len(lost) == 1


async def test_the_address_in_the_properties_is_replaced(lab: BrokerLab, broker: Broker, queue: str) -> None:
    requester = await broker.open_requester(lambda _: None, on_lost=lambda _: None)
    inbox = await Inbox.of(broker, queue)
    properties = Properties(reply_to="elsewhere", correlation_id="c")

    await requester.publish(to(queue, properties=properties), timeout=PATIENCE)

    message = (await inbox.next()).message
    assert message.reply_to is not None
    assert message.reply_to.startswith(DIRECT_REPLY_TO)
    assert replace(message.properties, headers={}, reply_to="elsewhere", message_id=None) == properties
