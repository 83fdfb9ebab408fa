"""Consuming: who gets what, in which order, and what settling it does."""

import asyncio

import pytest

from autosell_rmq.broker import Broker, Delivery
from autosell_rmq.exceptions import BrokerUnavailable, ClosedError, DeliveryLost, QueueNotFound
from autosell_rmq.message import Properties
from tests.support.broker_labs import BrokerLab
from tests.support.inbox import Inbox
from tests.support.names import unique
from tests.support.publications import send, send_bodies, to
from tests.support.waiting import eventually


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.message.body for delivery in deliveries]


async def test_prefetch_bounds_what_is_in_hand(lab: BrokerLab, broker: Broker, queue: str) -> None:
    await send_bodies(broker, queue, [b"1", b"2", b"3", b"4", b"5"])

    inbox = await Inbox.of(broker, queue, prefetch=2)
    first, second = await inbox.take(2)

    assert await lab.depth(queue) == 3
    assert inbox.deliveries.empty()
    await second.ack()
    assert (await inbox.next()).message.body == b"3"
    await first.ack()
    assert (await inbox.next()).message.body == b"4"
    assert await lab.depth(queue) == 1


async def test_an_acked_message_is_gone(lab: BrokerLab, broker: Broker, queue: str) -> None:
    await send_bodies(broker, queue, [b"1", b"2"])
    inbox = await Inbox.of(broker, queue)
    await (await inbox.next()).ack()
    await inbox.next()

    await broker.close()

    inbox = await Inbox.of(await lab.open(), queue)
    assert (await inbox.next()).message.body == b"2"


@pytest.mark.parametrize("how", ["requeue", "fail"])
async def test_a_message_given_back_comes_again(lab: BrokerLab, broker: Broker, queue: str, how: str) -> None:
    await send(broker, to(queue))
    inbox = await Inbox.of(broker, queue)
    delivery = await inbox.next()
    assert not delivery.message.redelivered

    await getattr(delivery, how)()

    assert (await inbox.next()).message.redelivered


async def test_a_quorum_queue_counts_failures(lab: BrokerLab, broker: Broker) -> None:
    queue = await lab.queue(broker, {"x-queue-type": "quorum"})
    await send(broker, to(queue))
    inbox = await Inbox.of(broker, queue)
    counts: list[int | None] = []

    for _ in range(3):
        delivery = await inbox.next()
        counts.append(delivery.message.delivery_count)
        await delivery.fail()

    assert counts == [None, 1, 2]


async def test_a_classic_queue_does_not_count(lab: BrokerLab, broker: Broker) -> None:
    queue = await lab.queue(broker, {"x-queue-type": "classic"})
    await send(broker, to(queue))
    inbox = await Inbox.of(broker, queue)

    await (await inbox.next()).fail()

    message = (await inbox.next()).message
    assert message.redelivered
    assert message.delivery_count is None


@pytest.mark.parametrize(
    "arguments",
    # Without a delivery limit RabbitMQ's quorum queues put it at the end.
    [{"x-queue-type": "quorum", "x-delivery-limit": 50}, {"x-queue-type": "classic"}],
    ids=["quorum", "classic"],
)
async def test_a_message_given_back_keeps_its_place(
    lab: BrokerLab, broker: Broker, arguments: dict[str, object]
) -> None:
    queue = await lab.queue(broker, arguments)
    await send_bodies(broker, queue, [b"1", b"2", b"3"])
    inbox = await Inbox.of(broker, queue, prefetch=1)

    await (await inbox.next()).requeue()

    again = await inbox.next()
    assert again.message.body == b"1"
    await again.ack()
    assert (await inbox.next()).message.body == b"2"


