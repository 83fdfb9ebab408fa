"""A consumer for tests."""

import asyncio
from typing import Self

from autosell_rmq.broker import Broker, Delivery, Subscription
from autosell_rmq.exceptions import BrokerError
from autosell_rmq.message import NO_HEADERS, Headers
from tests.support.waiting import PATIENCE, eventually


class Inbox:
    """Keeps what it gets until the test asks for it."""

    subscription: Subscription

    def __init__(self) -> None:
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self.lost: list[BrokerError] = []

    @classmethod
    async def of(
        cls, broker: Broker, queue: str, *, prefetch: int = 10, arguments: Headers = NO_HEADERS
    ) -> Self:
        """Start to consume."""
        inbox = cls()
        inbox.subscription = await broker.consume(
            queue,
            inbox.deliveries.put_nowait,
            prefetch=prefetch,
            on_lost=inbox.lost.append,
            arguments=arguments,
        )
        return inbox

    async def next(self) -> Delivery:
        """The next delivery, whenever it comes."""
        async with asyncio.timeout(PATIENCE):
            return await self.deliveries.get()

    async def take(self, count: int) -> list[Delivery]:
        return [await self.next() for _ in range(count)]

    async def until_lost(self) -> BrokerError:
        await eventually(lambda: bool(self.lost))
        return self.lost[0]
