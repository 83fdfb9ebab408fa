"""FastStream and taskiq-aio-pika beside us: the same broker, faults, messages and handler.

Nothing is asserted of them; the table shows it. What is asserted of us is what the other tests assert, too.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.acceptance.processes import Running
from tests.chaos.nodes import Node
from tests.chaos.peering import PEERS, Peer, ledger_of
from tests.chaos.report import Row
from tests.chaos.test_stopping import ended
from tests.support.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.rabbitmq, pytest.mark.timeout(300)]

HANDLER = 1.5  # seconds; it runs when the signal comes
SETTLED = 2.0  # seconds; RabbitMQ may lose a quorum queue that is younger when it is killed


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest, node: Node, tmp_path: Path, row: Row) -> Peer:
    peer = Peer(request.param, node.url, tmp_path)
    row.mode = peer.title
    return peer


@pytest.mark.row("1", "kill -9 of the broker under load, down for 1 s and its boot")
async def test_the_broker_is_killed(peer: Peer, node: Node, row: Row) -> None:
    async with peer.worker(), peer.process("sender") as sender:
        await sender.until("accepted", times=20)
        await asyncio.sleep(SETTLED)
        healed = await node.killed(1.0)
        await _more_accepted(sender, 60)
        await sender.say("stop")
        await sender.until("sent")
        row.figures = await peer.settled(sender, healed=healed)

    _judge(peer, row)


@pytest.mark.row("2", "close_all_connections, once")
async def test_connections_closed(peer: Peer, node: Node, row: Row) -> None:
    async with peer.worker(), peer.process("sender") as sender:
        await sender.until("accepted", times=20)
        await node.close_all_connections()
        healed = time.monotonic()
        await _more_accepted(sender, 60)
        await sender.say("stop")
        await sender.until("sent")
        row.figures = await peer.settled(sender, healed=healed)

    _judge(peer, row)


@pytest.mark.row("66a", "SIGTERM with ten handlers of 1.5 s running, 60 messages")
async def test_sigterm(peer: Peer, row: Row) -> None:
    peer.seconds, peer.number = HANDLER, 60
    async with peer.worker() as worker, peer.process("sender") as sender:
        await worker.until("begun", times=10)
        code, gone = await ended(worker)
        await sender.until("sent")
        async with peer.worker():
            row.figures = await peer.settled(sender)

    row.seen.append(f"exit {code} after {gone:.2f} s")
    _judge(peer, row)


async def _more_accepted(sender: Running, number: int) -> None:
    enough = ledger_of(sender).accepted.total() + number
    await eventually(lambda: ledger_of(sender).accepted.total() >= enough, within=60)


def _judge(peer: Peer, row: Row) -> None:
    assert row.figures is not None
    if peer.name == "autosell-rmq":
        row.figures.check()
    elif row.figures.failed:
        row.seen.append(", ".join(f"{count} {name}" for name, count in row.figures.failed.items()))
