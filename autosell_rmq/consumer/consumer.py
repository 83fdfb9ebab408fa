"""One queue's consumer: deliveries in, a task for each, and the drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from autosell_rmq import topology
from autosell_rmq.broker import Broker, Delivery, Subscription
from autosell_rmq.config import HandlerOptions
from autosell_rmq.consumer.flow import Flow
from autosell_rmq.consumer.publications import taken_out
from autosell_rmq.consumer.settlement import Settlement
from autosell_rmq.exceptions import BrokerError, ClosedError, DeliveryLost
from autosell_rmq.idempotency import Abandoned
from autosell_rmq.message import NO_HEADERS
from autosell_rmq.pipeline import Later, NotStarted, Pipeline

logger = logging.getLogger(__name__)

_STORE_PAUSE = 1.0  # seconds without new starts after the store did not answer
_CANCELLED_GRACE = 1.0  # seconds for cancelled handlers to end in


class Consumer:
    """Consumes one queue. User code runs in tasks of ours, never inside the client library."""

    def __init__(
        self,
        broker: Broker,
        options: HandlerOptions,
        pipeline: Pipeline,
        settlement: Settlement,
        flow: Flow,
        on_lost: Callable[[BrokerError], None],
    ) -> None:
        self.options = options
        self._broker = broker
        self._pipeline = pipeline
        self._settlement = settlement
        self._flow = flow
        self._on_lost = on_lost
        self._subscription: Subscription | None = None
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()  # those of `_tasks` that have started nothing

    @property
    def in_hand(self) -> int:
        """Deliveries that are not settled."""
        return len(self._tasks)

    async def start(self) -> None:
        """Declare what the handler needs and begin to consume."""
        options = self.options
        await self._broker.declare(topology.of_handler(options))
        if options.single_active_consumer and options.queue_type == "classic":
            logger.warning(
                "queue %s: single_active_consumer on a classic queue: RabbitMQ 3.10 hands over only when this"
                " process has disconnected; a quorum queue does it at the drain",
                options.queue,
            )
        priority = options.consumer_priority
        self._draining = False
        self._subscription = await self._broker.consume(
            options.queue,
            self._on_delivery,
            prefetch=options.prefetch,
            on_lost=self._lost,
            arguments={"x-priority": priority} if priority is not None else NO_HEADERS,
        )
        logger.info(
            "consuming queue %s (dlq %s, prefetch %d, max_retries %d)",
            options.queue,
            options.dlq,
            options.prefetch,
            options.max_retries,
        )

    async def cancel(self) -> None:
        """Stop the deliveries, and give back what no handler has started on."""
        self._draining = True
        if self._subscription is not None:
            await self._subscription.cancel()
        for task in self._waiting:
            task.cancel()

    async def drain(self, deadline: float) -> None:
        """After `cancel`: let handlers finish until `deadline` (loop time), then cancel the rest.

        What is cancelled goes back to the queue. A sync handler cannot be cancelled: its message goes
        back with the channel, while its thread is left behind.
        """
        if self._tasks:
            left = max(deadline - asyncio.get_running_loop().time(), 0)
            await asyncio.wait(self._tasks, timeout=left)
        if self._tasks:
            logger.warning(
                "queue %s: %d handlers are still running at the drain deadline; their messages go back",
                self.options.queue,
                len(self._tasks),
            )
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=_CANCELLED_GRACE)
        if self._subscription is not None:
            await self._subscription.close()
            self._subscription = None

    def _on_delivery(self, delivery: Delivery) -> None:
        task = asyncio.get_running_loop().create_task(self._take(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, delivery: Delivery) -> None:
        """See one delivery to its settlement, whatever happens."""
        try:
            await self._handle(delivery)
        except DeliveryLost as error:
            logger.info("queue %s: %s", self.options.queue, error)
        except (Abandoned, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("queue %s: a bug in the settlement; the message goes back", self.options.queue)
            await self._give_back(delivery.fail)

    async def _handle(self, delivery: Delivery) -> None:
        message = taken_out(delivery.message)
        try:
            await self._admitted()
            outcome = await self._pipeline.process(message)
        except Abandoned:
            raise  # its thread still runs: the message goes back when the channel closes
        except NotStarted:
            await self._give_back(delivery.requeue)
            return
        except asyncio.CancelledError:
            await self._give_back(delivery.requeue)
            raise
        if isinstance(outcome, Later) and outcome.why == "store":
            self._flow.hold_for(_STORE_PAUSE, "the idempotency store does not answer")
        try:
            await self._settlement.settle(delivery, message, outcome, self.options.dlq)
        except asyncio.CancelledError:
            await self._give_back(delivery.requeue)
            raise

    async def _admitted(self) -> None:
        """Wait at the flow's gate; a delivery that comes during the drain does not pass."""
        task = asyncio.current_task()
        assert task is not None
        if self._draining:
            raise NotStarted
        if self._flow.is_open:
            return
        self._waiting.add(task)
        try:
            await self._flow.wait()
        finally:
            self._waiting.discard(task)

    async def _give_back(self, settle: Callable[[], Awaitable[None]]) -> None:
        """Best effort: what is lost, or settled after all, needs nothing more."""
        try:
            await settle()
        except (BrokerError, ClosedError) as error:
            logger.debug("queue %s: %s", self.options.queue, error)

    def _lost(self, error: BrokerError) -> None:
        logger.error("queue %s: the consumer ended: %s", self.options.queue, error)
        self._on_lost(error)
