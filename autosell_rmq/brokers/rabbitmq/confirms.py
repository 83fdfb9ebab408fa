"""A channel in confirm mode: each publish ends confirmed, refused or unknown, each its own error."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from aiormq import exceptions as amqp
from aiormq.abc import AbstractChannel

from autosell_rmq.brokers.rabbitmq import errors
from autosell_rmq.brokers.rabbitmq.frames import Content, Outgoing, decode_properties, listen
from autosell_rmq.exceptions import (
    BrokerUnavailable,
    PublishError,
    PublishNacked,
    PublishUnknown,
    PublishUnroutable,
)
from autosell_rmq.message import Publication

# After the death of a queue's leader an old channel may refuse for ever what a new one takes; a full queue
# refuses on every channel, so a young one is not blamed.
_POISONED = 3  # refusals in a row
_OLD = 5.0  # seconds


class _Flight:
    """A publish whose confirm is still to come, also after its caller was cancelled."""

    __slots__ = ("deadline", "landed", "message_id", "outcome", "publication", "returned")

    def __init__(
        self, publication: Publication, message_id: str, outcome: asyncio.Future[None], deadline: float
    ) -> None:
        self.publication = publication
        self.message_id = message_id
        self.outcome = outcome
        self.deadline = deadline
        self.returned = False
        self.landed: asyncio.Event | None = None  # where another one waits for it


class ConfirmChannel:
    """A channel that nobody else publishes on.

    After an unknown outcome, or several refusals in a row, it is spent: publish on another one. A caller that
    is cancelled costs its neighbours nothing.

    Args:
        channel: opened with ``publisher_confirms``.
        on_delivered: takes what comes to the channel's consumer, where it has one.
    """

    def __init__(
        self, channel: AbstractChannel, on_delivered: Callable[[Content], None] | None = None
    ) -> None:
        self.channel = channel
        self.spent = False
        self._on_delivered = on_delivered
        self._frames = listen(channel, self)
        self._writer = self._frames.writer
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.time()
        self._closing = channel.is_closed
        self._was_closed = False
        self._nacks = 0  # in a row
        self._published = 0  # RabbitMQ counts, too: a confirm names the number
        self._flights: dict[int, _Flight] = {}
        self._by_id: dict[str, _Flight] = {}
        self._callers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._watched = math.inf  # when it fires
        channel.closing.add_done_callback(self._closed)

    @property
    def usable(self) -> bool:
        return not (self.spent or self._closing or self._writer.is_lost)

    @property
    def ready(self) -> bool:
        """Whether a message would be sent on at once: no alarm, no full buffer."""
        return not (self.spent or self._closing) and self._writer.ready

    @property
    def idle(self) -> bool:
        """Whether nobody waits for a confirm."""
        return not self._callers

    async def until_ready(self) -> None:
        """Wait until the buffer takes more and no alarm lasts, or the connection is lost; unbounded."""
        await self._writer.until_ready()

    async def publish(self, publication: Publication, outgoing: Outgoing, deadline: float) -> None:
        """Publish and wait for the confirm until `deadline`; see `Broker.publish` for what it raises."""
        self._callers += 1
        try:
            if outgoing.message_id in self._by_id:
                await self._until_landed(outgoing.message_id, deadline)
            if not self.usable:
                raise BrokerUnavailable("the channel was closed before the publish")
            await self._send(publication, outgoing, deadline).outcome
        finally:
            self._callers -= 1

    async def close(self) -> None:
        """Close the channel, once, and end what is in flight on it; never raises."""
        self.spent = True
        if self._was_closed:
            return
        self._was_closed = True
        self._writer.flush()
        self._closing = True
        await errors.channel_closed(self.channel)
        self._end_all(None)  # it may not have answered

    def _send(self, publication: Publication, outgoing: Outgoing, deadline: float) -> _Flight:
        # Whatever cannot be encoded fails before it is counted: RabbitMQ counts what it gets.
        frames = outgoing.frames(self.channel.number, self._frames.frame_max)
        flight = _Flight(publication, outgoing.message_id, self._loop.create_future(), deadline)
        self._published += 1
        self._flights[self._published] = flight
        self._by_id[flight.message_id] = flight
        self._writer.write(frames)
        if deadline < self._watched:
            self._watch(deadline)
        return flight

    async def _until_landed(self, message_id: str, deadline: float) -> None:
        """Wait for the one in flight: a returned message is known by its id, so no two have the same."""
        try:
            async with asyncio.timeout_at(deadline):
                while (twin := self._by_id.get(message_id)) is not None:
                    twin.landed = twin.landed or asyncio.Event()
                    await twin.landed.wait()
        except TimeoutError:
            raise BrokerUnavailable(
                f"another message with the id {message_id!r} is not confirmed yet"
            ) from None

    # --- what the channel hears ---------------------------------------------------------------------

    def on_delivered(self, content: Content) -> None:
        if self._on_delivered is not None:
            self._on_delivered(content)

    def on_returned(self, content: Content) -> None:
        flight = self._by_id.get(decode_properties(content.header, []).message_id or "")
        if flight is not None:
            flight.returned = True

    def on_confirmed(self, tag: int, *, multiple: bool, refused: bool) -> None:
        if not multiple:
            self._land(tag, refused=refused)
            return
        confirmed = []
        for each in self._flights:  # ascending
            if each > tag:
                break
            confirmed.append(each)
        for each in confirmed:
            self._land(each, refused=refused)

    def on_closing(self) -> None:
        self._closing = True

    # --- how a publish ends -------------------------------------------------------------------------

    def _land(self, number: int, *, refused: bool) -> None:
        flight = self._flights.pop(number, None)
        if flight is None:  # it was given up
            return
        if refused:
            self._count_refusal()
            self._end(flight, PublishNacked(f"RabbitMQ refused a message to {_where(flight.publication)}"))
        elif flight.returned:
            self._end(flight, PublishUnroutable(_unroutable(flight.publication)))
        else:
            self._nacks = 0
            self._end(flight, None)

    def _end(self, flight: _Flight, error: PublishError | None) -> None:
        self._by_id.pop(flight.message_id, None)
        if flight.landed is not None:
            flight.landed.set()
        if flight.outcome.done():  # its caller was cancelled
            return
        if error is None:
            flight.outcome.set_result(None)
        else:
            flight.outcome.set_exception(error)

    def _count_refusal(self) -> None:
        self._nacks += 1
        if self._nacks >= _POISONED and self._loop.time() - self._opened >= _OLD:
            self.spent = True

    def _watch(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._watched = deadline
        self._timer = self._loop.call_at(deadline, self._sweep)

    def _sweep(self) -> None:
        """Give up what is due: one timer for all, since one for each is dear."""
        self._timer, self._watched = None, math.inf
        now = self._loop.time()
        due = [number for number, flight in self._flights.items() if flight.deadline <= now]
        for number in due:
            self.spent = True
            flight = self._flights.pop(number)
            self._end(flight, PublishUnknown(f"no confirm in time from {_where(flight.publication)}"))
        if self._flights:
            self._watch(min(flight.deadline for flight in self._flights.values()))

    def _closed(self, closing: asyncio.Future[object]) -> None:
        self._closing = True
        self._end_all(None if closing.cancelled() else closing.exception())

    def _end_all(self, error: BaseException | None) -> None:
        flights = list(self._flights.values())
        self._flights.clear()
        for flight in flights:
            self._end(flight, _by_close(flight.publication, error, alone=len(flights) == 1))
        if self._timer is not None:
            self._timer.cancel()


def _by_close(publication: Publication, error: BaseException | None, *, alone: bool) -> PublishError:
    """The channel was closed while the publish waited: by its own fault, or by a neighbour's."""
    text = errors.broker_text(error) if error is not None else "closed"
    if isinstance(error, amqp.ChannelNotFoundEntity) and f"'{publication.exchange}'" in text:
        return PublishUnroutable(f"no such exchange for {_where(publication)}: {text}")
    if alone and isinstance(error, amqp.ChannelPreconditionFailed | amqp.ChannelAccessRefused):
        return PublishNacked(f"RabbitMQ refused a message to {_where(publication)}: {text}")
    return PublishUnknown(f"the channel was closed before the confirm from {_where(publication)}: {text}")


def _unroutable(publication: Publication) -> str:
    if publication.exchange:
        return f"no queue is bound for {_where(publication)}"
    return f"there is no queue {publication.routing_key!r}"


def _where(publication: Publication) -> str:
    if publication.exchange:
        return f"exchange {publication.exchange!r} with routing key {publication.routing_key!r}"
    return f"queue {publication.routing_key!r}"
