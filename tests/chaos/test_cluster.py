"""Three nodes: one dies, two die, and a queue that lives on one of them alone."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.chaos.ledger import TYPED
from tests.chaos.load import load
from tests.chaos.processes import problem
from tests.chaos.report import Row
from tests.chaos.worlds import ExactlyOnce, Leased
from tests.support.private_cluster import PrivateCluster, is_running
from tests.support.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.rabbitmq, pytest.mark.timeout(400)]

FAILOVER = 5.0  # seconds


@pytest.fixture
async def cluster_queue(cluster: PrivateCluster, exactly_once: ExactlyOnce) -> ExactlyOnce:
    """The exactly-once world on the cluster, every node of it up."""
    await _all_up(cluster)
    exactly_once.url = cluster.url
    return exactly_once


@pytest.fixture
async def cluster_leased(cluster: PrivateCluster, leased: Leased) -> Leased:
    await _all_up(cluster)
    leased.url = cluster.url
    return leased


# I1, I2, I3. Mutants: one host; a channel that nacks for ever is kept; a silent consumer is kept.
@pytest.mark.row("14", "kill -9 of the quorum queue's leader, of three nodes")
async def test_the_leader_dies(cluster_queue: ExactlyOnce, cluster: PrivateCluster, row: Row) -> None:
    async with cluster_queue.worker(), load(cluster.url, cluster_queue.queue) as stream:
        leader = await asyncio.to_thread(cluster.home, cluster_queue.queue)
        await asyncio.to_thread(leader.kill)
        died = time.monotonic()
        await stream.accepted(100)
        row.figures = await cluster_queue.settled(await stream.stop(), healed=died)

    row.figures.check(recovery=FAILOVER)


# I1, I4: without a majority nothing is confirmed, and everything comes back with it. Mutant: an unknown
# outcome taken for a confirm.
@pytest.mark.row("15", "kill -9 of two of three nodes, back after 10 s and their boot")
async def test_the_majority_dies(cluster_queue: ExactlyOnce, cluster: PrivateCluster, row: Row) -> None:
    async with cluster_queue.worker(), load(cluster.url, cluster_queue.queue) as stream:
        leader = await asyncio.to_thread(cluster.home, cluster_queue.queue)
        other = next(node for node in cluster.nodes if node is not leader)
        for node in (leader, other):
            await asyncio.to_thread(node.kill)
        await asyncio.sleep(10.0)
        booting = asyncio.create_task(asyncio.to_thread(cluster.start_missing))
        await eventually(lambda: sum(map(is_running, cluster.nodes)) >= 2, within=120)
        healed = time.monotonic()
        await booting
        await stream.accepted(60)
        row.figures = await cluster_queue.settled(await stream.stop(), healed=healed)

    row.figures.check(recovery=30.0)


# I4: it is said, and what is stored comes back with the node. The docs: quorum queues. Mutant: the 404 taken
# for a queue to declare elsewhere.
@pytest.mark.row("16", "the node of a classic queue dies, of three")
async def test_the_node_of_a_classic_queue_dies(
    cluster_leased: Leased, cluster: PrivateCluster, row: Row
) -> None:
    world = cluster_leased
    async with (
        world.worker(queue_type="classic") as worker,
        load(cluster.url, world.queue) as stream,
    ):
        home = await asyncio.to_thread(cluster.home, world.queue)
        await asyncio.to_thread(home.kill)
        died = time.monotonic()
        seen = await problem(worker, since=died, within=30, text="is down or inaccessible")
        await asyncio.to_thread(home.start)
        healed = time.monotonic()
        await stream.accepted(60)
        row.figures = await world.settled(await stream.stop(), healed=healed)

    row.seen.append(f"in health after {seen.at - died:.1f} s: the queue's node is down")
    row.figures.check(failures=TYPED | {"PublishUnroutable"})


async def _all_up(cluster: PrivateCluster) -> None:
    """Whatever the last test did to them."""
    await asyncio.to_thread(cluster.start_missing)
