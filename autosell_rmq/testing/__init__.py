"""For tests: an app on a broker in memory; a server, a clock to move, faults, borrowed threads.

::

    def test_order_is_created() -> None:
        with RabbitMQTester(rmq) as broker, TestClient(app) as client:
            client.post("/orders", json={"item": "lamp"})
            assert broker.sent[0].data == {"item": "lamp"}
"""

from autosell_rmq.brokers.memory import MemoryBroker, MemoryQueue, MemoryServer, VirtualClock
from autosell_rmq.message import Publication
from autosell_rmq.testing.base_tester import PATIENCE, BaseTester
from autosell_rmq.testing.borrowed_threads import BorrowedThreads
from autosell_rmq.testing.faults import Crash, Faults, Hold, Point, cancel_caller
from autosell_rmq.testing.faulty_broker import FaultyBroker
from autosell_rmq.testing.faulty_store import FaultyStore
from autosell_rmq.testing.letters import DeadLetter, Failure, SentMessage
from autosell_rmq.testing.memory import memory_server
from autosell_rmq.testing.tester import RabbitMQTester
from autosell_rmq.topology import Topology

__all__ = [
    "PATIENCE",
    "BaseTester",
    "BorrowedThreads",
    "Crash",
    "DeadLetter",
    "Failure",
    "Faults",
    "FaultyBroker",
    "FaultyStore",
    "Hold",
    "MemoryBroker",
    "MemoryQueue",
    "MemoryServer",
    "Point",
    "Publication",
    "RabbitMQTester",
    "SentMessage",
    "Topology",
    "VirtualClock",
    "cancel_caller",
    "memory_server",
]
