"""Publishing over a channel whose answers a test decides: what each ends as, who waits for whom."""

import asyncio
import gc
from typing import cast
from weakref import ref

import pytest
from aiormq import exceptions as amqp
from aiormq.abc import AbstractChannel
from pamqp.commands import Channel as ChannelMethods

from autosell_rmq.brokers.rabbitmq import errors
from autosell_rmq.brokers.rabbitmq.broker import RabbitBroker
from autosell_rmq.brokers.rabbitmq.confirms import ConfirmChannel
from autosell_rmq.brokers.rabbitmq.frames import Outgoing
from autosell_rmq.brokers.rabbitmq.publishing import Publisher
from autosell_rmq.brokers.rabbitmq.requesting import RabbitRequester
from autosell_rmq.config import Settings
from autosell_rmq.exceptions import (
    BrokerError,
    BrokerUnavailable,
    EncodeError,
    PublishNacked,
    PublishUnknown,
    PublishUnroutable,
)
from autosell_rmq.message import Properties, Publication
from tests.support.framed import Channel, Connection, open_frames
from tests.support.waiting import PATIENCE, eventually

SOON = 0.01  # seconds


def message(message_id: str | None = None, **where: str) -> Publication:
    where = where or {"routing_key": "queue"}
    return Publication(body=b"1", properties=Properties(message_id=message_id), **where)  # type: ignore[arg-type]


async def open_at_once(_: float) -> None:
    return None


@pytest.fixture
async def channel() -> Channel:
    return Channel()


def publisher_on(*channels: Channel) -> Publisher:
    left = list(channels)

    async def open_channel(_: float) -> AbstractChannel:
        return cast("AbstractChannel", left.pop(0))

    return Publisher(open_channel, open_at_once)


class Sending:
    """A publish in a task of its own, sent when this is made."""

    @classmethod
    async def of(cls, publisher: Publisher, channel: Channel, publication: Publication) -> asyncio.Task[None]:
        sent = channel.published
        task = asyncio.create_task(publisher.publish(publication, timeout=PATIENCE))
        await channel.until_published(sent + 1)
        return task


async def given_up(publisher: Publisher, channel: Channel, message_id: str) -> None:
    publishing = await Sending.of(publisher, channel, message(message_id))
    publishing.cancel()
    await asyncio.wait([publishing])
    assert publishing.cancelled()


async def test_each_ends_as_the_broker_says(channel: Channel) -> None:
    publisher = publisher_on(channel)
    ids = ["stored", "refused", "nowhere", "unanswered"]
    tasks = [await Sending.of(publisher, channel, message(each)) for each in ids]

    channel.give_back("nowhere")
    channel.confirm(3)
    channel.refuse(2)
    channel.confirm(1)
    await asyncio.wait(tasks[:3])

    assert tasks[0].exception() is None
    assert isinstance(tasks[1].exception(), PublishNacked)
    assert isinstance(tasks[2].exception(), PublishUnroutable)
    assert not tasks[3].done()
    channel.confirm(4)
    await tasks[3]


@pytest.mark.parametrize("refused", [False, True])
async def test_one_answer_may_be_for_several(channel: Channel, refused: bool) -> None:
    publisher = publisher_on(channel)
    tasks = [await Sending.of(publisher, channel, message()) for _ in range(4)]
    channel.confirm(2)

    (channel.refuse if refused else channel.confirm)(3, multiple=True)
    await asyncio.wait(tasks[:3])

    assert tasks[1].exception() is None
    assert [isinstance(tasks[each].exception(), PublishNacked) for each in (0, 2)] == [refused] * 2
    assert not tasks[3].done()
    channel.confirm(4)
    await tasks[3]


async def test_an_answer_to_nobody_is_nobody_s(channel: Channel) -> None:
    publisher = publisher_on(channel)
    publishing = await Sending.of(publisher, channel, message())
    channel.confirm(7)
    channel.give_back("of somebody")
    assert not publishing.done()
    channel.confirm(1)
    channel.confirm(1)
    await publishing


