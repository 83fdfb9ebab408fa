"""Messages that the delay line found no home for: brought home once their queue is there again.

They lie in one queue, those of all services, each under the routing key that names its home. Who attaches to
a queue looks through it once, from the head. What has a home now is published there, confirmed, and acked.
What has none is put behind the last one in the same way, with a mark; the first message that comes with the
mark of this look ends it. So foreign messages neither hide ours nor fill the prefetch, each is moved once,
and no count of the broker's has to be exact. What comes in meanwhile has a look of its own: that of its
home.

The broker hands the queue to one consumer at a time. An app that comes second gets its turn after the first,
and with it what the first had put back. A crash in between leaves a message twice, under the same ids, and
loses none.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace

from autosell_rmq.broker import Broker, Delivery
from autosell_rmq.config import HOMELESS, Settings, of_delay_line
from autosell_rmq.exceptions import (
    AccessRefused,
    AutosellRmqError,
    BrokerError,
    BrokerUnavailable,
    ClosedError,
    EncodeError,
    PublishNacked,
    PublishUnknown,
    PublishUnroutable,
    QueueNotFound,
)
from autosell_rmq.ids import new_id
from autosell_rmq.message import DIRECT_REPLY_TO, NO_HEADERS, Message, Publication, printable
from autosell_rmq.retry import waits

logger = logging.getLogger(__name__)

_LOOK = "x-autosell-look"  # the header of a message without a home: the look that has seen it
# The counts are of the queue that it leaves. CC names other queues, and one of them would pass for the home.
_LEFT_BEHIND = frozenset({_LOOK, "x-delivery-count", "x-acquired-count", "CC", "BCC"})
_PREFETCH = 100
_QUIET = 1.0  # seconds without a delivery: nothing is left, or it is another app's turn
_TURN = 60.0  # seconds to wait for one's turn; then one comes again
_MOST_IN_VAIN = 10  # looks, one after the other
_GRACE = 1.0  # seconds for a stop to wait for the confirms that are on their way
_NAMED = 5  # queues in a line of the log


class Homecoming:
    """Looks whenever it is asked to, in the background, until it was once through the queue."""

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self._broker = broker
        self._settings = settings
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Ask for a look: a queue is there, perhaps again."""
        self._wanted.set()

    def start(self) -> None:
        """Begin with what was asked for so far."""
        self._task = asyncio.create_task(self._run(), name="homecoming")

    async def stop(self) -> None:
        """End at once: what is in hand goes back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._until_through()
            except Exception:
                logger.exception("a bug at the homecoming of messages; they stay in %s", HOMELESS)

    async def _until_through(self) -> None:
        problem, vain = "", 0
        for wait in waits(self._settings.backoff, self._settings.max_backoff):
            look = _Look(self._broker, self._settings.publish_timeout)
            try:
                if await self._is_through(look):
                    return
            except (AccessRefused, ClosedError) as error:  # another attempt would not help
                logger.warning("messages may stay in %s: %s", HOMELESS, error)
                return
            except AutosellRmqError as error:
                if str(error) != problem:  # once for each reason, not for each attempt
                    problem = str(error)
                    logger.warning("%s is looked through again later: %s", HOMELESS, error)
            vain = 0 if look.brought_home else vain + 1
            if vain == _MOST_IN_VAIN:  # each moves every message, and may cost others their channel
                logger.warning("messages may stay in %s: nothing came home in %d looks", HOMELESS, vain)
                return
            await asyncio.sleep(wait)

    async def _is_through(self, look: _Look) -> bool:
        """Look through the queue; False where it is to be done again."""
        try:
            if not await self._broker.depth(HOMELESS):
                return True
        except QueueNotFound:  # no delay line, nothing that came from it
            return True
        try:
            await look.through()
        finally:
            look.log_home()
        look.log_away()
        return not look.refused


class _Look:
    """One look through the queue of messages without a home.

    Attributes:
        refused: whether a home was there and did not take its message: it is full, or did not confirm it.
    """

    def __init__(self, broker: Broker, timeout: float) -> None:
        self.refused = False
        self._broker = broker
        self._timeout = timeout
        self._id = new_id()
        self._inbox: asyncio.Queue[Delivery | BrokerError] = asyncio.Queue()
        self._kept = 0  # those that cannot be copied
        self._home: Counter[str] = Counter()
        self._away: Counter[str] = Counter()
        self._gone: set[str] = set()

    @property
    def brought_home(self) -> bool:
        """Whether there was anything whose home took it."""
        return bool(self._home)

    async def through(self) -> None:
        """Look once at each message that is there."""
        subscription = await self._broker.consume(
            HOMELESS,
            self._inbox.put_nowait,
            prefetch=_PREFETCH,
            on_lost=self._inbox.put_nowait,
            arguments=NO_HEADERS,
        )
        try:
            while batch := await self._next_batch():
                fresh = [delivery for delivery in batch if delivery.message.headers.get(_LOOK) != self._id]
                await self._settle_all(fresh)
                if len(fresh) < len(batch):
                    return
        finally:
            await subscription.close()  # what is not settled goes back

    def log_home(self) -> None:
        """Say what has come home, also where the look was cut off."""
        for queue, count in self._home.items():
            logger.info("%d messages came home from %s to %r", count, HOMELESS, printable(queue))

    def log_away(self) -> None:
        """Say what has not."""
        if self._away:
            first = ", ".join(printable(repr(queue), 100) for queue in list(self._away)[:_NAMED])
            more = " …" if len(self._away) > _NAMED else ""
            logger.warning(
                "%d messages stay in %s: their queues are gone, or take none: %s%s",
                self._away.total(),
                HOMELESS,
                first,
                more,
            )

    async def _next_batch(self) -> list[Delivery]:
        """What has been delivered; nothing where nothing more will be."""
        clock = asyncio.get_running_loop().time
        give_up = clock() + _TURN
        while not (first := await self._first()):
            is_empty = not await self._broker.depth(HOMELESS) and self._inbox.empty()
            if is_empty or self._kept >= _PREFETCH:
                return []
            if clock() >= give_up:
                raise BrokerUnavailable("nothing is delivered: another consumer has the queue")
        batch = [first]
        while not self._inbox.empty():
            batch.append(self._got(self._inbox.get_nowait()))
        return batch

    async def _first(self) -> Delivery | None:
        try:
            async with asyncio.timeout(_QUIET):
                return self._got(await self._inbox.get())
        except TimeoutError:
            return None

    def _got(self, one: Delivery | BrokerError) -> Delivery:
        if isinstance(one, BrokerError):
            raise one
        return one

    async def _settle_all(self, deliveries: list[Delivery]) -> None:
        """All at once. One that fails, or a stop, does not leave its neighbours published and not acked."""
        settling = [asyncio.create_task(self._settle(delivery)) for delivery in deliveries]
        if not settling:
            return
        try:
            await asyncio.wait(settling)
        except asyncio.CancelledError:
            await asyncio.wait(settling, timeout=_GRACE)
            raise
        finally:
            for task in settling:
                task.cancel()
            results = await asyncio.gather(*settling, return_exceptions=True)
        for result in results:
            if result is not None:
                raise result

    async def _settle(self, delivery: Delivery) -> None:
        """Publish, confirmed, then ack."""
        home = delivery.message.routing_key
        try:
            has_home = await self._moved(delivery.message)
        except EncodeError as error:
            logger.warning("a message for %r cannot leave %s: %s", printable(home), HOMELESS, error)
            self._kept += 1  # in our hands, until the look is over
            self._away[home] += 1
            return
        (self._home if has_home else self._away)[home] += 1
        await delivery.ack()

    async def _moved(self, message: Message) -> bool:
        """Home, or behind the others; whether home."""
        if message.malformed is not None:
            raise EncodeError(message.malformed)
        if await self._comes_home(message):
            return True
        await self._publish(_copy(message, exchange=HOMELESS, look=self._id))
        return False

    async def _comes_home(self, message: Message) -> bool:
        home = message.routing_key
        # A stranger's message may name anything: what is no home takes none.
        if home in self._gone or of_delay_line(home) or home.startswith(DIRECT_REPLY_TO):
            return False
        try:
            await self._publish(_copy(message))
        except PublishUnroutable:
            self._gone.add(home)
        except (PublishNacked, PublishUnknown):
            self._gone.add(home)
            self.refused = True
        else:
            return True
        return False

    async def _publish(self, publication: Publication) -> None:
        await self._broker.publish(publication, timeout=self._timeout)


def _copy(message: Message, *, exchange: str = "", look: str | None = None) -> Publication:
    """The message as it came; RabbitMQ refuses a `user_id` that is not this connection's login."""
    headers = {name: value for name, value in message.headers.items() if name not in _LEFT_BEHIND}
    if look is not None:
        headers[_LOOK] = look
    return Publication(
        body=message.body,
        exchange=exchange,
        routing_key=message.routing_key,
        properties=replace(message.properties, headers=headers, user_id=None),
    )
