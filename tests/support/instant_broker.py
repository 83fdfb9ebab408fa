"""A broker that costs nothing: what is left is the cost of the library above the seam."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from autosell_rmq.broker import Delivery
from autosell_rmq.exceptions import BrokerError
from autosell_rmq.message import Headers, Message, Publication
from autosell_rmq.topology import Topology


class InstantDelivery:
    """Tells its broker when it is acked."""

    __slots__ = ("_broker", "message")

    def __init__(self, broker: InstantBroker, message: Message) -> None:
        self._broker = broker
        self.message = message

    async def ack(self) -> None:
        self._broker.acked()

    async def requeue(self) -> None:
        raise AssertionError("requeued")

    async def fail(self) -> None:
        raise AssertionError("failed")


class InstantSubscription:
    """Has nothing to cancel."""

    async def cancel(self) -> None: ...

    async def close(self) -> None: ...


class InstantRequester:
    """Confirms at once, and answers at once."""

    def __init__(self, on_reply: Callable[[Message], None]) -> None:
        self._on_reply = on_reply

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        body = b'{"success": true, "data": null}'
        reply = Message(queue="", body=body, properties=publication.properties)
        asyncio.get_running_loop().call_soon(self._on_reply, reply)

    async def close(self) -> None: ...


class InstantBroker:
    """Confirms each publish at once.

    Attributes:
        published: how many.
    """

    vhost = "/"
    problem = None
    blocked = False
    reconnects = 0

    def __init__(self) -> None:
        self.published = 0
        self._unacked = 0
        self._all_acked = asyncio.Event()
        self._on_delivery: Callable[[Delivery], None] | None = None

    def now(self) -> float:
        return time.time()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def declare(self, topology: Topology) -> None: ...

    async def depth(self, queue: str) -> int:
        return 0

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        self.published += 1

    async def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        on_lost: Callable[[BrokerError], None],
        arguments: Headers,
    ) -> InstantSubscription:
        self._on_delivery = on_delivery
        return InstantSubscription()

    async def open_requester(
        self, on_reply: Callable[[Message], None], *, on_lost: Callable[[BrokerError], None]
    ) -> InstantRequester:
        return InstantRequester(on_reply)

    async def deliver(self, messages: list[Message]) -> None:
        """Deliver all at once, and return when all are acked."""
        assert self._on_delivery is not None
        self._unacked = len(messages)
        self._all_acked.clear()
        for message in messages:
            self._on_delivery(InstantDelivery(self, message))
        await self._all_acked.wait()

    def acked(self) -> None:
        """Count an ack."""
        self._unacked -= 1
        if not self._unacked:
            self._all_acked.set()
