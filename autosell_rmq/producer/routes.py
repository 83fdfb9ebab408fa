"""One attempt to publish, with what has to exist before: exchanges and the delay line."""

from __future__ import annotations

import asyncio

from autosell_rmq.broker import Broker
from autosell_rmq.config import DELAY_LINE
from autosell_rmq.exceptions import BrokerUnavailable, PublishUnroutable, QueueNotFound
from autosell_rmq.message import Publication
from autosell_rmq.topology import Exchange, Queue, Topology, delay_hop, is_delay_name, way_home


class Routes:
    """Publishes, and remembers what is declared: each exchange once, and again where it has gone."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._declared: set[str] = set()

    async def publish(self, publication: Publication, exchange_type: str, timeout: float) -> None:
        """As `Broker.publish`, to an exchange; that of an event is declared with `exchange_type`.

        Raises:
            TopologyMismatch: it exists with another type.
        """
        exchange = publication.exchange
        was_declared = self.knows(exchange)
        await self.prepare(publication, exchange_type, timeout)
        try:
            await self._broker.publish(publication, timeout=timeout)
        except PublishUnroutable:
            self.forget(exchange)
            if not was_declared:
                raise
            # It may have been deleted since, or the broker came back without it: it is stored nowhere.
            await self.prepare(publication, exchange_type, timeout)
            await self._broker.publish(publication, timeout=timeout)

    async def prepare(self, publication: Publication, exchange_type: str, timeout: float) -> None:
        """Make sure that its exchange exists; for a delayed one, also the queue that it will come home to.

        Raises:
            PublishUnroutable: there is no such queue.
            BrokerUnavailable: it could not be done within `timeout` seconds.
        """
        exchange = publication.exchange
        is_delayed = is_delay_name(exchange)
        if not is_delayed and self.knows(exchange):
            return
        wanted = Topology() if self.knows(exchange) else _topology(exchange, exchange_type)
        if is_delayed:
            wanted += _home(publication.routing_key)
        try:
            async with asyncio.timeout(timeout):
                await self._broker.declare(wanted)
        except QueueNotFound as error:
            if self.knows(exchange):  # it may be the way home that was deleted, and not the home
                self.forget(exchange)
                await self.prepare(publication, exchange_type, timeout)
                return
            raise PublishUnroutable(
                f"no queue takes a delayed message to {publication.routing_key!r}: {error}"
            ) from None
        except TimeoutError:
            raise BrokerUnavailable(f"exchange {exchange!r} was not declared within {timeout:g} s") from None
        self._declared.add(exchange)

    def knows(self, exchange: str) -> bool:
        """Whether it was declared here."""
        return exchange in self._declared

    def forget(self, exchange: str) -> None:
        """Declare it before its next use: it may have been deleted."""
        self._declared.discard(exchange)


def _home(queue: str) -> Topology:
    """The queue, found, with its way home.

    Each time anew: where another library consumes it, it may have been deleted and declared since the last
    message, and its binding with it.
    """
    return Topology(queues=(Queue(name=queue, passive=True),)) + way_home(queue)


def _topology(exchange: str, exchange_type: str) -> Topology:
    if is_delay_name(exchange):
        return delay_hop(int(exchange.removeprefix(DELAY_LINE).removesuffix("s")))
    return Topology(exchanges=(Exchange(name=exchange, type=exchange_type),))
