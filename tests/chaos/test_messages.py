"""Messages made to break a consumer: forged counts, poison frames, handlers that hang, replies to nobody."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.chaos import wire
from tests.chaos.nodes import Node
from tests.chaos.processes import begun, problems
from tests.chaos.report import Row
from tests.chaos.worlds import Leased
from tests.support.waiting import eventually

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180)]


def nested(levels: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for _ in range(levels):
        table = {"n": table}
    return table


POISON: dict[str, dict[str, Any]] = {
    "correlation_id": {"correlation_id": b"\xe9t\xe9"},
    "content_type": {"content_type": b"\xff\xfe"},
    "reply_to": {"reply_to": b"\x80"},
    "header name": {"headers": {b"\xe9": 1}},
    "timestamp": {"timestamp": 2**63},
    "depth": {"headers": {"deep": nested(2000)}},
}

FORGED: tuple[Any, ...] = (10**12, -5, "NaN", {"a": [1, {"b": 2}]})
COUNTS = ("x-retry-count", "x-death", "x-delivery-count")


# I1, I4: our own limit comes first, the attempts are counted, and there is an end. Mutant: handler_timeout
# over the broker's.
@pytest.mark.chaos
@pytest.mark.row("13", "a handler that hangs (broker's consumer_timeout 8 s, ours 2 s, one retry)")
async def test_a_handler_that_hangs(leased: Leased, node: Node, row: Row) -> None:
    async with node.consumer_timeout(8.0), leased.worker(handler_timeout=2.0, max_retries=1) as worker:
        sent = time.monotonic()
        await wire.put(
            node.url, leased.queue, {"key": "hangs", "seconds": 0, "how": "hang"}, correlation_id="hangs"
        )
        [letter] = await wire.take(node.url, f"{leased.queue}_dlq")
        buried = time.monotonic() - sent
        await asyncio.sleep(max(12.0 - buried, 0))  # past the broker's, too
        runs = begun(worker).count("hangs")

    assert letter.document["reason_code"] == "max_retries_exceeded"
    assert runs == 2
    assert problems(worker) == []
    row.seen.append(f"{runs} runs, in the DLQ after {buried:.1f} s, the channel kept")


# I1: neither an early dead letter nor an endless message. Mutant: the header is believed.
@pytest.mark.chaos
@pytest.mark.row("24", "forged x-retry-count, x-death, x-delivery-count: 1e12, -5, NaN, a table")
async def test_forged_counts(leased: Leased, node: Node, row: Row) -> None:
    forged = [(name, number) for name in COUNTS for number in range(len(FORGED))]
    async with leased.worker(max_retries=1, retry_delay=0.1, max_retry_delay=0.1) as worker:
        for name, number in forged:
            for how in ("work", "raise"):
                key = f"{leased.queue}.{name}.{number}.{how}"
                data = {"key": key, "seconds": 0, "how": how}
                headers = {name: FORGED[number]}
                await wire.put(node.url, leased.queue, data, correlation_id=key, headers=headers)
        letters = await wire.take(node.url, f"{leased.queue}_dlq", len(forged))
        await eventually(lambda: _effects(leased, len(forged)))
        failed = {letter.document["correlation_id"] for letter in letters}
        runs = sorted(begun(worker).count(key) for key in failed)

    assert failed == {f"{leased.queue}.{name}.{number}.raise" for name, number in forged}
    assert set(runs) <= {1, 2}, runs
    row.seen.append(f"{len(forged)} handled once, {len(forged)} failing ones dead after one or two runs")


# I1, I4: the poison is in the DLQ, its neighbours are handled, the connection stays. Mutant: the client
# library's own frame reader.
@pytest.mark.parametrize("kind", ["quorum", "classic"])
@pytest.mark.row("57", "six poison frames among ten good messages")
async def test_poison_frames(leased: Leased, node: Node, row: Row, kind: str) -> None:
    row.injected += f" ({kind})"
    keys = [f"{leased.queue}.{number}" for number in range(10)]
    async with leased.worker(queue_type="classic" if kind == "classic" else "quorum") as worker:
        sent = time.monotonic()
        poison = list(POISON.values())
        for number, key in enumerate(keys):
            await wire.put(node.url, leased.queue, {"key": key, "seconds": 0}, correlation_id=key)
            if number < len(poison):
                await wire.put(node.url, leased.queue, b"poison", **poison[number])
        letters = await wire.take(node.url, f"{leased.queue}_dlq", len(POISON))
        isolated = time.monotonic() - sent
        await eventually(lambda: _effects(leased, len(keys)))

    assert {letter.document["reason_code"] for letter in letters} == {"invalid_message"}
    assert sorted(key for key, _ in await leased.effects()) == sorted(keys)
    assert problems(worker) == []
    row.seen.append(f"in the DLQ after {isolated:.1f} s, 10 neighbours handled once, no reconnect")
    assert isolated < 30


# I1: the result is stored, the message is done. Mutant: retried, or dead-lettered.
@pytest.mark.row("60", "the reply queue is gone")
async def test_a_reply_queue_that_is_gone(leased: Leased, node: Node, row: Row) -> None:
    async with leased.worker() as worker:
        data = {"key": f"{leased.queue}.gone", "seconds": 0}
        gone = f"{leased.prefix}.replies"
        await wire.put(node.url, leased.queue, data, correlation_id=data["key"], reply_to=gone)
        await worker.until("nobody waits at reply_to")
        await wire.declare(node.url, gone)
        await wire.put(node.url, leased.queue, data, correlation_id=data["key"], reply_to=gone)
        [reply] = await wire.take(node.url, gone)
        await wire.delete(node.url, [gone])

    assert reply.document["success"] is True
    assert len(await leased.effects()) == 1
    assert await wire.depth(node.url, f"{leased.queue}_dlq") == 0
    row.seen.append("one effect, no dead letter; a duplicate gets the stored reply")


async def _effects(leased: Leased, number: int) -> bool:
    return len(await leased.effects()) >= number
