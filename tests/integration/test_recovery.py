"""A RabbitMQ node that dies, and what becomes of messages, requests and consumers; and several hosts."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from autosell_rmq import BrokerError, PublishUnknown, RabbitMQ
from tests.support.names import unique
from tests.support.private_broker import PrivateBroker, private_broker
from tests.support.waiting import eventually

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180)]

# RabbitMQ may lose a quorum queue that was declared less than two seconds before its node is killed.
SETTLED = 2.0


@pytest.fixture
async def node() -> AsyncIterator[PrivateBroker]:
    context = private_broker()
    node = await asyncio.to_thread(context.__enter__)
    yield node
    await asyncio.to_thread(context.__exit__, None, None, None)


async def test_kill_9_under_load_loses_nothing_and_doubles_nothing(node: PrivateBroker) -> None:
    queue = unique("orders")
    effects: dict[int, int] = {}
    accepted: set[int] = set()
    consuming, sending = RabbitMQ(node.url), RabbitMQ(node.url)

    @consuming.handler(queue)
    async def count(number: int) -> int:
        effects[number] = effects.get(number, 0) + 1
        await asyncio.sleep(0.05)
        return number

    async with consuming, sending:
        await consuming.start_consuming()
        await asyncio.sleep(SETTLED)
        stop = asyncio.Event()
        load = asyncio.create_task(_send(sending, queue, accepted, stop))
        await eventually(lambda: len(effects) > 50)

        node.kill()
        await eventually(lambda: bool(consuming.problems and sending.problems))
        await asyncio.to_thread(node.start)
        seen = len(effects)
        await eventually(lambda: len(effects) > seen + 10, within=60)
        stop.set()
        await load
        await eventually(lambda: accepted <= effects.keys(), within=60)

        assert not [number for number, times in effects.items() if times > 1]
        await eventually(lambda: consuming.problems == sending.problems == ())


async def _send(app: RabbitMQ, queue: str, accepted: set[int], stop: asyncio.Event) -> None:
    number = 0

    async def one(number: int) -> None:
        try:
            await app.producer.send_fire_and_forget(queue, number)
        except BrokerError:
            return  # told, so it is the caller's
        accepted.add(number)

    async with asyncio.TaskGroup() as group:
        while not stop.is_set():
            number += 1
            group.create_task(one(number))
            await asyncio.sleep(0.005)


async def test_two_hundred_requests_in_flight_are_all_answered_once(node: PrivateBroker) -> None:
    queue = unique("orders")
    runs: dict[int, int] = {}
    consuming, asking = RabbitMQ(node.url, prefetch=50), RabbitMQ(node.url)

    @consuming.handler(queue)
    async def double(number: int) -> int:
        runs[number] = runs.get(number, 0) + 1
        await asyncio.sleep(0.2)
        return number * 2

    async with consuming, asking:
        await consuming.start_consuming()
        await asyncio.sleep(SETTLED)
        calls = [
            asyncio.create_task(asking.producer.send_message(queue, number, timeout=90.0))
            for number in range(200)
        ]
        await eventually(lambda: len(runs) > 60)
        node.kill()
        await asyncio.to_thread(node.start)
        replies: list[dict[str, Any]] = await asyncio.gather(*calls)

    assert [reply["data"] for reply in replies] == [number * 2 for number in range(200)]
    assert runs == dict.fromkeys(range(200), 1)


async def test_the_next_host_takes_over(node: PrivateBroker) -> None:
    """The first refuses, as a node that is down does."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"amqp://guest:guest@127.0.0.1:{nobody.getsockname()[1]},127.0.0.1:{node.port}/"
        started = time.monotonic()
        async with RabbitMQ(url) as app:
            assert app.problems == ()
        assert time.monotonic() - started < 5


async def test_a_host_that_is_silent_does_not_eat_the_time_of_the_next(node: PrivateBroker) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        silent = server.sockets[0].getsockname()[1]
        url = f"amqp://guest:guest@127.0.0.1:{silent},127.0.0.1:{node.port}/"
        async with asyncio.timeout(5), RabbitMQ(url) as app:
            assert app.problems == ()


async def test_a_consumer_lost_during_an_alarm_comes_back_during_it(node: PrivateBroker) -> None:
    """To consume is what ends an alarm: it must not wait for the connection that the alarm blocks."""
    app = RabbitMQ(node.url, publish_timeout=1, backoff=0.1)
    got = asyncio.Event()

    @app.handler(unique("orders"), queue_type="classic")
    async def handler(number: int) -> None:
        got.set()

    async with app:
        await app.start_consuming()
        queue = app.handlers[0].queue
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.00001")
        with pytest.raises(PublishUnknown):
            await app.producer.send_fire_and_forget(queue, 1)
        [alarm] = app.problems
        await asyncio.to_thread(_close_consuming, node)
        await eventually(lambda: app.problems != (alarm,))
        await eventually(lambda: app.problems == (alarm,))
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")
        await asyncio.wait_for(got.wait(), 10)
        await eventually(lambda: app.problems == ())


def _close_consuming(node: PrivateBroker) -> None:
    for line in node.ctl("list_connections", "pid", "client_properties").splitlines():
        if "autosell-rmq consume" in line:
            node.ctl("close_connection", line.split()[0], "a test")