async def test_what_is_sent_in_one_turn_is_one_write(channel: Channel) -> None:
    publisher = publisher_on(channel)
    await given_up(publisher, channel, "first")  # it opens the channel
    before = len(channel.wire.writes)
    tasks = [asyncio.create_task(publisher.publish(message(), timeout=PATIENCE)) for _ in range(20)]
    await channel.until_published(21)
    assert len(channel.wire.writes) == before + 1
    channel.confirm(21, multiple=True)
    await asyncio.gather(*tasks)


async def test_who_gives_up_costs_the_others_nothing(channel: Channel) -> None:
    publisher = publisher_on(channel)
    await given_up(publisher, channel, "a")
    publishing = await Sending.of(publisher, channel, message("b"))
    channel.confirm(2)
    await publishing
    assert channel.closes == 0


async def test_the_same_id_waits_for_the_one_that_was_given_up(channel: Channel) -> None:
    """A return that is still to come for the first would be taken for the second's."""
    publisher = publisher_on(channel)
    await given_up(publisher, channel, "a")
    second = asyncio.create_task(publisher.publish(message("a"), timeout=PATIENCE))
    for _ in range(5):
        await asyncio.sleep(0)
    assert channel.published == 1

    channel.give_back("a")
    channel.confirm(1)
    await channel.until_published(2)
    channel.confirm(2)
    await second


async def test_the_same_id_waits_no_longer_than_it_may(channel: Channel) -> None:
    publisher = publisher_on(channel)
    first = await Sending.of(publisher, channel, message("a"))
    with pytest.raises(BrokerUnavailable, match="'a' is not confirmed yet"):
        await publisher.publish(message("a"), timeout=SOON)
    channel.confirm(1)
    await first


async def test_a_confirm_that_does_not_come_is_an_unknown_outcome(channel: Channel) -> None:
    other = Channel()
    publisher = publisher_on(channel, other)
    patient = await Sending.of(publisher, channel, message("patient"))
    with pytest.raises(PublishUnknown):
        await publisher.publish(message("a"), timeout=SOON)
    assert channel.closes == 0  # the patient one still waits on it

    later = await Sending.of(publisher, other, message("a"))
    other.confirm(1)
    channel.confirm(1)
    await asyncio.gather(patient, later)
    await eventually(lambda: channel.closes == 1)
    assert other.closes == 0


async def test_the_shorter_deadline_counts_whichever_was_first(channel: Channel) -> None:
    publisher = publisher_on(channel)
    patient = await Sending.of(publisher, channel, message())
    for _ in range(2):
        with pytest.raises(PublishUnknown):
            await publisher_on(channel).publish(message(), timeout=SOON)
    assert not patient.done()
    patient.cancel()


async def test_nobody_waits_for_the_close_of_a_spent_channel(channel: Channel) -> None:
    publisher = publisher_on(channel)
    async with asyncio.timeout(errors.GOODBYE / 2):
        with pytest.raises(PublishUnknown):
            await publisher.publish(message("a"), timeout=SOON)
    await eventually(lambda: channel.closes == 1)


