"""The broker takes no messages, refuses them, or has no place for them."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import pytest

from autosell_rmq import PublishNacked, PublishUnroutable, RabbitMQProducer
from tests.chaos import wire
from tests.chaos.load import load
from tests.chaos.nodes import Node
from tests.chaos.processes import problem
from tests.chaos.report import Row
from tests.chaos.worlds import ExactlyOnce, Leased
from tests.support.names import unique
from tests.support.waiting import eventually

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180)]

IMMEDIATE = 10.0  # seconds, on a busy machine; a send that waits for an end of its trouble takes 30


# I1, I2, I3: told at once, or waited out, as the setting says. Mutant: an unknown outcome not sent again.
@pytest.mark.chaos
@pytest.mark.parametrize(("resource", "when"), [("memory", "fail"), ("disk", "wait")])
@pytest.mark.row("8", "alarm for 15 s")
async def test_an_alarm(
    exactly_once: ExactlyOnce, node: Node, row: Row, resource: str, when: Literal["fail", "wait"]
) -> None:
    row.injected = f"{resource} {row.injected} (when_blocked={when})"
    async with (
        exactly_once.worker(),
        load(node.url, exactly_once.queue, when_blocked=when) as stream,
    ):
        async with node.alarm(resource):
            await asyncio.sleep(15.0)
        healed = time.monotonic()
        await stream.accepted(60)
        row.figures = await exactly_once.settled(await stream.stop(), healed=healed)

    row.figures.check(recovery=5.0)
    assert (not row.figures.failed) == (when == "wait")


# I4: said in health; acks go on, for they have a connection of their own. Mutant: one connection for both.
@pytest.mark.row("8", "memory alarm while 30 messages wait for a consumer")
async def test_acks_go_on_during_an_alarm(leased: Leased, node: Node, row: Row) -> None:
    async with leased.worker(prefetch=1) as worker, RabbitMQProducer(node.url) as producer:
        for number in range(30):
            data = {"key": f"{leased.queue}.{number}", "seconds": 0.1}
            await producer.send_fire_and_forget(leased.queue, data)
        data = {"key": f"{leased.queue}.asked", "seconds": 0.1}
        asking = asyncio.create_task(producer.send_message(leased.queue, data))
        await worker.until("begun", times=2)
        async with node.alarm("memory"):
            begun = time.monotonic()
            blocked = await problem(worker, since=begun, within=30, text="alarm")
            during = len(await leased.effects())
            # All but the one whose reply has to wait are acked: nothing is left to deliver again.
            await eventually(lambda: _unacked_are(node, leased.queue, 1), within=15)
        reply = await asking

    assert reply["success"] is True
    assert during == 31
    row.seen.append(f"acks went on, said in health after {blocked.at - begun:.1f} s")


# I1: refused is said to be refused, within bounds, and nothing else. Mutant: a nack taken for a confirm.
@pytest.mark.row("9", "the queue is full (x-max-length 5, reject-publish)")
async def test_a_full_queue(leased: Leased, node: Node, row: Row) -> None:
    await wire.declare(node.url, leased.queue, x_max_length=5, x_overflow="reject-publish")
    await wire.declare(node.url, f"{leased.queue}_dlq")
    accepted = set()
    begun = time.monotonic()
    async with RabbitMQProducer(node.url, publish_timeout=2.0) as producer:
        for number in range(10):
            key = f"{leased.queue}.{number}"
            try:
                await producer.send_fire_and_forget(leased.queue, {"key": key, "seconds": 0.0})
            except PublishNacked:
                refused_after = time.monotonic() - begun
                break
            accepted.add(key)
        else:
            pytest.fail("nothing was refused")
    async with leased.worker(options={"declare": False}):
        await eventually(lambda: _effects_are(leased, accepted))

    row.seen.append(f"{len(accepted)} accepted, then PublishNacked after {refused_after:.1f} s")
    assert refused_after < 2.0 + IMMEDIATE


# I1: said at once. Mutant: mandatory=False.
@pytest.mark.row("10", "there is no such queue")
async def test_an_unroutable_message(node: Node, row: Row) -> None:
    async with RabbitMQProducer(node.url) as producer:
        begun = time.monotonic()
        with pytest.raises(PublishUnroutable):
            await producer.send_message(unique("nowhere"), {})
        with pytest.raises(PublishUnroutable):
            await producer.send_fire_and_forget(unique("nowhere"), {})

    row.seen.append(f"PublishUnroutable after {time.monotonic() - begun:.2f} s, both")
    assert time.monotonic() - begun < IMMEDIATE


# I1: a missing exchange closes its channel, and that alone. Mutant: one channel for everything.
@pytest.mark.row("11", "the exchange is gone, under 200 other publishes")
async def test_a_missing_exchange(node: Node, row: Row) -> None:
    queue, exchange = unique("neighbour"), unique("exchange")
    await wire.declare(node.url, queue)
    async with RabbitMQProducer(node.url) as producer:
        await producer.publish_to_exchange(exchange, "key", {}, mandatory=False)
        await node.ctl("eval", _delete_exchange(exchange))
        others = [asyncio.create_task(producer.send_fire_and_forget(queue, n)) for n in range(200)]
        with pytest.raises(PublishUnroutable):  # it is declared again, but its bindings are gone
            await producer.publish_to_exchange(exchange, "key", {})
        await asyncio.gather(*others)
        await producer.publish_to_exchange(exchange, "key", {}, mandatory=False)
    await eventually(lambda: _depth_is(node, queue, 200))

    await wire.delete(node.url, [queue])
    row.seen.append("PublishUnroutable, 200 of 200 neighbours stored")


def _delete_exchange(name: str) -> str:
    resource = f'rabbit_misc:r(<<"/">>, exchange, <<"{name}">>)'
    return f'rabbit_exchange:delete({resource}, false, <<"chaos">>).'


async def _unacked_are(node: Node, queue: str, number: int) -> bool:
    rows = await node.rows("list_queues", "name", "messages_ready", "messages_unacknowledged")
    return [(0, number)] == [
        (each["messages_ready"], each["messages_unacknowledged"]) for each in rows if each["name"] == queue
    ]


async def _effects_are(leased: Leased, keys: set[str]) -> bool:
    return sorted(key for key, _ in await leased.effects()) == sorted(keys)


async def _depth_is(node: Node, queue: str, number: int) -> bool:
    return await wire.depth(node.url, queue) == number
