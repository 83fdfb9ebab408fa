"""What exists on a server: exchanges, queues and bindings, declared once and found by name."""

from __future__ import annotations

from autosell_rmq.brokers.memory.arguments import (
    ALTERNATE,
    refuse_inequivalent,
    refuse_invalid,
    refuse_other_alternate,
)
from autosell_rmq.brokers.memory.exchange import TYPES, Binding, MemoryExchange
from autosell_rmq.brokers.memory.queue import MemoryQueue, Server
from autosell_rmq.brokers.memory.wire import table
from autosell_rmq.exceptions import AccessRefused, QueueNotFound, TopologyMismatch
from autosell_rmq.message import Publication
from autosell_rmq.topology import Exchange, Queue, QueueBinding, Topology

_PREDECLARED = {f"amq.{type_}": type_ for type_ in TYPES} | {"amq.match": "headers"}


class Entities:
    """The names of one vhost, and what they stand for."""

    def __init__(self, server: Server) -> None:
        self.queues: dict[str, MemoryQueue] = {}
        self.exchanges = {name: MemoryExchange(name, type_) for name, type_ in _PREDECLARED.items()}
        self._server = server

    def queue(self, name: str) -> MemoryQueue:
        """Raises `QueueNotFound`."""
        try:
            return self.queues[name]
        except KeyError:
            raise QueueNotFound(f"NOT_FOUND - no queue '{name}' in vhost '{self._server.vhost}'") from None

    def remove_queue(self, name: str) -> MemoryQueue | None:
        """Take a queue and its bindings away; return what it was."""
        for exchange in self.exchanges.values():
            exchange.unbind(name)
        return self.queues.pop(name, None)

    def declare(self, topology: Topology) -> None:
        """As `Broker.declare`."""
        for exchange in topology.exchanges:
            self._declare_exchange(exchange)
        for queue in topology.queues:
            self._declare_queue(queue)
        for binding in topology.bindings:
            self._bind(binding)

    def route(self, publication: Publication) -> list[MemoryQueue] | None:
        """The queues that get it; None where there is no such exchange."""
        if not publication.exchange:
            queue = self.queues.get(publication.routing_key)
            return [queue] if queue is not None else []
        exchange = self.exchanges.get(publication.exchange)
        if exchange is None:
            return None
        names: list[str] = []
        tried: set[str] = set()
        while exchange is not None and not names and exchange.name not in tried:
            tried.add(exchange.name)
            names = exchange.route(publication.routing_key, publication.properties.headers)
            exchange = self.exchanges.get(str(exchange.arguments.get(ALTERNATE, "")))
        return [self.queues[name] for name in names]

    def _declare_exchange(self, exchange: Exchange) -> None:
        if exchange.type not in TYPES:
            raise TopologyMismatch(f"COMMAND_INVALID - unknown exchange type '{exchange.type}'")
        arguments = table(exchange.arguments)
        new = MemoryExchange(exchange.name, exchange.type, arguments)
        current = self.exchanges.setdefault(exchange.name, new)
        if current.type != exchange.type:
            raise TopologyMismatch(
                f"PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{exchange.name}' in vhost"
                f" '{self._server.vhost}': received '{exchange.type}' but current is '{current.type}'"
            )
        refuse_other_alternate(exchange.name, self._server.vhost, current.arguments, arguments)

    def _declare_queue(self, queue: Queue) -> None:
        if queue.passive:
            self.queue(queue.name)
            return
        arguments = table(queue.arguments)
        current = self.queues.get(queue.name)
        if current is not None:
            refuse_inequivalent(queue.name, self._server.vhost, current.arguments, arguments)
        else:
            refuse_invalid(queue.name, self._server.vhost, arguments)
            self.queues[queue.name] = MemoryQueue(queue.name, arguments, self._server)

    def _bind(self, binding: QueueBinding) -> None:
        self.queue(binding.queue)
        if not binding.exchange:
            raise AccessRefused("ACCESS_REFUSED - operation not permitted on the default exchange")
        exchange = self.exchanges.get(binding.exchange)
        if exchange is None:
            raise QueueNotFound(
                f"NOT_FOUND - no exchange '{binding.exchange}' in vhost '{self._server.vhost}'"
            )
        exchange.bind(
            Binding(queue=binding.queue, routing_key=binding.routing_key, arguments=table(binding.arguments))
        )
