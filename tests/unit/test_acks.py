"""Settling: whatever the order, RabbitMQ takes each tag once, and none before it is done."""

import asyncio
from typing import Any, cast

import pytest
from aiormq.abc import AbstractChannel
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.commands import Channel as ChannelMethods

from autosell_rmq.broker import Delivery
from autosell_rmq.brokers.rabbitmq.consuming import RabbitSubscription
from autosell_rmq.exceptions import BrokerError, ClosedError, DeliveryLost, QueueNotFound
from autosell_rmq.message import NO_HEADERS
from tests.support.framed import Channel
from tests.support.waiting import PATIENCE


class Ledger:
    """RabbitMQ's side of a channel, with its rules: a tag that is not outstanding closes the channel."""

    def __init__(self) -> None:
        self.outstanding: set[int] = set()
        self.acked: set[int] = set()
        self.back: set[int] = set()

    def take(self, frames: list[Any]) -> None:
        for each in frames:
            tag = each.delivery_tag
            assert tag in self.outstanding, f"406: unknown delivery tag {tag}"
            if isinstance(each, Basic.Ack):
                tags = {other for other in self.outstanding if other <= tag} if each.multiple else {tag}
                self.acked |= tags
            else:
                assert each.requeue
                tags = {tag}
                self.back |= tags
            self.outstanding -= tags


