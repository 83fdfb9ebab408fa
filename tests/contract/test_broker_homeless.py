"""What no queue takes: alternate exchanges, and the delay line's queue of messages without a home."""

import pytest

from autosell_rmq.broker import Broker
from autosell_rmq.config import HOMELESS
from autosell_rmq.exceptions import PublishUnroutable, TopologyMismatch
from autosell_rmq.message import Properties, Publication
from autosell_rmq.topology import (
    END_OF_LINE,
    Exchange,
    QueueBinding,
    Topology,
    delay_hop,
    delay_name,
    way_home,
)
from tests.support.broker_labs import BrokerLab
from tests.support.homeless import forget_homeless, homeless_of
from tests.support.inbox import Inbox
from tests.support.names import unique
from tests.support.publications import send
from tests.support.waiting import eventually

STUCK = 32  # messages without a home, with which RabbitMQ's dead-letter worker stands still


async def with_alternate(lab: BrokerLab, broker: Broker, alternate: str) -> str:
    """A direct exchange that has one."""
    name = lab.new_exchange()
    exchange = Exchange(name=name, type="direct", arguments={"alternate-exchange": alternate})
    await broker.declare(Topology(exchanges=(exchange,)))
    return name


async def test_an_alternate_exchange_gets_what_no_queue_takes(lab: BrokerLab, broker: Broker) -> None:
    alternate = await lab.exchange(broker, "fanout")
    first = await with_alternate(lab, broker, alternate)
    taken, other = await lab.queue(broker), await lab.queue(broker)
    await broker.declare(
        Topology(
            bindings=(
                QueueBinding(queue=taken, exchange=first, routing_key="taken"),
                QueueBinding(queue=other, exchange=alternate),
            )
        )
    )
    inboxes = [await Inbox.of(broker, queue) for queue in (taken, other)]
    keys = ("taken", "not taken")
    await send(broker, *(Publication(body=b"", exchange=first, routing_key=key) for key in keys))

    for inbox, key in zip(inboxes, keys, strict=True):
        message = (await inbox.next()).message
        assert (message.exchange, message.routing_key) == (first, key)
        assert inbox.deliveries.empty()


async def test_an_alternate_exchange_that_is_missing_or_takes_nothing_is_no_help(
    lab: BrokerLab, broker: Broker
) -> None:
    missing = await with_alternate(lab, broker, unique("missing"))
    idle = await with_alternate(lab, broker, missing)
    for exchange in (missing, idle):
        with pytest.raises(PublishUnroutable):
            await send(broker, Publication(body=b"", exchange=exchange, routing_key="a"))


@pytest.mark.parametrize("theirs", ["none", "another"])
async def test_another_alternate_exchange_is_a_mismatch(lab: BrokerLab, broker: Broker, theirs: str) -> None:
    name = await with_alternate(lab, broker, unique("alternate"))
    arguments = {} if theirs == "none" else {"alternate-exchange": unique("alternate")}
    other = Exchange(name=name, type="direct", arguments=arguments)
    with pytest.raises(
        TopologyMismatch, match=f"inequivalent arg 'alternate-exchange' for exchange '{name}'"
    ):
        await broker.declare(Topology(exchanges=(other,)))


async def test_messages_whose_home_is_gone_do_not_stop_the_others(lab: BrokerLab, broker: Broker) -> None:
    home, gone = await lab.queue(broker), unique("gone")
    await broker.declare(delay_hop(1) + way_home(home))
    inbox = await Inbox.of(broker, home)
    keys = [gone] * (STUCK + 8) + [home]
    await send(broker, *(Publication(body=b"", exchange=delay_name(1), routing_key=key) for key in keys))
    await lab.pass_time(1)

    await inbox.next()
    await homeless_of(broker, gone, STUCK + 8)
    await forget_homeless(broker, gone)


async def until_it_comes(inbox: Inbox, home: str) -> None:
    """Others may be there before."""
    while (await inbox.next()).message.routing_key != home:
        pass


async def test_one_consumer_at_a_time_gets_what_is_homeless(lab: BrokerLab, broker: Broker) -> None:
    await broker.declare(END_OF_LINE)
    gone = unique("gone")
    first = await Inbox.of(broker, HOMELESS, prefetch=1000)
    second = await Inbox.of(await lab.open(), HOMELESS, prefetch=1000)
    message = Publication(
        body=b"", exchange=HOMELESS, routing_key=gone, properties=Properties(message_id=gone)
    )
    await send(broker, message)

    await eventually(lambda: not (first.deliveries.empty() and second.deliveries.empty()))
    turn, waiting = (first, second) if second.deliveries.empty() else (second, first)
    await until_it_comes(turn, gone)
    assert waiting.deliveries.empty()
    await turn.subscription.close()
    await until_it_comes(waiting, gone)
    await waiting.subscription.close()
    await forget_homeless(broker, gone)
