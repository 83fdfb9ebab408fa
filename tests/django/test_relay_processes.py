"""Relays in processes of their own, on RabbitMQ, killed with SIGKILL between a confirm and its mark."""

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.test import override_settings

from autosell_rmq import Message
from autosell_rmq_django.models import OutboxMessage
from autosell_rmq_django.publishing import producer
from tests.acceptance.places import Place, rabbit_place
from tests.acceptance.processes import Running, running
from tests.django.outbox_fixtures import run, unsent
from tests.support.inbox import Inbox
from tests.support.services import RABBITMQ_URL
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.acceptance,
    pytest.mark.django_db(transaction=True, databases=("default", "other")),
    pytest.mark.timeout(120),
]

WORKER = Path(__file__).with_name("relay_worker.py")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds


@asynccontextmanager
async def a_queue() -> AsyncGenerator[tuple[Place, str, list[Message]]]:
    """A queue on RabbitMQ, and what has come out of it."""
    async with rabbit_place() as place:
        queue = await place.declared("outbox")
        came: list[Message] = []
        inbox = await Inbox.of(place.broker, queue, prefetch=2000)

        async def collect() -> None:
            while True:
                delivery = await inbox.deliveries.get()
                came.append(delivery.message)
                await delivery.ack()

        collecting = asyncio.create_task(collect())
        try:
            yield place, queue, came
        finally:
            collecting.cancel()


def relay(*arguments: str) -> AbstractAsyncContextManager[Running]:
    setting = json.dumps({"URL": RABBITMQ_URL})
    return running(sys.executable, WORKER, *arguments, cwd=ROOT, env={"RMQ_TEST_SETTINGS": setting})


@sync_to_async
def write(queue: str, *payloads: object, key: str = "") -> None:
    try:
        with transaction.atomic():
            for data in payloads:
                producer.send_on_commit(queue, data, outbox=True, ordering_key=key)
    finally:
        connections.close_all()


@sync_to_async
def waiting() -> list[OutboxMessage]:
    try:
        return unsent()
    finally:
        connections.close_all()


async def nothing_waits() -> bool:
    return await waiting() == []


@pytest.fixture(autouse=True)
def on_rabbitmq() -> Iterator[None]:
    with override_settings(AUTOSELL_RMQ={"URL": RABBITMQ_URL}):
        yield


def test_killed_between_confirm_and_mark_it_is_sent_again_under_the_same_ids() -> None:
    async def main() -> None:
        async with a_queue() as (_, queue, came):
            await write(queue, "once or twice")
            async with relay("1") as doomed:
                assert await doomed.exit_code() == -signal.SIGKILL
            await eventually(lambda: len(came) == 1)
            [row] = await waiting()
            assert (row.sent, row.attempts) == (None, 0)

            async with relay() as healthy:
                await eventually(lambda: len(came) == 2, within=PATIENCE)
                await eventually(nothing_waits)
                healthy.signal(signal.SIGTERM)
                assert await healthy.exit_code() == 0, healthy.transcript
            first, second = came
            assert first.message_id == second.message_id == row.message_id
            assert first.correlation_id == second.correlation_id == row.correlation_id
            assert first.body == second.body

    run(main())


def test_two_processes_send_each_row_once() -> None:
    async def main() -> None:
        async with a_queue() as (_, queue, came), relay() as one, relay() as other:
            await one.until("relaying")
            await other.until("relaying")
            for n in range(0, 400, 20):
                await write(queue, *range(n, n + 20), key=f"key-{n // 20 % 3}" if n % 40 else "")
            await eventually(nothing_waits, within=PATIENCE)
            await eventually(lambda: len(came) >= 400)
            for process in (one, other):
                process.signal(signal.SIGTERM)
                assert await process.exit_code() == 0, process.transcript
            assert sorted(json.loads(message.body) for message in came) == list(range(400))
            assert len({message.message_id for message in came}) == 400

    run(main())


def test_kills_lose_nothing_and_keep_the_order_of_each_key() -> None:
    """One relay after the other is killed while rows come in."""
    dice = random.Random(4)

    async def main() -> None:
        async with a_queue() as (_, queue, came):
            for n in range(26):
                await write(queue, *([n % 4, k] for k in range(n * 10, n * 10 + 10)), key=f"key-{n % 4}")
                if n % 4 == 1:
                    async with relay(str(dice.randint(1, 4))) as doomed:
                        assert await doomed.exit_code() == -signal.SIGKILL
            async with relay():
                await eventually(nothing_waits, within=PATIENCE)
            firsts: dict[str, tuple[int, int]] = {}
            for message in came:
                firsts.setdefault(str(message.message_id), tuple(json.loads(message.body)))
            assert sorted(k for _, k in firsts.values()) == list(range(260)), "nothing is lost"
            for key in range(4):
                order = [k for of, k in firsts.values() if of == key]
                assert order == sorted(order)

    run(main())
