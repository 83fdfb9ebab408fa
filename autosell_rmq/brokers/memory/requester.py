"""Direct reply-to: an address that lives as long as the one who asks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import override

from autosell_rmq.broker import Requester
from autosell_rmq.brokers.memory.loops import call_on
from autosell_rmq.brokers.memory.server import MemoryServer
from autosell_rmq.exceptions import BrokerError, BrokerUnavailable
from autosell_rmq.message import DIRECT_REPLY_TO, Message, Publication


class MemoryRequester(Requester):
    """A channel for requests; replies reach it while it is open."""

    def __init__(
        self,
        server: MemoryServer,
        on_reply: Callable[[Message], None],
        on_lost: Callable[[BrokerError], None],
    ) -> None:
        self.address = f"{DIRECT_REPLY_TO}.{uuid.uuid4().hex}"
        self._server = server
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        server.requesters[self.address] = self

    @override
    async def publish(self, publication: Publication, *, timeout: float) -> None:
        if not self._is_open:
            raise BrokerUnavailable("the reply channel is closed")
        self._server.publish(
            replace(publication, properties=replace(publication.properties, reply_to=self.address))
        )
        await asyncio.sleep(0)

    @override
    async def close(self) -> None:
        self._server.requesters.pop(self.address, None)
        await asyncio.sleep(0)

    def drop(self, error: BrokerError) -> None:
        """The connection is gone."""
        if self._server.requesters.pop(self.address, None) is not None:
            call_on(self._loop, self._on_lost, error)

    def receive(self, publication: Publication) -> None:
        """Take a reply; the callback sees it on the next turn of the loop."""
        call_on(
            self._loop,
            self._hand_over,
            Message(
                queue=DIRECT_REPLY_TO,
                body=publication.body,
                exchange=publication.exchange,
                routing_key=publication.routing_key,
                properties=publication.properties,
            ),
        )

    @property
    def _is_open(self) -> bool:
        return self.address in self._server.requesters

    def _hand_over(self, reply: Message) -> None:
        if self._is_open:
            self._on_reply(reply)
