"""For tests: a server in memory, a clock to move, faults at every await of the seams, borrowed threads.

::

    async def test_order_is_created() -> None:
        with memory_server() as server:
            async with RabbitMQ(server.url) as rmq:
                ...
            assert server.queue("orders_dlq").depth == 0
"""

from autosell_rmq.brokers.memory import MemoryBroker, MemoryQueue, MemoryServer, VirtualClock
from autosell_rmq.message import Publication
from autosell_rmq.testing.borrowed_threads import BorrowedThreads
from autosell_rmq.testing.faults import Crash, Faults, Hold, Point, cancel_caller
from autosell_rmq.testing.faulty_broker import FaultyBroker
from autosell_rmq.testing.faulty_store import FaultyStore
from autosell_rmq.testing.memory import memory_server
from autosell_rmq.topology import Topology

__all__ = [
    "BorrowedThreads",
    "Crash",
    "Faults",
    "FaultyBroker",
    "FaultyStore",
    "Hold",
    "MemoryBroker",
    "MemoryQueue",
    "MemoryServer",
    "Point",
    "Publication",
    "Topology",
    "VirtualClock",
    "cancel_caller",
    "memory_server",
]
