"""Ten minutes with a fault every 15 s: memory, tasks and files stay where they were."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from itertools import cycle
from statistics import linear_regression

import pytest

from tests.chaos.load import load
from tests.chaos.nodes import Node
from tests.chaos.processes import Usage, healthy, tasks
from tests.chaos.report import Row
from tests.chaos.worlds import Leased
from tests.support.tcp_proxy import TcpProxy

SECONDS = float(os.environ.get("CHAOS_SOAK") or 600)
EVERY = 15.0  # seconds from fault to fault
RATE = 50.0  # messages a second
WARM = 0.25  # of the run, in which caches and pools fill

pytestmark = [pytest.mark.chaos, pytest.mark.rabbitmq, pytest.mark.timeout(SECONDS + 300)]


# I1, I5. Mutant: a list that keeps one entry for each message, or for each reconnect.
@pytest.mark.row("66k", f"{SECONDS / 60:g} minutes at {RATE:g} messages/s, a fault every {EVERY:g} s")
async def test_soak(leased: Leased, node: Node, proxy: TcpProxy, row: Row) -> None:
    url = proxy.url(node.url)
    async with (
        leased.worker(url=url, heartbeat=2) as worker,
        load(url, leased.queue, rate=RATE, seconds=0.01, heartbeat=2) as stream,
    ):
        begun = time.monotonic()
        samples: list[tuple[Usage, int]] = []
        for fault in cycle(faults(node, proxy)):
            await fault()
            await asyncio.sleep(max(EVERY - 3.0 - (time.monotonic() - begun) % EVERY, 1.0))
            await healthy(worker, within=30)
            samples.append((Usage.of(worker), await tasks(worker)))
            if time.monotonic() - begun > SECONDS:
                break
            await asyncio.sleep(EVERY - (time.monotonic() - begun) % EVERY)
        row.figures = await leased.settled(await stream.stop())

    steady = samples[int(len(samples) * WARM) :]
    slope, _ = linear_regression([use.at for use, _ in steady], [use.memory / 1e6 for use, _ in steady])
    files, tasks_ = [use.files for use, _ in steady], [number for _, number in steady]
    row.seen.append(
        f"{len(samples)} faults; memory {steady[0][0].memory / 1e6:.1f} → {steady[-1][0].memory / 1e6:.1f} MB"
        f" ({slope * 60:+.2f} MB/min); files {min(files)} to {max(files)},"
        f" tasks {min(tasks_)} to {max(tasks_)}"
    )
    row.figures.check()
    assert slope * 60 < 0.5  # MB a minute
    assert max(files) - min(files) <= 4
    assert max(tasks_) - min(tasks_) <= 30  # what is in hand is a task each


def faults(node: Node, proxy: TcpProxy) -> list[Callable[[], Awaitable[object]]]:
    """In turn; none lasts as long as the time between two."""

    async def cut() -> None:
        proxy.cut()

    async def refused() -> None:
        proxy.refuse()
        await asyncio.sleep(3.0)
        proxy.heal()

    async def silent() -> None:
        proxy.blackhole()
        await asyncio.sleep(8.0)
        proxy.heal()

    async def half_open() -> None:
        proxy.blackhole("to_client")
        await asyncio.sleep(4.0)
        proxy.heal()

    async def flapping() -> None:
        proxy.flap(1.0)
        await asyncio.sleep(4.0)
        proxy.heal()

    async def alarm() -> None:
        async with node.alarm("memory"):
            await asyncio.sleep(3.0)

    async def killed() -> None:
        await node.killed(0.0)

    return [cut, node.close_all_connections, refused, silent, alarm, flapping, half_open, killed]
