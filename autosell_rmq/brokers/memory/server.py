"""The server in memory: its queues and exchanges, and the way of a message through them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote

from autosell_rmq.brokers.memory.clock import Clock, SystemClock
from autosell_rmq.brokers.memory.deaths import goes_in_circles
from autosell_rmq.brokers.memory.entities import Entities
from autosell_rmq.brokers.memory.loops import call_on
from autosell_rmq.brokers.memory.queue import MemoryQueue
from autosell_rmq.brokers.memory.wire import over_the_wire
from autosell_rmq.exceptions import (
    BrokerError,
    BrokerUnavailable,
    PublishNacked,
    PublishUnroutable,
    QueueNotFound,
)
from autosell_rmq.message import DIRECT_REPLY_TO, Publication
from autosell_rmq.topology import Topology


class Connection(Protocol):
    """Who may be cut off."""

    def drop(self, error: BrokerError) -> None: ...


class ReplyAddress(Protocol):
    """Who waits for replies."""

    def receive(self, publication: Publication) -> None: ...


class MemoryServer:
    """What a RabbitMQ server keeps, with one vhost. It outlives its connections, not the process.

    Connections may come from several event loops in several threads: `lock` makes one thing happen
    at a time. Its methods are for tests, too: none of them awaits, each takes the lock.
    """

    def __init__(self, name: str = "", vhost: str = "/", *, clock: Clock | None = None) -> None:
        self.name = name
        self.vhost = vhost
        self.clock: Clock = clock or SystemClock()
        self.lock = threading.RLock()
        self.entities = Entities(self)
        self.requesters: dict[str, ReplyAddress] = {}
        self._connections: dict[Connection, asyncio.AbstractEventLoop] = {}
        self._running = True

    @property
    def url(self) -> str:
        """The address of a named server."""
        vhost = "" if self.vhost == "/" else f"/{quote(self.vhost, safe='')}"
        return f"memory://{self.name}{vhost}"

    # --- what a test looks at, and does to it -----------------------------------------------------

    def queue(self, name: str) -> MemoryQueue:
        """Raises `QueueNotFound`."""
        return self.entities.queue(name)

    def declare(self, topology: Topology) -> None:
        """As `Broker.declare`."""
        with self.lock:
            self.entities.declare(topology)

    def delete_queue(self, name: str) -> None:
        """Delete it with its messages; its consumers are told. Deleting none is no error."""
        with self.lock:
            queue = self.entities.remove_queue(name)
            if queue is not None:
                _stop_consumers(queue, QueueNotFound(f"the consumer was cancelled: {name!r} was deleted"))
                queue.close()

    def delete_exchange(self, name: str) -> None:
        """Delete it with its bindings. Deleting none is no error."""
        with self.lock:
            self.entities.exchanges.pop(name, None)

    def close_connections(self) -> None:
        """Cut every connection; what was unacked goes back, and the next call connects again."""
        error = BrokerUnavailable("the connection was closed by the server")
        with self.lock:
            # First every consumer, or what comes back from one would go out to the next.
            for queue in self.entities.queues.values():
                _stop_consumers(queue, error)
            for connection in list(self._connections):
                connection.drop(error)

    def stop(self) -> None:
        """Cut every connection and take no new one; queues and messages stay."""
        with self.lock:
            self._running = False
            self.close_connections()

    def start(self) -> None:
        """Take connections again."""
        self._running = True

    # --- what connections ask for -----------------------------------------------------------------

    def attach(self, connection: Connection) -> None:
        """Let a connection in, once or again.

        Raises:
            BrokerUnavailable: the server is stopped.
        """
        with self.lock:
            if not self._running:
                raise BrokerUnavailable("the server in memory is stopped")
            here = asyncio.get_running_loop()
            if self._connections.get(connection) is here:
                return
            for other, loop in list(self._connections.items()):
                if loop.is_closed():  # nobody closed the connection, but nobody is there any more
                    other.drop(BrokerUnavailable("the event loop was closed"))
            self._connections[connection] = here
            self._wake_queues()

    @property
    def running(self) -> bool:
        """Whether it lets connections in."""
        return self._running

    def detach(self, connection: Connection) -> None:
        """Let it go; its loop may have run timers, which another connection's loop takes over."""
        with self.lock:
            self._connections.pop(connection, None)
            for loop in self._connections.values():
                call_on(loop, self._wake_queues)
                return

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """`Clock.call_later`, under the lock."""

        def call() -> None:
            with self.lock:
                callback()

        self.clock.call_later(max(delay, 0.0), call)

    def _wake_queues(self) -> None:
        with self.lock:
            for queue in list(self.entities.queues.values()):
                queue.wake()

    # --- the way of a message ---------------------------------------------------------------------

    def publish(self, publication: Publication) -> None:
        """Route a message and store it.

        Raises:
            PublishUnroutable: there is no such exchange, or it is mandatory and no queue takes it.
            PublishNacked: a queue is full and refuses it.
            EncodeError: AMQP could not carry it.
        """
        publication = over_the_wire(publication)
        with self.lock:
            if not publication.exchange and publication.routing_key.startswith(f"{DIRECT_REPLY_TO}."):
                self._reply(publication)
                return
            queues = self.entities.route(publication)
            if queues is None:
                raise PublishUnroutable(
                    f"NOT_FOUND - no exchange '{publication.exchange}' in vhost '{self.vhost}'"
                )
            if not queues and publication.mandatory:
                raise _unroutable(publication)
            refused = [queue.name for queue in queues if not queue.offer(publication)]
            if refused:
                raise PublishNacked(f"refused by {', '.join(refused)}: the queue is full (basic.nack)")

    def publish_dead_letter(self, letter: Publication) -> bool:
        """Whether there was a queue for it, and every one took it."""
        headers = letter.properties.headers
        queues = [
            queue for queue in self.entities.route(letter) or [] if not goes_in_circles(headers, queue.name)
        ]
        taken = [queue.offer(letter) for queue in queues]
        return bool(taken) and all(taken)

    def _reply(self, publication: Publication) -> None:
        requester = self.requesters.get(publication.routing_key)
        if requester is not None:
            requester.receive(publication)
        elif publication.mandatory:
            raise _unroutable(publication)


def _stop_consumers(queue: MemoryQueue, error: BrokerError) -> None:
    for consumer in list(queue.consumers):
        consumer.stop(error)


def _unroutable(publication: Publication) -> PublishUnroutable:
    return PublishUnroutable(
        f"NO_ROUTE - no queue takes exchange '{publication.exchange}',"
        f" routing key '{publication.routing_key}'"
    )
