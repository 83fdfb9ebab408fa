"""A reply address that costs the connection is found out alone, and costs its neighbours nothing."""

import asyncio

import pytest

from autosell_rmq.consumer.direct_replies import DirectReplies
from autosell_rmq.exceptions import BrokerUnavailable, PublishUnknown, PublishUnroutable
from autosell_rmq.message import Publication

GONE = "amq.rabbitmq.reply-to.gone"
HERE = "amq.rabbitmq.reply-to.here"


def to(address: str) -> Publication:
    return Publication(body=b"{}", routing_key=address, mandatory=False)


class Connection:
    """Dies, with all that is in flight on it, of what goes to a dead requester."""

    def __init__(self) -> None:
        self.deaths = 0
        self.stored: list[str] = []
        self._flights: set[asyncio.Future[None]] = set()
        self.cuts = 0  # somebody else's

    async def publish(self, reply: Publication) -> None:
        flight: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flights.add(flight)
        try:
            await asyncio.sleep(0)
            if reply.routing_key.startswith(GONE) or self.cuts:
                self.cuts = max(self.cuts - 1, 0)
                self._die()
            await asyncio.sleep(0)
            if flight.done():
                flight.result()
            self.stored.append(reply.routing_key)
        finally:
            self._flights.discard(flight)
            if flight.done():
                flight.exception()

    def _die(self) -> None:
        self.deaths += 1
        for flight in self._flights:
            if not flight.done():
                flight.set_exception(PublishUnknown("INTERNAL_ERROR"))


async def test_neighbours_are_delivered_and_the_culprit_is_given_up() -> None:
    connection = Connection()
    replies = DirectReplies(connection.publish)
    ended = await asyncio.gather(
        *(replies.publish(to(f"{HERE}.{n}")) for n in range(10)),
        replies.publish(to(f"{GONE}.1")),
        *(replies.publish(to(f"{HERE}.{n}")) for n in range(10, 20)),
        return_exceptions=True,
    )
    assert sorted(connection.stored) == sorted(f"{HERE}.{n}" for n in range(20))
    assert [type(each) for each in ended if each is not None] == [PublishUnroutable]


async def test_one_requester_that_is_gone_costs_a_few_connections_whatever_it_asked() -> None:
    connection = Connection()
    replies = DirectReplies(connection.publish)
    for n in range(50):
        with pytest.raises(PublishUnroutable):
            await replies.publish(to(f"{GONE}.{n}"))
    assert connection.deaths == 3
    await replies.publish(to(f"{HERE}.1"))


async def test_so_do_many_at_once() -> None:
    connection = Connection()
    replies = DirectReplies(connection.publish)
    ended = await asyncio.gather(
        *(replies.publish(to(f"{GONE}.{n}")) for n in range(50)), return_exceptions=True
    )
    assert [type(each) for each in ended] == [PublishUnroutable] * 50
    assert connection.deaths <= 50 + 2  # those that were in flight together, once


async def test_somebody_elses_cut_is_no_proof() -> None:
    connection = Connection()
    replies = DirectReplies(connection.publish)
    connection.cuts = 2
    await replies.publish(to(f"{HERE}.1"))
    assert connection.stored == [f"{HERE}.1"]


async def test_a_made_up_address_condemns_itself_alone() -> None:
    connection = Connection()
    replies = DirectReplies(connection.publish)
    for address in ("amq.rabbitmq.reply-to.gone", "amq.rabbitmq.reply-to"):
        with pytest.raises(PublishUnroutable):
            await DirectReplies(_unknown).publish(to(address))
    with pytest.raises(PublishUnroutable):
        await replies.publish(to(GONE))
    await replies.publish(to(f"{HERE}.1"))
    await replies.publish(to("amq.rabbitmq.reply-to.other"))


async def _unknown(reply: Publication) -> None:
    raise PublishUnknown("INTERNAL_ERROR")


async def test_what_was_not_sent_is_told_as_it_is() -> None:
    async def unavailable(reply: Publication) -> None:
        raise BrokerUnavailable("away")

    replies = DirectReplies(unavailable)
    for _ in range(3):
        with pytest.raises(BrokerUnavailable):
            await replies.publish(to(f"{HERE}.1"))


async def test_a_cancelled_one_holds_nobody_up() -> None:
    connection = Connection()
    replies = DirectReplies(connection.publish)
    culprit = asyncio.create_task(replies.publish(to(f"{GONE}.1")))
    waiting = asyncio.create_task(replies.publish(to(f"{HERE}.1")))
    await asyncio.sleep(0)
    culprit.cancel()
    await asyncio.gather(culprit, return_exceptions=True)
    await asyncio.wait_for(waiting, 5)
    assert connection.stored == [f"{HERE}.1"]
