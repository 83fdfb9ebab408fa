"""A consumer on its channel: what it has in hand, and how it settles it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import override

from autosell_rmq.broker import Delivery, Subscription
from autosell_rmq.brokers.memory.loops import call_on
from autosell_rmq.brokers.memory.queue import Entry, MemoryQueue
from autosell_rmq.exceptions import BrokerError, ClosedError, DeliveryLost
from autosell_rmq.message import Message


class MemoryDelivery(Delivery):
    """A message in hand, bound to the channel it came on."""

    def __init__(self, consumer: MemoryConsumer, entry: Entry, message: Message) -> None:
        self._message = message
        self._consumer = consumer
        self._entry = entry
        self._settled = False

    @property
    @override
    def message(self) -> Message:
        return self._message

    @override
    async def ack(self) -> None:
        await self._settle(self._consumer.queue.forget)

    @override
    async def requeue(self) -> None:
        await self._settle(self._consumer.queue.give_back)

    @override
    async def fail(self) -> None:
        await self._settle(self._consumer.queue.give_back)

    async def _settle(self, tell: Callable[[Entry], None]) -> None:
        if self._settled:
            raise ClosedError("this delivery is settled already")
        self._settled = True
        self._consumer.settle(self._entry, tell)
        await asyncio.sleep(0)


class MemoryConsumer(Subscription):
    """A subscription. Cancelled, it gets nothing more and can still settle; closed, it cannot."""

    def __init__(
        self,
        queue: MemoryQueue,
        on_delivery: Callable[[Delivery], None],
        on_lost: Callable[[BrokerError], None],
        *,
        prefetch: int,
        priority: int,
    ) -> None:
        self.queue = queue
        self.priority = priority
        self._on_delivery = on_delivery
        self._on_lost = on_lost
        self._prefetch = prefetch
        self._loop = asyncio.get_running_loop()
        self._in_hand: set[Entry] = set()
        self._inbox: deque[Entry] = deque()
        self._consuming = True
        self._open = True

    @property
    def is_open(self) -> bool:
        """Whether deliveries can still be settled."""
        return self._open

    @property
    def is_ready(self) -> bool:
        """Whether it can take one more. A consumer whose event loop was closed under it never can."""
        return len(self._in_hand) < self._prefetch and not self._loop.is_closed()

    def assign(self, entry: Entry) -> None:
        """Take a message; the callback sees it on the next turn of the loop."""
        self._in_hand.add(entry)
        self._inbox.append(entry)
        call_on(self._loop, self._hand_over)

    def settle(self, entry: Entry, tell: Callable[[Entry], None]) -> None:
        """Let go of a message and `tell` the queue.

        Raises:
            DeliveryLost: the channel is closed.
        """
        with self.queue.lock:
            if not self._open:
                raise DeliveryLost("the channel is gone, the broker will deliver again")
            self._in_hand.discard(entry)
            tell(entry)

    @override
    async def cancel(self) -> None:
        self.stop()
        await asyncio.sleep(0)

    @override
    async def close(self) -> None:
        self.drop()
        await asyncio.sleep(0)

    def stop(self, error: BrokerError | None = None) -> None:
        """End the deliveries; an `error` is the broker's reason, which `on_lost` gets."""
        with self.queue.lock:
            if not self._consuming:
                return
            self._consuming = False
            self.queue.consumers.remove(self)
            while self._inbox:
                entry = self._inbox.popleft()
                self._in_hand.discard(entry)
                self.queue.take_back(entry)
            self.queue.dispatch()
        if error is not None:
            call_on(self._loop, self._on_lost, error)

    def drop(self, error: BrokerError | None = None) -> None:
        """The channel is gone: what is in hand goes back."""
        with self.queue.lock:
            self.stop(error)
            self._open = False
            for entry in sorted(self._in_hand):
                self.queue.give_back(entry)
            self._in_hand.clear()

    def _hand_over(self) -> None:
        with self.queue.lock:
            if not self._inbox:
                return  # cancelled since
            entry = self._inbox.popleft()
            message = self.queue.message(entry)
        self._on_delivery(MemoryDelivery(self, entry, message))
