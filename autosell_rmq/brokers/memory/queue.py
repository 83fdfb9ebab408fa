"""One queue: what waits, what is in hand, what expires, and which consumer is next."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from threading import RLock
from typing import Final, Protocol

from autosell_rmq.brokers.memory import deaths
from autosell_rmq.brokers.memory.clock import Clock
from autosell_rmq.brokers.memory.wire import table
from autosell_rmq.exceptions import BrokerError
from autosell_rmq.message import Headers, Message, Publication

# How long RabbitMQ waits before it sends a dead letter again that must arrive (at-least-once) and did not.
DEAD_LETTER_RETRY: Final = 180.0  # seconds


class Consumer(Protocol):
    """Whom a queue hands its messages to."""

    @property
    def priority(self) -> int: ...

    @property
    def is_ready(self) -> bool: ...

    def assign(self, entry: Entry) -> None: ...

    def stop(self, error: BrokerError) -> None: ...


class Server(Protocol):
    """What a queue needs of the server that it is on."""

    @property
    def vhost(self) -> str: ...

    @property
    def lock(self) -> RLock: ...

    @property
    def clock(self) -> Clock: ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> None: ...

    def publish_dead_letter(self, letter: Publication) -> bool: ...


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A message in a queue. Its position is its own for good: given back, it stands where it stood."""

    position: tuple[int, int]  # (-priority, arrival)
    publication: Publication = field(compare=False)
    expires_at: float | None = field(compare=False)
    returns: int = field(default=0, compare=False)
    redelivered: bool = field(default=False, compare=False)


