"""A broker in memory that behaves as RabbitMQ: for tests, and for the first steps without a server."""

from autosell_rmq.brokers.memory.broker import MemoryBroker
from autosell_rmq.brokers.memory.clock import Clock, SystemClock, VirtualClock
from autosell_rmq.brokers.memory.queue import MemoryQueue
from autosell_rmq.brokers.memory.registry import named_server
from autosell_rmq.brokers.memory.server import MemoryServer

__all__ = [
    "Clock",
    "MemoryBroker",
    "MemoryQueue",
    "MemoryServer",
    "SystemClock",
    "VirtualClock",
    "named_server",
]
