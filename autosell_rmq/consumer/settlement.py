"""The one place that acks: each outcome is published and confirmed first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from autosell_rmq.broker import Broker, Delivery
from autosell_rmq.codec import DeadLetterReason
from autosell_rmq.config import Settings
from autosell_rmq.consumer import publications
from autosell_rmq.consumer.direct_replies import DirectReplies, is_direct
from autosell_rmq.consumer.flow import Flow
from autosell_rmq.consumer.reply_addresses import ReplyAddresses
from autosell_rmq.exceptions import (
    BrokerError,
    ConfigError,
    EncodeError,
    PublishUnroutable,
    QueueNotFound,
)
from autosell_rmq.message import NO_HEADERS, Message, Publication, printable
from autosell_rmq.pipeline import (
    DeadLetter,
    Done,
    Later,
    MessageEvent,
    Observer,
    Outcome,
    Recount,
    Statistics,
    tell,
)
from autosell_rmq.topology import delay_hop, next_hop, way_home

logger = logging.getLogger(__name__)

type OnBuried = Callable[[Message, DeadLetter], Awaitable[None]]


class Settlement:
    """Settles the deliveries of one app.

    A failed publish of an outcome is tried again with back-off, for as long as it takes; meanwhile the
    delivery stays unacked and the `Flow` is held, so that no further handler starts.
    """

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        statistics: Statistics,
        flow: Flow,
        *,
        own_queues: Iterable[str] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        self._broker = broker
        self._settings = settings
        self._statistics = statistics
        self._flow = flow
        self._reply_addresses = ReplyAddresses(own_queues, settings.reply_to_allowed)
        self._direct_replies = DirectReplies(self._publish)
        self._observers = observers
        self._declared: set[tuple[int, str]] = set()  # hops, with the queues that messages come home to

    def forget_declared(self) -> None:
        """A queue was attached again: it may be a new one, without its way home."""
        self._declared.clear()

    async def settle(
        self, delivery: Delivery, message: Message, outcome: Outcome, dlq: str, on_buried: OnBuried
    ) -> None:
        """Publish what the outcome of the delivery's `message` asks for, then ack.

        `on_buried` is awaited between a confirmed dead letter and the error reply.

        Raises:
            DeliveryLost: the broker will deliver the message again.
            asyncio.CancelledError: the delivery is not settled.
        """
        match outcome:
            case Done():
                if message.properties.reply_to:
                    await self._reply(message, outcome)
            case Later():
                if not await self._delay(message, outcome, dlq):
                    return await self.settle(delivery, message, _cannot_copy(outcome), dlq, on_buried)
            case Recount():
                copy = publications.recounted(message, outcome, now=self._broker.now())
                await self._confirmed(
                    copy,
                    lambda: f"the recount of a message of {message.queue!r}",
                    hop=publications.RECOUNT_HOP,
                )
            case DeadLetter():
                await self._bury(message, outcome, dlq)
                await on_buried(message, outcome)
                await self._reply(message, outcome)
        await delivery.ack()
        if self._observers:
            tell(self._observers, MessageEvent(kind="settled", message=message))
        return None

    async def _reply(self, message: Message, outcome: Done | DeadLetter) -> None:
        address = message.reply_to
        if not address:
            return
        if refusal := self._reply_addresses.refusal(address):
            self._statistics.replies_refused += 1
            logger.warning(
                "queue %s: no reply is sent to reply_to=%s: %s", message.queue, printable(address), refusal
            )
            return
        try:
            reply = publications.reply(message, outcome)
            await self._confirmed(reply, lambda: f"a reply to {printable(address)}", is_reply=True)
        except PublishUnroutable:
            self._statistics.replies_lost += 1
            logger.warning(
                "queue %s: nobody waits at reply_to=%s any more (correlation_id=%s)",
                message.queue,
                printable(address),
                printable(message.correlation_id),
            )
        else:
            self._statistics.replies += 1
            if logger.isEnabledFor(logging.INFO):
                to, correlation_id = printable(address), printable(message.correlation_id)
                logger.info("reply sent to %s, correlation_id=%s", to, correlation_id)

    async def _delay(self, message: Message, outcome: Later, dlq: str) -> bool:
        """Copy to the delay line; False where AMQP cannot carry the copy."""
        now = self._broker.now()
        copy = publications.delayed(message, outcome, now=now)
        try:
            await self._confirmed(
                copy, lambda: f"the delay of a message of {message.queue!r}", hop=next_hop(outcome.due - now)
            )
        except EncodeError as error:
            logger.error("queue %s: a message cannot be copied: %s", message.queue, error)  # noqa: TRY400
            return False
        if outcome.why == "retry":
            self._statistics.retried += 1
            logger.info(
                "queue %s: attempt %d in %.1f s, correlation_id=%s",
                message.queue,
                outcome.attempt,
                max(outcome.due - now, 0),
                printable(message.correlation_id),
            )
        return True

    async def _bury(self, message: Message, outcome: DeadLetter, dlq: str) -> None:
        letter = publications.dead_letter(message, outcome, dlq, limit=self._settings.max_body_bytes)

        def what() -> str:
            return f"a dead letter to {dlq!r}"

        try:
            await self._confirmed(letter, what)
        except EncodeError:  # the sender's headers do not fit any more beside the reason
            letter = publications.raw_dead_letter(message, outcome, dlq, headers=NO_HEADERS)
            await self._confirmed(letter, what)
        self._statistics.dead_lettered += 1
        reason = outcome.reason.value
        event = MessageEvent(
            kind="dead_lettered", message=message, attempt=max(outcome.attempts, 1), reason=reason
        )
        tell(self._observers, event)
        logger.warning(
            "queue %s: message moved to %s (%s): %s; correlation_id=%s",
            message.queue,
            dlq,
            reason,
            printable(outcome.detail),
            printable(message.correlation_id),
        )

    async def _confirmed(
        self,
        publication: Publication,
        what: Callable[[], str],
        *,
        hop: int | None = None,
        is_reply: bool = False,
    ) -> None:
        """Publish until it is confirmed; a reply that nobody takes is the caller's to judge.

        `what` it is, for people: asked where it fails.
        """
        wait = self._settings.backoff
        holder = object()  # this very publish: another one's success does not open the gate
        direct = is_reply and is_direct(publication.routing_key)
        publish = self._direct_replies.publish if direct else self._publish
        while True:
            try:
                if hop is not None:
                    await self._declare(hop, publication.routing_key)
                await publish(publication)
            except (BrokerError, ConfigError) as error:
                if is_reply and isinstance(error, PublishUnroutable):
                    self._flow.release(holder)
                    raise
                if hop is not None:
                    self._declared.discard((hop, publication.routing_key))  # it may have been deleted
                self._flow.hold(holder, f"{what()} failed: {error}")
                logger.error("%s failed, the next try is in %.1f s: %s", what(), wait, error)  # noqa: TRY400
                await asyncio.sleep(wait)
                wait = min(wait * 2, self._settings.max_backoff)
            else:
                self._flow.release(holder)
                return

    async def _declare(self, hop: int, home: str) -> None:
        """Make sure that a hop exists, and the way from there to the queue.

        A handler without retries has neither from the start; its busy duplicates, and what is not due yet,
        take them all the same.
        """
        if (hop, home) in self._declared:
            return
        await self._broker.declare(delay_hop(hop))
        try:
            await self._broker.declare(way_home(home))
        except QueueNotFound as error:  # the copy waits for it without a home
            logger.debug("queue %s is gone: %s", home, error)
        else:
            self._declared.add((hop, home))

    async def _publish(self, publication: Publication) -> None:
        await self._broker.publish(publication, timeout=self._settings.publish_timeout)


def _cannot_copy(outcome: Later) -> DeadLetter:
    return DeadLetter(
        reason=DeadLetterReason.UNHANDLED_EXCEPTION,
        detail=outcome.detail or "the message cannot be copied to the delay line",
        attempts=outcome.attempt - 1,
    )
