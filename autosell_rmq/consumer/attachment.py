"""A queue's subscription, kept: whatever ends it, it is taken up again with back-off."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from autosell_rmq import topology
from autosell_rmq.broker import Broker, Delivery, Subscription
from autosell_rmq.config import HandlerOptions, Settings
from autosell_rmq.exceptions import AutosellRmqError, BrokerError, BrokerUnavailable
from autosell_rmq.message import NO_HEADERS
from autosell_rmq.retry import waits

logger = logging.getLogger(__name__)


class Attachment:
    """Attaches one consumer to its queue, and attaches it again after each loss.

    ::

                 start                 ended by the broker
        detached ──────▶ attached ───────────────────────▶ waiting ──┐
                             ▲                             (back-off) │
                             └──────── declare, consume ◀─────────────┘

    Args:
        on_delivery: gets each delivery; must not block or raise.
        on_attached: called after each attachment.
        on_given_up: called once, when the settings' ``reconnect_timeout`` is over.
    """

    def __init__(
        self,
        broker: Broker,
        options: HandlerOptions,
        settings: Settings,
        on_delivery: Callable[[Delivery], None],
        on_attached: Callable[[], None],
        on_given_up: Callable[[Exception], None],
    ) -> None:
        self._broker = broker
        self._options = options
        self._settings = settings
        self._on_delivery = on_delivery
        self._on_attached = on_attached
        self._on_given_up = on_given_up
        self._prefetch = options.prefetch
        self._attaching = asyncio.Lock()
        self._subscription: Subscription | None = None
        self._again: asyncio.Task[None] | None = None
        self._error: Exception | None = None  # why it is not attached, unless only the prefetch changes
        self._ended = False

    @property
    def problem(self) -> str | None:
        """Why nothing is delivered right now; None while it is attached."""
        return str(self._error) or type(self._error).__name__ if self._error is not None else None

    async def start(self) -> None:
        """Declare what the handler needs, and attach for the first time.

        Raises:
            TopologyMismatch, QueueNotFound, AccessRefused, BrokerUnavailable: it is not tried again.
        """
        self._ended = False
        await self._attach()

    async def cancel(self) -> None:
        """No delivery comes after this; those in hand can still be settled."""
        self._ended = True
        if self._again is not None:
            self._again.cancel()
            await asyncio.gather(self._again, return_exceptions=True)
            self._again = None
        if self._subscription is not None:
            await self._subscription.cancel()

    async def close(self) -> None:
        """After `cancel`: give the channel up; what is still in hand goes back."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    async def recycle(self, why: str) -> None:
        """Give a subscription up that brings nothing, and attach anew. What is in hand goes back."""
        subscription = self._subscription
        if subscription is not None and not self._ended:
            await subscription.cancel()  # from now on its end is no loss
            self._lost(BrokerUnavailable(why))

    async def change_prefetch(self, prefetch: int, settled: Callable[[], Awaitable[None]]) -> None:
        """Attach with another prefetch, once what is in hand is `settled`."""
        self._prefetch = prefetch
        async with self._attaching:  # the first deliveries come before it is done
            subscription = self._subscription
        if subscription is None or not self._holds(subscription):
            return  # the next attachment has it
        await subscription.cancel()
        await settled()
        if self._holds(subscription):
            self._again = asyncio.get_running_loop().create_task(self._attach_again())

    def _holds(self, subscription: Subscription) -> bool:
        return self._subscription is subscription and not self._ended and self._again is None

    async def _attach(self) -> None:
        async with self._attaching:
            await self._consume()

    async def _consume(self) -> None:
        options = self._options
        await self._broker.declare(topology.of_handler(options))
        priority = options.consumer_priority
        early: list[BrokerError] = []
        attached = False

        def on_lost(error: BrokerError) -> None:
            if attached:
                self._lost(error)
            else:
                early.append(error)

        subscription = await self._broker.consume(
            options.queue,
            self._on_delivery,
            prefetch=self._prefetch,
            on_lost=on_lost,
            arguments={"x-priority": priority} if priority is not None else NO_HEADERS,
        )
        if early:
            await subscription.close()
            raise early[0]
        self._subscription, self._again, self._error, attached = subscription, None, None, True
        self._on_attached()

    def _lost(self, error: BrokerError) -> None:
        if self._ended or self._again is not None:
            return
        self._error = error
        logger.error("queue %s: the consumer ended: %s; attaching again", self._options.queue, error)
        self._again = asyncio.get_running_loop().create_task(self._attach_again())

    async def _attach_again(self) -> None:
        patience = self._settings.reconnect_timeout
        patient = asyncio.timeout(patience)
        try:
            async with patient:
                await self._until_attached()
        except TimeoutError:
            if not patient.expired():
                raise
            logger.error(  # noqa: TRY400
                "queue %s: given up after %g s without a consumer", self._options.queue, patience
            )
            self._on_given_up(self._error or BrokerUnavailable("no connection for a new prefetch"))

    async def _until_attached(self) -> None:
        loop = asyncio.get_running_loop()
        lost_at = loop.time()
        await self.close()  # where the channel is left, it would hold what is in hand
        refusals = waits(self._settings.backoff, self._settings.max_backoff)
        while True:
            # For the connection the broker waits, with a back-off of its own: ours would come on top of it.
            away = self._error is None or isinstance(self._error, BrokerUnavailable)
            await asyncio.sleep(self._settings.backoff * random.uniform(0.5, 1.0) if away else next(refusals))
            try:
                await self._attach()
            except Exception as refused:
                before, self._error = self.problem, refused
                if self.problem != before:  # once for each reason, not for each attempt
                    bug = not isinstance(refused, AutosellRmqError)
                    logger.error(  # noqa: TRY400
                        "queue %s: still without a consumer: %s",
                        self._options.queue,
                        self.problem,
                        exc_info=bug,
                    )
            else:
                seconds = loop.time() - lost_at
                logger.info("queue %s: consuming again, after %.1f s", self._options.queue, seconds)
                return