class Stage:
    def __init__(self) -> None:
        self.channel = Channel()
        self.ledger = Ledger()
        self.deliveries: dict[int, Delivery] = {}
        self.lost: list[BrokerError] = []
        self.subscription = RabbitSubscription(
            cast("AbstractChannel", self.channel), "queue", self.lost.append
        )
        self._tags = 0

    async def start(self) -> "Stage":
        await self.subscription.start(self._take, 100, NO_HEADERS, PATIENCE)
        return self

    def _take(self, delivery: Delivery) -> None:
        self.deliveries[self._tags] = delivery

    def deliver(self) -> int:
        self._tags += 1
        self.ledger.outstanding.add(self._tags)
        self.channel.deliver(self._tags)
        return self._tags

    async def turn(self) -> list[Any]:
        """The end of this turn of the loop: what was sent."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.sent()

    def sent(self) -> list[Any]:
        frames = self.channel.sent
        self.channel.wire.writes.clear()
        self.ledger.take([each for each in frames if not isinstance(each, Basic.CancelOk)])
        return frames


@pytest.fixture
async def stage() -> Stage:
    return await Stage().start()


async def acks(stage: Stage, *tags: int) -> list[tuple[int, bool]]:
    for tag in tags:
        await stage.deliveries[tag].ack()
    return [(each.delivery_tag, each.multiple) for each in await stage.turn() if isinstance(each, Basic.Ack)]


async def test_those_of_one_turn_are_one_ack(stage: Stage) -> None:
    for _ in range(5):
        stage.deliver()
    assert await acks(stage, 3, 1, 2) == [(3, True)]
    assert await acks(stage, 4) == [(4, False)]


async def test_one_that_takes_long_holds_nobody_up(stage: Stage) -> None:
    for _ in range(6):
        stage.deliver()
    assert sorted(await acks(stage, 2, 3, 5)) == [(2, False), (3, False), (5, False)]
    assert await acks(stage, 1, 4) == [(4, True)]
    assert stage.ledger.outstanding == {6}


async def test_what_went_back_is_no_end_of_an_ack(stage: Stage) -> None:
    for _ in range(3):
        stage.deliver()
    await stage.deliveries[3].fail()
    await stage.deliveries[2].requeue()
    assert await acks(stage, 1) == [(1, False)]
    assert (stage.ledger.acked, stage.ledger.back) == ({1}, {2, 3})
    for _ in range(3):
        stage.deliver()
    await stage.deliveries[4].requeue()
    assert await acks(stage, 5, 6) == [(6, True)]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_order_settles_each_once(data: st.DataObject) -> None:
    async def play() -> None:
        stage = await Stage().start()
        open_tags: list[int] = []
        acked: set[int] = set()
        back: set[int] = set()
        for step in data.draw(
            st.lists(st.sampled_from(["deliver", "ack", "requeue", "fail", "turn"]), max_size=60)
        ):
            if step == "turn":
                await stage.turn()
                assert (stage.ledger.acked, stage.ledger.back) == (acked, back)
            elif step == "deliver":
                open_tags.append(stage.deliver())
            elif open_tags:
                tag = open_tags.pop(data.draw(st.integers(0, len(open_tags) - 1)))
                delivery = stage.deliveries[tag]
                await {"ack": delivery.ack, "requeue": delivery.requeue, "fail": delivery.fail}[step]()
                (acked if step == "ack" else back).add(tag)
        await stage.turn()
        assert (stage.ledger.acked, stage.ledger.back) == (acked, back)
        assert stage.ledger.outstanding == set(open_tags)

    asyncio.run(play())


async def test_nothing_is_settled_twice(stage: Stage) -> None:
    stage.deliver()
    await stage.deliveries[1].ack()
    with pytest.raises(ClosedError):
        await stage.deliveries[1].fail()
    assert len(await stage.turn()) == 1


async def test_acks_are_sent_before_the_cancel(stage: Stage) -> None:
    stage.deliver()
    stage.deliver()
    await stage.deliveries[1].ack()
    await stage.subscription.cancel()
    assert [type(each) for each in stage.sent()] == [Basic.Ack, Basic.CancelOk]
    assert await acks(stage, 2) == [(2, False)]  # the late ones go on


async def test_after_a_cancel_that_failed_nothing_is_written(stage: Stage) -> None:
    """The client library closes the channel then: an ack on it would cost the connection."""
    stage.deliver()
    stage.channel.cancels_fail = True
    await stage.subscription.cancel()
    with pytest.raises(DeliveryLost):
        await stage.deliveries[1].ack()
    assert stage.sent() == []


async def test_a_cancel_is_not_cut_off(stage: Stage) -> None:
    stage.deliver()
    stage.channel.may_cancel.clear()
    cancelling = asyncio.create_task(stage.subscription.cancel())
    await asyncio.sleep(0)
    cancelling.cancel()
    await asyncio.wait([cancelling])
    again = asyncio.create_task(stage.subscription.cancel())
    await asyncio.sleep(0)
    assert not again.done()
    stage.channel.may_cancel.set()
    await again
    assert [type(each) for each in stage.sent()] == [Basic.CancelOk]
    assert await acks(stage, 1) == [(1, False)]


async def test_what_comes_after_the_cancel_goes_back(stage: Stage) -> None:
    await stage.subscription.cancel()
    stage.deliver()
    await stage.turn()
    assert stage.ledger.back == {1}
    assert not stage.deliveries


async def test_acks_are_sent_before_the_close(stage: Stage) -> None:
    stage.deliver()
    stage.deliver()
    await stage.deliveries[1].ack()
    stage.channel.may_close.set()
    await stage.subscription.close()
    assert [type(each) for each in stage.sent()] == [Basic.Ack]
    with pytest.raises(DeliveryLost):
        await stage.deliveries[2].ack()


@pytest.mark.parametrize("ends", ["it is closed", "its cancel failed", "the broker closes it"])
async def test_what_comes_on_a_channel_that_is_being_closed_is_left_to_it(stage: Stage, ends: str) -> None:
    if ends == "it is closed":
        stage.channel.may_close.set()
        await stage.subscription.close()
    elif ends == "its cancel failed":
        stage.channel.cancels_fail = True
        await stage.subscription.cancel()
    else:
        stage.channel.hear(ChannelMethods.Close(406, "PRECONDITION_FAILED", 60, 80))
    stage.deliver()
    assert await stage.turn() == []
    assert not stage.deliveries


@pytest.mark.parametrize("loses", ["the broker closes it", "the connection is lost"])
async def test_a_lost_channel_takes_no_more(stage: Stage, loses: str) -> None:
    stage.deliver()
    stage.deliver()
    await stage.deliveries[1].ack()  # in this very turn: it comes again
    if loses == "the broker closes it":
        stage.channel.hear(ChannelMethods.Close(406, "PRECONDITION_FAILED", 60, 80))
    else:
        stage.channel.closing.set_exception(ConnectionError())
        await asyncio.sleep(0)
    with pytest.raises(DeliveryLost):
        await stage.deliveries[2].ack()
    if loses == "the broker closes it":
        assert await stage.turn() == []


async def test_a_consumer_that_ends_as_it_begins_is_lost() -> None:
    stage = Stage()
    stage.channel.ends_at_once = True
    await stage.start()
    assert [type(error) for error in stage.lost] == [QueueNotFound]
