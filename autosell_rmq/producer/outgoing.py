"""What a connected producer sends with: messages and events, and requests, over one broker."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from autosell_rmq.broker import Broker
from autosell_rmq.config import Settings
from autosell_rmq.exceptions import PublishUnroutable
from autosell_rmq.message import Publication
from autosell_rmq.producer.outage import Attempt, Outage
from autosell_rmq.producer.routes import Routes
from autosell_rmq.replies import Requests
from autosell_rmq.waiting import WaitingRoom


class Outgoing:
    """What a connected producer sends with."""

    def __init__(self, broker: Broker, settings: Settings) -> None:
        room = WaitingRoom(most=settings.max_waiting, most_bytes=settings.max_waiting_bytes)
        self._broker = broker
        self._routes = Routes(broker)
        timeout, waits = settings.publish_timeout, settings.when_blocked == "wait"
        self._outage = Outage(broker, room, publish_timeout=timeout, waits_when_blocked=waits)
        self.requests = Requests(broker, room, publish_timeout=timeout, waits_when_blocked=waits)

    async def publish(self, publication: Publication, exchange_type: str = "", *, patience: float) -> None:
        """Send until it is confirmed, for `patience` seconds; see `Outage.send` for what it raises.

        Args:
            publication: a message for a queue, at once or by the delay line, or an event.
            exchange_type: of an event's exchange, which is declared.
            patience: how long an outage may last.
        """
        attempt: Attempt = (
            partial(self._routes.publish, publication, exchange_type)
            if publication.exchange
            else partial(self._broker.publish, publication)
        )
        await self._outage.send(attempt, publication, patience=patience)

    async def ask(
        self, publication: Publication, *, queue: str, timeout: float, patience: float
    ) -> dict[str, Any]:
        """Send a request, on its way over the delay line too, and return its reply."""
        if not publication.exchange:
            return await self.requests.ask(publication, queue=queue, timeout=timeout, patience=patience)
        clock = asyncio.get_running_loop().time
        ends = clock() + timeout
        was_declared = self._routes.knows(publication.exchange)
        prepare = partial(self._routes.prepare, publication, "")
        await self._outage.send(prepare, publication, patience=min(patience, timeout))
        try:
            return await self.requests.ask(
                publication, queue=queue, timeout=ends - clock(), patience=patience
            )
        except PublishUnroutable:
            self._routes.forget(publication.exchange)
            if not was_declared:
                raise
        return await self.ask(publication, queue=queue, timeout=ends - clock(), patience=patience)

    async def close(self) -> None:
        """Give up what waits."""
        self._outage.close()
        await self.requests.close()
