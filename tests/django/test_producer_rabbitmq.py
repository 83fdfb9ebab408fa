"""The shared producer on RabbitMQ: many threads and several event loops over one connection."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections, transaction
from django.test import override_settings

from autosell_rmq import Confirmed, PublishUnroutable
from autosell_rmq_django.publishing import producer
from tests.acceptance.places import rabbit_place
from tests.django.outbox_fixtures import run
from tests.support.inbox import Inbox
from tests.support.services import RABBITMQ_URL
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.rabbitmq


@pytest.fixture(autouse=True)
def on_rabbitmq() -> Iterator[None]:
    with override_settings(AUTOSELL_RMQ={"URL": RABBITMQ_URL}):
        yield


def test_twenty_threads_and_two_event_loops() -> None:
    together = threading.Barrier(22, timeout=PATIENCE)

    def thread(queue: str, n: int) -> None:
        together.wait()
        for k in range(20):
            producer.send_fire_and_forget(queue, n * 100 + k)

    def loop(queue: str, n: int) -> None:
        async def send() -> None:
            await asyncio.gather(*(producer.asend_fire_and_forget(queue, n * 100 + k) for k in range(20)))

        together.wait()
        asyncio.run(send())

    def work(queue: str, n: int) -> None:
        (loop if n < 2 else thread)(queue, n)

    async def main() -> None:
        async with rabbit_place() as place:
            queue = await place.declared("threads")
            with ThreadPoolExecutor(22) as pool:
                running = asyncio.get_running_loop()
                await asyncio.gather(*(running.run_in_executor(pool, work, queue, n) for n in range(22)))
            inbox = await Inbox.of(place.broker, queue, prefetch=1000)
            bodies = [int(delivery.message.body) for delivery in await inbox.take(440)]
            assert sorted(bodies) == sorted(n * 100 + k for n in range(22) for k in range(20))

    run(main())
    assert sum(t.name.startswith("autosell-rmq-producer") for t in threading.enumerate()) == 1


@pytest.mark.django_db(transaction=True)
def test_after_the_commit_it_is_confirmed_by_the_broker() -> None:
    async def main() -> None:
        async with rabbit_place() as place:
            queue = await place.declared("commit")
            await asyncio.to_thread(in_transaction, queue)
            inbox = await Inbox.of(place.broker, queue)
            assert (await inbox.next()).message.body == b'"committed"'

    def in_transaction(queue: str) -> None:
        with transaction.atomic():
            producer.send_on_commit(queue, "committed")
        connections.close_all()

    run(main())


def test_a_queue_that_does_not_exist_is_told_to_the_caller() -> None:
    with pytest.raises(PublishUnroutable):
        producer.send_fire_and_forget("test.no-such-queue", 1)


def test_rows_of_the_database_are_sent_many_at_once() -> None:
    # A queryset must be read in the thread that its connection belongs to.
    here = threading.get_ident()
    threads: set[int] = set()

    def rows() -> Iterator[dict[str, int]]:
        for n in range(100):
            threads.add(threading.get_ident())
            yield {"pk": n}

    async def main() -> None:
        async with rabbit_place() as place:
            queue = await place.declared("many")
            results = await asyncio.to_thread(
                producer.send_many, queue, rows(), window=16, correlation_id_of=lambda row: f"row-{row['pk']}"
            )
            assert [type(result) for result in results] == [Confirmed] * 100
            assert [result.correlation_id for result in results] == [f"row-{n}" for n in range(100)]
            assert await producer.apublish_many("amq.topic", [("nobody", 1)], mandatory=False)
            await place.has(queue, 100)

    run(main())
    assert len(threads) == 1
    assert here not in threads
