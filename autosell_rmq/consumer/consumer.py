"""One queue's consumer: deliveries in, a task for each, and the drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from autosell_rmq.broker import Broker, Delivery
from autosell_rmq.config import HandlerOptions, Settings
from autosell_rmq.consumer.attachment import Attachment
from autosell_rmq.consumer.flow import Flow
from autosell_rmq.consumer.hand import Hand
from autosell_rmq.consumer.publications import taken_out
from autosell_rmq.consumer.quarantine import Quarantine
from autosell_rmq.consumer.settlement import Settlement
from autosell_rmq.exceptions import BrokerError, ClosedError, DeliveryLost
from autosell_rmq.health import ConsumerHealth
from autosell_rmq.idempotency import Abandoned
from autosell_rmq.message import Message
from autosell_rmq.pipeline import Later, NotStarted, Outcome, Pipeline, unstarted

logger = logging.getLogger(__name__)

_STORE_PAUSE = 1.0  # seconds without new starts after the store did not answer
_CANCELLED_GRACE = 1.0  # seconds for cancelled handlers to end in


class Consumer:
    """Consumes one queue. User code runs in tasks of ours, never inside the client library.

    Attributes:
        attachment: the queue's subscription, lost and found.
        delivered: how many deliveries there have been.
    """

    def __init__(
        self,
        broker: Broker,
        options: HandlerOptions,
        settings: Settings,
        pipeline: Pipeline,
        settlement: Settlement,
        flow: Flow,
        on_attached: Callable[[], None],
        on_given_up: Callable[[Exception], None],
    ) -> None:
        self.options = options
        self.attachment = Attachment(broker, options, settings, self._on_delivery, on_attached, on_given_up)
        self.delivered = 0
        self._quarantine = Quarantine(options, self._change_prefetch)
        self._pipeline = pipeline
        self._settlement = settlement
        self._flow = flow
        self._now = broker.now
        self._last_delivery: float | None = None  # on the broker's clock
        self._last_settled: float | None = None
        self._running: dict[Delivery, float] = {}  # since when, by `monotonic`; the oldest first
        self._draining = False
        self._hand = Hand(self._take)
        self._waiting: set[asyncio.Task[None]] = set()  # those of the hand that have started nothing
        # Handlers of a lost channel run on while the new one delivers: both together are bounded by prefetch.
        self._vacant = asyncio.Event()

    @property
    def in_hand(self) -> int:
        """Deliveries that are not settled."""
        return len(self._hand)

    @property
    def health(self) -> ConsumerHealth:
        """How it is at this moment."""
        problem = self.attachment.problem
        oldest = next(iter(self._running.values()), None)
        return ConsumerHealth(
            queue=self.options.queue,
            attached=problem is None and not self._draining,
            in_hand=self.in_hand,
            last_delivery=_moment(self._last_delivery),
            last_settled=_moment(self._last_settled),
            oldest_running=monotonic() - oldest if oldest is not None else None,
            problem=problem,
        )

    async def start(self) -> None:
        """Declare what the handler needs and begin to consume."""
        options = self.options
        if options.single_active_consumer and options.queue_type == "classic":
            logger.warning(
                "queue %s: single_active_consumer on a classic queue: RabbitMQ 3.10 hands over only when this"
                " process has disconnected; a quorum queue does it at the drain",
                options.queue,
            )
        self._draining = False
        await self.attachment.start()
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
        await self._quarantine.stop()
        await self.attachment.cancel()
        self._give_up_waiting()

    def _give_up_waiting(self) -> None:
        for task in self._waiting:
            task.cancel()

    async def drain(self, deadline: float) -> None:
        """After `cancel`: let handlers finish until `deadline` (loop time), then cancel the rest.

        What is cancelled goes back to the queue. A sync handler cannot be cancelled: its message goes
        back with the channel, while its thread is left behind.
        """
        if not await self._hand.settled(max(deadline - asyncio.get_running_loop().time(), 0)):
            logger.warning(
                "queue %s: %d handlers are still running at the drain deadline; their messages go back",
                self.options.queue,
                self.in_hand,
            )
            self._hand.cancel()
            await self._hand.settled(_CANCELLED_GRACE)
        await self.attachment.close()

    def _on_delivery(self, delivery: Delivery) -> None:
        self.delivered += 1
        self._last_delivery = self._now()
        self._quarantine.came(delivery.message)
        self._hand.put(delivery)

    async def _take(self, delivery: Delivery) -> None:
        """See one delivery to its settlement, whatever happens."""
        try:
            await self._handle(delivery)
            self._quarantine.over()
        except DeliveryLost as error:
            logger.info("queue %s: %s", self.options.queue, error)
        except (Abandoned, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("queue %s: a bug in the settlement; the message goes back", self.options.queue)
            await self._give_back(delivery.fail)

    async def _handle(self, delivery: Delivery) -> None:
        message = taken_out(delivery.message)
        if not (self._has_place or await self._admitted(delivery, message)):
            return
        self._running[delivery] = monotonic()
        try:
            await self._process(delivery, message)
        finally:
            self._running.pop(delivery)
            if self._waiting:
                self._vacant.set()

    async def _process(self, delivery: Delivery, message: Message) -> None:
        try:
            outcome = await self._pipeline.process(message)
            if isinstance(outcome, Later) and outcome.why == "store":
                self._flow.hold_for(_STORE_PAUSE, "the idempotency store does not answer")
            await self._settle(delivery, message, outcome)
            self._last_settled = self._now()
        except Abandoned:
            raise  # its thread still runs: the message goes back when the channel closes
        except NotStarted:
            await self._give_back(delivery.requeue)
        except asyncio.CancelledError:
            await self._give_back(delivery.requeue)
            raise

    def _settle(self, delivery: Delivery, message: Message, outcome: Outcome) -> Coroutine[Any, Any, None]:
        return self._settlement.settle(
            delivery, message, outcome, self.options.dlq, self._pipeline.note_failure
        )

    @property
    def _has_place(self) -> bool:
        """Whether a handler may start at once."""
        return (
            self._flow.is_open
            and len(self._running) < self.options.prefetch
            and not (self._draining or self._quarantine.is_changing)
        )

    async def _admitted(self, delivery: Delivery, message: Message) -> bool:
        """Wait for a place, and at the flow's gate; False where there is none, and the delivery goes back."""
        try:
            if await self._place():
                return True
            back = unstarted(message, self.options) if not self._draining else None
            if back is None:
                await self._give_back(delivery.requeue)
            else:
                await self._settle(delivery, message, back)
                self._last_settled = self._now()
        except asyncio.CancelledError:
            await self._give_back(delivery.requeue)
            raise
        return False

    async def _place(self) -> bool:
        if self._quarantine.is_changing:
            await self._quarantine.detached()
            if self.in_hand > 1:  # alone it may run: nothing else would be counted with it
                return False
        if self._draining:
            return False
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            await self._flow.wait()
            while len(self._running) >= self.options.prefetch:
                self._vacant.clear()
                await self._vacant.wait()
                await self._flow.wait()
        finally:
            self._waiting.discard(task)
        return True

    async def _change_prefetch(self, prefetch: int, detached: Callable[[], None]) -> None:
        async def settled() -> None:
            detached()
            self._give_up_waiting()
            await self._hand.settled()

        await self.attachment.change_prefetch(prefetch, settled)

    async def _give_back(self, settle: Callable[[], Awaitable[None]]) -> None:
        """Best effort: what is lost, or settled after all, needs nothing more."""
        try:
            await settle()
        except (BrokerError, ClosedError) as error:
            logger.debug("queue %s: %s", self.options.queue, error)


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
