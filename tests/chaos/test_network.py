"""The network between the client and a healthy broker: silent, half open, flapping, slow."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import pytest

from tests.chaos.ledger import TYPED
from tests.chaos.load import load
from tests.chaos.nodes import Node
from tests.chaos.processes import Usage, healthy, problem
from tests.chaos.report import Row
from tests.chaos.worlds import RECOVERY, ExactlyOnce, Leased
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(300)]

NOTICED = 40.0  # seconds, by the default heartbeat of 10
QUICK = 2  # a heartbeat that notices within ten seconds


# I1, I2, I4: noticed, and no publish ends in a cancellation that nobody asked for (the ledger's errors).
# Mutants: heartbeat=60; a bare CancelledError of the client library let through.
@pytest.mark.chaos
@pytest.mark.row("4", "nothing passes for 60 s, and nobody is told (default heartbeat)")
async def test_a_black_hole(leased: Leased, node: Node, proxy: TcpProxy, row: Row) -> None:
    url = proxy.url(node.url)
    async with leased.worker(url=url) as worker, load(url, leased.queue) as stream:
        begun = time.monotonic()
        proxy.blackhole()
        noticed = await problem(worker, since=begun, within=NOTICED + 20)
        await asyncio.sleep(max(begun + 60 - time.monotonic(), 0))
        proxy.heal()
        healed = time.monotonic()
        await stream.accepted(60)
        row.figures = await leased.settled(await stream.stop(), healed=healed)

    row.seen.append(f"noticed after {noticed.at - begun:.1f} s")
    # A request that was accepted just before has waited its time out: that is what it is told.
    row.figures.check(failures=TYPED | {"ReplyTimeout"})
    assert noticed.at - begun < NOTICED


# The same with a short heartbeat: three of them and one more second.
@pytest.mark.row("4", "nothing passes for 12 s, and nobody is told (heartbeat=2)")
async def test_a_black_hole_and_a_short_heartbeat(
    exactly_once: ExactlyOnce, node: Node, proxy: TcpProxy, row: Row
) -> None:
    url = proxy.url(node.url)
    async with (
        exactly_once.worker(url=url, heartbeat=QUICK, connect_timeout=3.0),
        load(url, exactly_once.queue, heartbeat=QUICK, connect_timeout=3.0) as stream,
    ):
        proxy.blackhole()
        await asyncio.sleep(12.0)
        proxy.heal()
        healed = time.monotonic()
        await stream.accepted(60)
        row.figures = await exactly_once.settled(await stream.stop(), healed=healed)

    row.figures.check(recovery=RECOVERY + 3.0)  # an attempt may have begun just before


# I1, I2: what the client takes for lost may have arrived, what it takes for sent may not. Mutant: as row 4.
@pytest.mark.chaos
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
@pytest.mark.row("5", "half open for 20 s (heartbeat=2)")
async def test_half_open(
    leased: Leased, node: Node, proxy: TcpProxy, row: Row, direction: Literal["to_server", "to_client"]
) -> None:
    row.injected += f", {direction.replace('_', ' ')} cut"
    url = proxy.url(node.url)
    async with (
        leased.worker(url=url, heartbeat=QUICK, connect_timeout=3.0) as worker,
        load(url, leased.queue, heartbeat=QUICK, connect_timeout=3.0) as stream,
    ):
        begun = time.monotonic()
        proxy.blackhole(direction)
        noticed = await problem(worker, since=begun, within=15)
        await asyncio.sleep(max(begun + 20 - time.monotonic(), 0))
        proxy.heal()
        healed = time.monotonic()
        await stream.accepted(60)
        row.figures = await leased.settled(await stream.stop(), healed=healed)

    row.seen.append(f"noticed after {noticed.at - begun:.1f} s")
    row.figures.check(recovery=RECOVERY + 3.0)


# I1, I4: it neither gives up nor runs hot. Mutant: reconnecting without a back-off.
@pytest.mark.chaos
@pytest.mark.row("6", "every connection reset every 2 s, for 40 s")
async def test_flapping(leased: Leased, node: Node, proxy: TcpProxy, row: Row) -> None:
    url = proxy.url(node.url)
    async with leased.worker(url=url) as worker, load(url, leased.queue) as stream:
        before, connections = Usage.of(worker), proxy.accepted
        proxy.flap(2.0)
        await asyncio.sleep(40.0)
        after, connections = Usage.of(worker), proxy.accepted - connections
        proxy.heal()
        healed = time.monotonic()
        await stream.accepted(60)
        row.figures = await leased.settled(await stream.stop(), healed=healed)

    row.seen.append(f"{connections} connections, {after.busy_since(before):.0%} of a processor")
    row.figures.check(recovery=RECOVERY)
    assert after.busy_since(before) < 0.2


# I1, I5: heartbeats get through, nothing piles up in the process. Mutants: heartbeats behind the messages; a
# publish that is sent again while the first is still on its way.
@pytest.mark.chaos
@pytest.mark.row("7", "a link of 10 KiB/s for 40 s, bodies of 2 KiB")
async def test_a_slow_link(leased: Leased, node: Node, proxy: TcpProxy, row: Row) -> None:
    slow = proxy.url(node.url)
    async with leased.worker(url=slow) as worker, load(node.url, leased.queue, padding=2048) as stream:
        before, connections = Usage.of(worker), proxy.accepted
        proxy.throttle(10 * 1024)
        await asyncio.sleep(40.0)
        after = Usage.of(worker)
        connections = proxy.accepted - connections
        proxy.heal()
        await healthy(worker, within=30)
        row.figures = await leased.settled(await stream.stop())

    grown = (after.memory - before.memory) / 1e6
    row.seen.append(f"{connections} reconnects, memory {grown:+.1f} MB")
    row.figures.check()
    assert connections == 0
    assert grown < 20