async def test_what_is_unacked_goes_back_when_the_connection_closes(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    await send_bodies(broker, queue, [b"1", b"2", b"3"])
    inbox = await Inbox.of(broker, queue, prefetch=2)
    await (await inbox.next()).ack()
    await inbox.take(2)

    await broker.close()

    inbox = await Inbox.of(await lab.open(), queue)
    again = await inbox.take(2)
    assert bodies(again) == [b"2", b"3"]
    assert all(delivery.message.redelivered for delivery in again)


async def test_nothing_can_be_settled_after_the_connection_closed(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    await send(broker, *[to(queue)] * 3)
    inbox = await Inbox.of(broker, queue)
    first, second, third = await inbox.take(3)

    await broker.close()

    with pytest.raises(DeliveryLost):
        await first.ack()
    with pytest.raises(DeliveryLost):
        await second.requeue()
    with pytest.raises(DeliveryLost):
        await third.fail()


async def test_settling_twice_is_an_error_that_harms_nobody(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    await send_bodies(broker, queue, [b"1", b"2"])
    inbox = await Inbox.of(broker, queue)
    first, second = await inbox.take(2)
    await first.ack()

    for settle in (first.ack, first.requeue, first.fail):
        with pytest.raises(ClosedError):
            await settle()

    await second.requeue()
    assert (await inbox.next()).message.body == b"2"


async def test_a_cancelled_settlement_still_happens(lab: BrokerLab, broker: Broker, queue: str) -> None:
    await send_bodies(broker, queue, [b"1", b"2"])
    inbox = await Inbox.of(broker, queue, prefetch=1)
    delivery = await inbox.next()

    settling = asyncio.create_task(delivery.ack())
    await asyncio.sleep(0)
    settling.cancel()

    assert (await inbox.next()).message.body == b"2"


async def test_cancelling_stops_the_deliveries(lab: BrokerLab, broker: Broker, queue: str) -> None:
    inbox = await Inbox.of(broker, queue)
    await send_bodies(broker, queue, [b"1"])
    in_hand = await inbox.next()

    await inbox.subscription.cancel()
    await send_bodies(broker, queue, [b"2"])

    assert await lab.depth(queue) == 1
    await in_hand.ack()
    other = await Inbox.of(broker, queue)
    assert (await other.next()).message.body == b"2"
    assert inbox.deliveries.empty()
    assert not inbox.lost


async def test_cancelling_twice_is_harmless(lab: BrokerLab, broker: Broker, queue: str) -> None:
    inbox = await Inbox.of(broker, queue)

    await inbox.subscription.cancel()
    await inbox.subscription.cancel()

    await broker.close()
    await inbox.subscription.cancel()
    assert not inbox.lost


async def test_closing_a_cancelled_consumer_gives_back_what_it_has(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    await send_bodies(broker, queue, [b"1", b"2"])
    inbox = await Inbox.of(broker, queue)
    settled, left = await inbox.take(2)
    await inbox.subscription.cancel()
    await settled.ack()

    await inbox.subscription.close()
    await inbox.subscription.close()

    with pytest.raises(DeliveryLost):
        await left.ack()
    again = await (await Inbox.of(broker, queue)).next()
    assert (again.message.body, again.message.redelivered) == (b"2", True)
    assert not inbox.lost


async def test_a_broker_can_consume_and_cancel_without_end(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    await send_bodies(broker, queue, [b"1"])

    for _ in range(50):
        inbox = await Inbox.of(broker, queue)
        await (await inbox.next()).requeue()
        await inbox.subscription.cancel()
        await inbox.subscription.close()

    await (await (await Inbox.of(broker, queue)).next()).ack()


async def test_what_a_cancelled_consumer_never_saw_is_there_for_others(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    sent = [b"%d" % number for number in range(50)]
    await send_bodies(broker, queue, sent)

    inbox = await Inbox.of(broker, queue, prefetch=50)
    await inbox.subscription.cancel()

    seen = [inbox.deliveries.get_nowait() for _ in range(inbox.deliveries.qsize())]
    other = await Inbox.of(broker, queue, prefetch=50)
    rest = await other.take(len(sent) - len(seen))
    assert sorted(bodies(seen) + bodies(rest)) == sorted(sent)


async def test_consuming_a_missing_queue(broker: Broker, lab: BrokerLab) -> None:
    missing = unique("missing")

    with pytest.raises(QueueNotFound, match=f"no queue '{missing}'"):
        await Inbox.of(broker, missing)


async def test_a_deleted_queue_ends_its_consumers(lab: BrokerLab, broker: Broker, queue: str) -> None:
    await send(broker, to(queue))
    inbox = await Inbox.of(broker, queue)
    delivery = await inbox.next()

    await lab.delete_queue(queue)

    error = await inbox.until_lost()
    assert isinstance(error, QueueNotFound)
    assert queue in str(error)
    await delivery.ack()  # its channel is still there
    await inbox.subscription.cancel()
    await broker.close()
    assert len(inbox.lost) == 1


async def test_a_cut_connection_ends_its_consumers(lab: BrokerLab, queue: str) -> None:
    broker, cut = await lab.open_cuttable()
    inbox = await Inbox.of(broker, queue)
    await send(broker, to(queue))
    delivery = await inbox.next()

    cut()

    assert isinstance(await inbox.until_lost(), BrokerUnavailable)
    with pytest.raises(DeliveryLost):
        await delivery.ack()
    again = await (await Inbox.of(broker, queue)).next()
    assert again.message.redelivered
    await again.ack()
    assert len(inbox.lost) == 1


async def test_closing_the_broker_ends_its_consumers(lab: BrokerLab, broker: Broker, queue: str) -> None:
    inbox = await Inbox.of(broker, queue)

    await broker.close()

    assert isinstance(await inbox.until_lost(), BrokerUnavailable)
    with pytest.raises(ClosedError):
        await Inbox.of(broker, queue)


async def test_consumers_of_one_queue_take_turns(lab: BrokerLab, broker: Broker, queue: str) -> None:
    one, two = await Inbox.of(broker, queue), await Inbox.of(await lab.open(), queue)

    await send_bodies(broker, queue, [b"%d" % number for number in range(6)])

    assert len(await one.take(3)) == len(await two.take(3)) == 3


async def test_a_consumer_with_priority_comes_first(lab: BrokerLab, broker: Broker, queue: str) -> None:
    low = await Inbox.of(broker, queue, prefetch=2)
    high = await Inbox.of(broker, queue, prefetch=2, arguments={"x-priority": 10})

    await send_bodies(broker, queue, [b"1", b"2", b"3"])

    assert bodies(await high.take(2)) == [b"1", b"2"]
    assert bodies(await low.take(1)) == [b"3"]


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_a_single_active_consumer_is_followed_by_the_next(
    lab: BrokerLab, broker: Broker, queue_type: str
) -> None:
    queue = await lab.queue(broker, {"x-queue-type": queue_type, "x-single-active-consumer": True})
    first, second = await Inbox.of(broker, queue, prefetch=1), await Inbox.of(broker, queue)
    await send_bodies(broker, queue, [b"1", b"2"])
    in_hand = await first.next()
    assert in_hand.message.body == b"1"
    assert await lab.depth(queue) == 1

    await first.subscription.cancel()
    await in_hand.ack()
    # A classic queue of RabbitMQ 3.10.8 turns to the next one only now; a publish before would crash it.
    await first.subscription.close()

    assert (await second.next()).message.body == b"2"


async def test_messages_with_priority_come_first(lab: BrokerLab, broker: Broker) -> None:
    queue = await lab.queue(broker, {"x-queue-type": "classic", "x-max-priority": 5})
    for body, priority in ((b"low", 1), (b"none", None), (b"high", 5), (b"low again", 1), (b"over", 200)):
        await send(broker, to(queue, body, Properties(priority=priority)))

    inbox = await Inbox.of(broker, queue)

    assert bodies(await inbox.take(5)) == [b"high", b"over", b"low", b"low again", b"none"]


async def test_two_consumers_of_one_broker_are_independent(lab: BrokerLab, broker: Broker) -> None:
    names = [await lab.queue(broker), await lab.queue(broker)]
    inboxes: list[Inbox] = [await Inbox.of(broker, name) for name in names]

    await lab.delete_queue(names[0])
    await inboxes[0].until_lost()
    await send(broker, to(names[1]))

    assert (await inboxes[1].next()).message.queue == names[1]
    assert not inboxes[1].lost


async def test_a_delivery_never_comes_from_inside_a_publish(
    lab: BrokerLab, broker: Broker, queue: str
) -> None:
    publishing = False
    nested: list[bool] = []
    arrived = asyncio.Event()

    def on_delivery(_: Delivery) -> None:
        nested.append(asyncio.current_task() is test and publishing)
        arrived.set()

    test = asyncio.current_task()
    await broker.consume(queue, on_delivery, prefetch=1, on_lost=lambda _: None, arguments={})
    publishing = True
    await send(broker, to(queue))
    publishing = False

    await eventually(arrived.is_set)
    assert nested == [False]


async def test_depth_counts_what_is_in_nobodys_hands(lab: BrokerLab, broker: Broker) -> None:
    queue = await lab.queue(broker)
    assert await broker.depth(queue) == 0

    await send_bodies(broker, queue, [b"1", b"2", b"3"])
    assert await broker.depth(queue) == 3

    inbox = await Inbox.of(broker, queue, prefetch=2)
    await inbox.take(2)
    assert await broker.depth(queue) == 1


async def test_depth_of_no_queue(broker: Broker) -> None:
    with pytest.raises(QueueNotFound):
        await broker.depth(unique("nowhere"))