class MemoryQueue:
    """A queue of a `MemoryServer`. Tests read it; only the server and its consumers change it."""

    def __init__(self, name: str, arguments: Headers, server: Server) -> None:
        self.name = name
        self.arguments = arguments
        self.lock = server.lock
        self.consumers: list[Consumer] = []
        self._server = server
        self._counts = arguments.get("x-queue-type") == "quorum"
        self._single = arguments.get("x-single-active-consumer") is True
        self._ready: list[Entry] = []
        self._in_hand: set[Entry] = set()
        self._homeless: list[tuple[Entry, deaths.Reason]] = []
        self._arrivals = itertools.count()
        self._timer_at: float | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """What waits, in the order of delivery."""
        with self.lock:
            return tuple(self.message(entry) for entry in sorted(self._ready))

    @property
    def depth(self) -> int:
        """How many messages wait, dead letters included that found no queue yet."""
        return len(self._ready) + len(self._homeless)

    @property
    def unacked(self) -> int:
        """How many are in consumers' hands."""
        return len(self._in_hand)

    def message(self, entry: Entry) -> Message:
        """A message as a consumer gets it; its headers are the consumer's own."""
        publication = entry.publication
        headers = table(publication.properties.headers)
        if self._counts and entry.returns:
            headers["x-delivery-count"] = entry.returns
        return Message(
            queue=self.name,
            body=publication.body,
            exchange=publication.exchange,
            routing_key=publication.routing_key,
            properties=replace(publication.properties, headers=headers),
            redelivered=entry.redelivered,
            delivery_count=entry.returns if self._counts and entry.redelivered else None,
        )

    def offer(self, publication: Publication) -> bool:
        """Take a message in; False when the queue is full and refuses it."""
        limit = self._number("x-max-length")
        entry = self._entry(publication)
        overflow = str(self.arguments.get("x-overflow", "drop-head"))
        if limit is not None and len(self._ready) >= limit and overflow != "drop-head":
            if overflow == "reject-publish-dlx":
                self._bury(entry, "maxlen")
            return False
        heappush(self._ready, entry)
        self.dispatch()
        while limit is not None and len(self._ready) > limit:
            self._bury(heappop(self._ready), "maxlen")
        return True

    def dispatch(self) -> None:
        """Bury what expired at the head, hand out the rest as far as the consumers' prefetch goes."""
        while (entry := self._head()) and (consumer := self._next_consumer()):
            heappop(self._ready)
            self._in_hand.add(entry)
            consumer.assign(entry)
            if not self._single:  # round-robin
                self.consumers.remove(consumer)
                self.consumers.append(consumer)
        if entry is not None and entry.expires_at is not None:
            self._wake_at(entry.expires_at)

    def forget(self, entry: Entry) -> None:
        """It was acked."""
        self._in_hand.discard(entry)
        self.dispatch()

    def give_back(self, entry: Entry) -> None:
        """It was rejected, or its channel is gone. RabbitMQ before 4.3 counts every such return."""
        if entry not in self._in_hand:
            return  # the queue was purged of it or deleted
        self._in_hand.remove(entry)
        entry = replace(entry, returns=entry.returns + 1, redelivered=True)
        limit = self._number("x-delivery-limit")
        if limit is not None and entry.returns > limit:
            self._bury(entry, "delivery_limit")
        else:
            heappush(self._ready, entry)
        self.dispatch()

    def take_back(self, entry: Entry) -> None:
        """It was assigned to a consumer that ended before it saw it."""
        self._in_hand.remove(entry)
        heappush(self._ready, entry)

    def purge(self) -> int:
        """Drop what waits, not what is in hand; return how many that were."""
        with self.lock:
            dropped = len(self._ready)
            self._ready.clear()
            return dropped

    def close(self) -> None:
        """The queue was deleted, with everything in it."""
        self._ready.clear()
        self._in_hand.clear()
        self._homeless.clear()

    def wake(self) -> None:
        """Set the timers anew, on the loop that runs now."""
        self._bury_homeless()
        self._tick()

    def _number(self, argument: str) -> int | None:
        value = self.arguments.get(argument)
        return value if isinstance(value, int) else None

    def _entry(self, publication: Publication) -> Entry:
        highest = self._number("x-max-priority")
        priority = min(publication.properties.priority or 0, highest) if highest is not None else 0
        ttl, own = self._number("x-message-ttl"), publication.properties.expiration
        lives = min(seconds for seconds in (ttl and ttl / 1000, own, float("inf")) if seconds is not None)
        return Entry(
            position=(-priority, next(self._arrivals)),
            publication=publication,
            expires_at=self._server.clock.now() + lives if lives != float("inf") else None,
        )

    def _head(self) -> Entry | None:
        """The message to deliver next. As in RabbitMQ nothing expires behind one that has not expired."""
        while self._ready:
            expires_at = self._ready[0].expires_at
            if expires_at is None or expires_at > self._server.clock.now():
                return self._ready[0]
            self._bury(heappop(self._ready), "expired")
        return None

    def _next_consumer(self) -> Consumer | None:
        candidates = self.consumers[:1] if self._single else self.consumers
        return max(
            (consumer for consumer in candidates if consumer.is_ready),
            key=lambda consumer: consumer.priority,
            default=None,
        )

    def _wake_at(self, moment: float) -> None:
        now = self._server.clock.now()
        # A timer before that moment will look again: one is enough. One in the past was lost with its loop.
        if self._timer_at is None or not now <= self._timer_at <= moment:
            self._timer_at = moment
            self._server.call_later(moment - now, self._tick)

    def _tick(self) -> None:
        self._timer_at = None
        self.dispatch()

    def _bury(self, entry: Entry, reason: deaths.Reason) -> None:
        exchange = self.arguments.get("x-dead-letter-exchange")
        if exchange is None:
            return
        key = self.arguments.get("x-dead-letter-routing-key")
        letter = deaths.dead_letter(
            entry.publication,
            queue=self.name,
            reason=reason,
            now=self._server.clock.now(),
            exchange=str(exchange),
            routing_key=str(key) if key is not None else None,
        )
        stored = self._server.publish_dead_letter(letter)
        if not stored and self.arguments.get("x-dead-letter-strategy") == "at-least-once":
            self._homeless.append((entry, reason))
            self._server.call_later(DEAD_LETTER_RETRY, self._bury_homeless)

    def _bury_homeless(self) -> None:
        homeless, self._homeless = self._homeless, []
        for entry, reason in homeless:
            self._bury(entry, reason)
