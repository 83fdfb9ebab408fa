"""The seam: what the library asks of a message broker. RabbitMQ and the one in memory implement it.

Every implementation passes ``tests/contract``. All calls come from one event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from autosell_rmq.exceptions import BrokerError
from autosell_rmq.message import Headers, Message, Publication
from autosell_rmq.topology import Topology


class Delivery(Protocol):
    """A message in our hands, to be settled exactly once.

    A call of the three returns when the broker has been told; cancelling the caller does not undo it.
    Each raises `DeliveryLost` when the channel is gone: the broker then delivers the message again.
    """

    @property
    def message(self) -> Message: ...

    async def ack(self) -> None:
        """It is taken care of: the broker forgets it."""
        ...

    async def requeue(self) -> None:
        """It was not started: back to the queue at once (basic.nack)."""
        ...

    async def fail(self) -> None:
        """It failed without an outcome: back to the queue as a failed delivery (basic.reject)."""
        ...


class Subscription(Protocol):
    """One consumer on one queue."""

    async def cancel(self) -> None:
        """No delivery comes after this returns; those in hand can still be settled."""
        ...

    async def close(self) -> None:
        """After `cancel`: give its channel up; what is still in hand goes back. Idempotent, never raises."""
        ...


class Requester(Protocol):
    """A channel of its own for requests whose replies come back to this process."""

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        """As `Broker.publish`; the request's ``reply_to`` is set to this channel's address."""
        ...

    async def close(self) -> None: ...


class Broker(Protocol):
    """A connection to a broker."""

    @property
    def vhost(self) -> str:
        """Part of every idempotency key."""
        ...

    def now(self) -> float:
        """Seconds since the epoch, on the clock that due times and deadlines are held against."""
        ...

    @property
    def problem(self) -> str | None:
        """Why nothing can be published right now, as far as is known; None while it can."""
        ...

    @property
    def blocked(self) -> bool:
        """Whether the broker takes no messages at the moment (a memory or disk alarm)."""
        ...

    @property
    def reconnects(self) -> int:
        """How often a connection was lost and opened again."""
        ...

    async def open(self) -> None:
        """Connect. Idempotent. A connection that is lost is opened again until `close`, without being asked.

        Raises:
            BrokerUnavailable: no answer within the settings' ``startup_timeout``.
            AccessRefused: login, vhost or permission; trying again would not help.
        """
        ...

    async def close(self) -> None:
        """Disconnect; unsettled deliveries go back to their queues. Idempotent, never raises."""
        ...

    async def declare(self, topology: Topology) -> None:
        """Make sure that everything in `topology` exists, on a channel of its own.

        Raises:
            TopologyMismatch: something exists with other arguments; it names them.
            QueueNotFound: a passive queue does not exist.
        """
        ...

    async def depth(self, queue: str) -> int:
        """How many messages of a queue are ready: those in nobody's hands.

        Raises:
            QueueNotFound: there is no such queue.
        """
        ...

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        """Publish; returns when the broker has confirmed that it is stored (or, not mandatory, routed).

        Raises:
            PublishUnroutable: it is mandatory and no queue takes it; stored nowhere.
            PublishNacked: refused; stored nowhere.
            PublishUnknown: no confirm within `timeout` seconds or the connection was lost.
            BrokerUnavailable: nothing was sent: not connected, and not again within `timeout` either, or the
                broker takes no messages at the moment.
        """
        ...

    async def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        on_lost: Callable[[BrokerError], None],
        arguments: Headers,
    ) -> Subscription:
        """Start a consumer on a channel of its own.

        Args:
            queue: an existing queue.
            on_delivery: called for each delivery; must not block or raise.
            prefetch: the most deliveries in hand at once.
            on_lost: called once when the consumer ended without `Subscription.cancel`.
            arguments: consumer arguments (``x-priority``).

        Raises:
            QueueNotFound: there is no such queue.
            AccessRefused: it is exclusive to somebody else, or not permitted.
        """
        ...

    async def open_requester(
        self, on_reply: Callable[[Message], None], *, on_lost: Callable[[BrokerError], None]
    ) -> Requester:
        """Open a channel for requests; `on_reply` gets each reply, `on_lost` is called once if it ends."""
        ...
