"""Three RabbitMQ nodes of a test's own, clustered on loopback, to be killed one by one."""

from __future__ import annotations

import socket
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from tests.support.private_broker import PrivateBroker, private_broker


class PrivateCluster:
    """The nodes of one cluster. Everything blocks: await it by `asyncio.to_thread`."""

    def __init__(self, nodes: list[PrivateBroker]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """One address with every node in it."""
        return "amqp://guest:guest@{}/".format(",".join(f"127.0.0.1:{node.port}" for node in self.nodes))

    def join(self) -> None:
        """Make one cluster of them: one after the other, for joining is not safe at once."""
        first, *others = self.nodes
        for node in others:
            for step in (("stop_app",), ("reset",), ("join_cluster", first.name), ("start_app",)):
                node.ctl(*step)

    def start_missing(self) -> None:
        """Start the nodes that are down: at once, for without a majority none comes up."""
        missing = [node for node in self.nodes if not is_running(node)]
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(PrivateBroker.start, missing))

    def home(self, queue: str) -> PrivateBroker:
        """The node where a quorum queue's leader is, or a classic queue lives."""
        node = next(filter(is_running, self.nodes))
        # As JSON, a process's id does not name its node.
        rows = node.ctl("list_queues", "--no-table-headers", "name", "pid").splitlines()
        [pid] = [row.split("\t")[1] for row in rows if row.split("\t")[0] == queue]
        [home] = [each for each in self.nodes if each.name in pid]
        return home


def is_running(node: PrivateBroker) -> bool:
    try:
        socket.create_connection(("127.0.0.1", node.port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def private_cluster() -> Generator[PrivateCluster]:
    """A running cluster, gone at the end. Without RabbitMQ installed as `private_broker`."""
    with ExitStack() as stack:
        cluster = PrivateCluster([stack.enter_context(private_broker()) for _ in range(3)])
        cluster.join()
        yield cluster
