"""A broker whose calls go wrong as a test has planned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import override

from autosell_rmq.broker import Broker, Delivery, Requester, Subscription
from autosell_rmq.exceptions import BrokerError, DeliveryLost
from autosell_rmq.message import Headers, Message, Publication
from autosell_rmq.testing.faults import Faults
from autosell_rmq.topology import Topology


class FaultyBroker(Broker):
    """Wraps any broker; `close` always works, as the end of a process closes its connections."""

    def __init__(self, broker: Broker, faults: Faults) -> None:
        self._broker = broker
        self._faults = faults

    @property
    @override
    def vhost(self) -> str:
        return self._broker.vhost

    @override
    def now(self) -> float:
        return self._broker.now()

    @property
    @override
    def problem(self) -> str | None:
        return self._broker.problem

    @property
    @override
    def blocked(self) -> bool:
        return self._broker.blocked

    @property
    @override
    def reconnects(self) -> int:
        return self._broker.reconnects

    @override
    async def open(self) -> None:
        async with self._faults.around("open"):
            await self._broker.open()

    @override
    async def close(self) -> None:
        await self._broker.close()

    @override
    async def declare(self, topology: Topology) -> None:
        async with self._faults.around("declare"):
            await self._broker.declare(topology)

    @override
    async def depth(self, queue: str) -> int:
        return await self._broker.depth(queue)

    @override
    async def publish(self, publication: Publication, *, timeout: float) -> None:
        async with self._faults.around("publish"):
            await self._broker.publish(publication, timeout=timeout)

    @override
    async def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        on_lost: Callable[[BrokerError], None],
        arguments: Headers,
    ) -> Subscription:
        def deliver(delivery: Delivery) -> None:
            if self._faults.dead:
                return
            message = delivery.message
            if self._faults.takes_repeat():
                on_delivery(_LostDelivery(message))
                message = replace(message, redelivered=True)
            on_delivery(_FaultyDelivery(delivery, message, self._faults))

        async with self._faults.around("consume"):
            subscription = await self._broker.consume(
                queue, deliver, prefetch=prefetch, on_lost=on_lost, arguments=arguments
            )
        return _FaultySubscription(subscription, self._faults)

    @override
    async def open_requester(
        self, on_reply: Callable[[Message], None], *, on_lost: Callable[[BrokerError], None]
    ) -> Requester:
        async with self._faults.around("open_requester"):
            requester = await self._broker.open_requester(on_reply, on_lost=on_lost)
        return _FaultyRequester(requester, self._faults)


class _FaultyDelivery(Delivery):
    def __init__(self, delivery: Delivery, message: Message, faults: Faults) -> None:
        self._delivery = delivery
        self._message = message
        self._faults = faults

    @property
    @override
    def message(self) -> Message:
        return self._message

    @override
    async def ack(self) -> None:
        async with self._faults.around("ack"):
            await self._delivery.ack()

    @override
    async def requeue(self) -> None:
        async with self._faults.around("requeue"):
            await self._delivery.requeue()

    @override
    async def fail(self) -> None:
        async with self._faults.around("fail"):
            await self._delivery.fail()


class _LostDelivery(Delivery):
    """The first copy of a message that comes twice: its channel is gone."""

    def __init__(self, message: Message) -> None:
        self._message = message

    @property
    @override
    def message(self) -> Message:
        return self._message

    @override
    async def ack(self) -> None:
        raise DeliveryLost("the channel is gone, the broker has delivered again")

    requeue = ack
    fail = ack


class _FaultySubscription(Subscription):
    def __init__(self, subscription: Subscription, faults: Faults) -> None:
        self._subscription = subscription
        self._faults = faults

    @override
    async def cancel(self) -> None:
        async with self._faults.around("cancel"):
            await self._subscription.cancel()

    @override
    async def close(self) -> None:
        await self._subscription.close()


class _FaultyRequester(Requester):
    def __init__(self, requester: Requester, faults: Faults) -> None:
        self._requester = requester
        self._faults = faults

    @override
    async def publish(self, publication: Publication, *, timeout: float) -> None:
        async with self._faults.around("requester.publish"):
            await self._requester.publish(publication, timeout=timeout)

    @override
    async def close(self) -> None:
        await self._requester.close()