async def test_refusals_in_a_row_spend_an_old_channel(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosell_rmq.brokers.rabbitmq.confirms._OLD", 0.0)
    publisher = publisher_on(channel)
    for number, refused in enumerate((True, True, False, True, True, True), start=1):
        assert channel.closes == 0
        publishing = await Sending.of(publisher, channel, message())
        (channel.refuse if refused else channel.confirm)(number)
        await asyncio.wait([publishing])
    await eventually(lambda: channel.closes == 1)


async def test_a_young_channel_may_refuse(channel: Channel) -> None:
    publisher = publisher_on(channel)
    for number in range(1, 5):
        publishing = await Sending.of(publisher, channel, message())
        channel.refuse(number)
        await asyncio.wait([publishing])
    assert channel.closes == 0


async def test_a_full_buffer_and_an_alarm_hold_messages_back(channel: Channel) -> None:
    publisher = publisher_on(channel)
    await given_up(publisher, channel, "first")
    writer = channel.frames.writer

    for hold, release in (
        (channel.frames.pause_writing, channel.frames.resume_writing),
        (lambda: writer.block("low on memory"), lambda: writer.block(None)),
    ):
        before = channel.published
        hold()
        with pytest.raises(BrokerUnavailable, match="ready"):
            await publisher.publish(message(), timeout=SOON)
        waiting = asyncio.create_task(publisher.publish(message(), timeout=PATIENCE))
        for _ in range(5):
            await asyncio.sleep(0)
        assert channel.published == before
        release()
        await channel.until_published(before + 1)
        waiting.cancel()


async def test_nothing_is_written_on_a_channel_that_is_being_closed(channel: Channel) -> None:
    """It would cost the connection."""
    other = Channel()
    publisher = publisher_on(channel, other)
    first = await Sending.of(publisher, channel, message())
    channel.hear(ChannelMethods.Close(404, "NOT_FOUND", 60, 40))
    second = await Sending.of(publisher, other, message())
    assert channel.published == 1
    other.confirm(1)
    await second

    channel.closing.set_exception(amqp.ChannelPreconditionFailed("PRECONDITION_FAILED - unknown"))
    await asyncio.wait([first])
    assert isinstance(first.exception(), PublishNacked)


async def test_a_close_that_one_of_many_has_caused_is_unknown_to_all(channel: Channel) -> None:
    publisher = publisher_on(channel)
    tasks = [await Sending.of(publisher, channel, message()) for _ in range(2)]
    channel.closing.set_exception(amqp.ChannelPreconditionFailed("PRECONDITION_FAILED - unknown"))
    await asyncio.wait(tasks)
    assert [type(task.exception()) for task in tasks] == [PublishUnknown] * 2


async def test_a_missing_exchange_is_told_to_who_named_it(channel: Channel) -> None:
    publisher = publisher_on(channel)
    named, other = [
        await Sending.of(publisher, channel, message(exchange=exchange, routing_key="k"))
        for exchange in ("missing", "there")
    ]
    channel.closing.set_exception(
        amqp.ChannelNotFoundEntity("NOT_FOUND - no exchange 'missing' in vhost '/'")
    )
    await asyncio.wait([named, other])
    assert isinstance(named.exception(), PublishUnroutable)
    assert isinstance(other.exception(), PublishUnknown)


async def test_what_cannot_be_encoded_is_not_counted(channel: Channel) -> None:
    """RabbitMQ counts what it gets: one too many here, and each confirm would be taken for another's."""
    publisher = publisher_on(channel)
    await given_up(publisher, channel, "first")
    with pytest.raises(TypeError):
        await publisher.publish(
            Publication(body="text", routing_key="queue"),  # type: ignore[arg-type]
            timeout=PATIENCE,
        )
    refused = await Sending.of(publisher, channel, message())
    channel.refuse(2)
    await asyncio.wait([refused])
    assert isinstance(refused.exception(), PublishNacked)


async def test_headers_that_the_broker_s_frames_do_not_hold_are_refused(channel: Channel) -> None:
    publisher = publisher_on(channel)
    await given_up(publisher, channel, "first")
    channel.frames.frame_max = 4096
    large = Publication(body=b"1", routing_key="q", properties=Properties(headers={"x": "y" * 4096}))
    with pytest.raises(EncodeError, match="frames of 4096"):
        await publisher.publish(large, timeout=PATIENCE)
    assert channel.published == 1


async def test_a_close_that_takes_long_is_not_cut_off(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client library would send a second one, and lose the connection by it."""
    monkeypatch.setattr(errors, "GOODBYE", SOON)
    await errors.channel_closed(cast("AbstractChannel", channel))
    assert (channel.closes, channel.cut_off) == (1, False)
    channel.may_close.set()
    await eventually(lambda: channel.closed)
    assert not channel.cut_off


async def test_a_close_without_an_answer_ends_what_is_in_flight(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "GOODBYE", SOON)
    confirms = ConfirmChannel(cast("AbstractChannel", channel))
    publication = message()
    forever = asyncio.get_running_loop().time() + 1000
    publishing = asyncio.create_task(confirms.publish(publication, Outgoing(publication), forever))
    await channel.until_published(1)
    await confirms.close()
    await confirms.close()
    await asyncio.wait([publishing])
    assert isinstance(publishing.exception(), PublishUnknown)
    assert channel.closes == 1


async def test_a_spent_channel_that_nobody_waits_on_is_closed_when_it_is_replaced(channel: Channel) -> None:
    other = Channel()
    publisher = publisher_on(channel, other)
    publishing = asyncio.create_task(publisher.publish(message(), timeout=20 * SOON))
    await channel.until_published(1)
    publishing.cancel()
    await asyncio.wait([publishing])
    assert publishing.cancelled()
    await eventually(lambda: vars(publisher)["_current"].spent)  # its confirm is overdue
    later = await Sending.of(publisher, other, message())
    await eventually(lambda: channel.closes == 1)
    other.confirm(1)
    await later


async def test_who_waits_for_the_buffer_of_a_channel_that_is_spent_gets_another(channel: Channel) -> None:
    other = Channel()
    publisher = publisher_on(channel, other)
    publishing = asyncio.create_task(publisher.publish(message(), timeout=20 * SOON))
    await channel.until_published(1)
    channel.frames.pause_writing()
    waiting = asyncio.create_task(publisher.publish(message(), timeout=PATIENCE))
    await asyncio.sleep(0)
    assert not publishing.done()
    await asyncio.wait([publishing])
    channel.frames.resume_writing()
    await other.until_published(1)
    other.confirm(1)
    await waiting


async def test_a_connection_is_forgotten_whatever_its_reader_keeps() -> None:
    connection = Connection()
    protocol = open_frames(connection)
    error = ConnectionResetError()
    error.add_note("")
    error.__context__ = KeyError(connection)  # as the stack of the client library's reader leads there
    protocol.connection_lost(error)
    forgotten = ref(connection)
    del connection, protocol, error
    gc.collect()
    assert forgotten() is None


# --- requests ------------------------------------------------------------------------------------


def requester_on(channel: Channel, lost: list[BrokerError]) -> RabbitRequester:
    return RabbitRequester(cast("AbstractChannel", channel), lost.append, open_at_once)


async def test_a_requester_whose_channel_is_spent_says_so(channel: Channel) -> None:
    """Once, whichever way it came about; and what it says holds for those that were not sent."""
    lost: list[BrokerError] = []
    requester = requester_on(channel, lost)
    with pytest.raises(PublishUnknown):
        await requester.publish(message("a"), timeout=SOON)
    with pytest.raises(BrokerUnavailable):
        await requester.publish(message("b"), timeout=PATIENCE)
    assert [type(error) for error in lost] == [BrokerUnavailable]


async def test_a_request_given_up_leaves_the_reply_address(channel: Channel) -> None:
    lost: list[BrokerError] = []
    requester = requester_on(channel, lost)
    publishing = asyncio.create_task(requester.publish(message("a"), timeout=PATIENCE))
    await channel.until_published(1)
    publishing.cancel()
    await asyncio.wait([publishing])
    channel.confirm(1)
    again = asyncio.create_task(requester.publish(message("a"), timeout=PATIENCE))
    await channel.until_published(2)
    channel.confirm(2)
    await again
    assert not lost


async def test_a_close_that_fails_by_a_bug_is_a_close() -> None:
    async def closing() -> None:
        raise KeyError("of the client library")

    await errors.closed(closing())


async def test_an_address_that_cannot_be_used_leaves_no_channel(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def open_channel(*_: object, **__: object) -> Channel:
        return channel

    async def fail(*_: object) -> None:
        raise BrokerUnavailable("it did not answer in time")

    monkeypatch.setattr(RabbitBroker, "_channel", open_channel)
    monkeypatch.setattr(RabbitRequester, "start", fail)
    channel.may_close.set()
    with pytest.raises(BrokerUnavailable):
        await RabbitBroker(Settings()).open_requester(lambda _: None, on_lost=lambda _: None)
    assert channel.closes == 1
