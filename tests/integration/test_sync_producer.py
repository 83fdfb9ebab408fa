"""The sync producer: from the main thread, from many, never from inside an event loop, gone after close."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from autosell_rmq import (
    BrokerUnavailable,
    ClosedError,
    ConfigError,
    Message,
    PublishUnroutable,
    RabbitMQ,
    ReplyTimeout,
    SyncRabbitMQProducer,
)
from autosell_rmq.testing import memory_server
from tests.integration.stage_fixtures import rabbit_stage
from tests.support.names import unique
from tests.support.waiting import PATIENCE

THREAD = "autosell-rmq-producer"


@dataclass(frozen=True)
class Served:
    """A broker with a consumer at work in a thread of its own."""

    url: str
    queue: str
    silent: str  # a queue that never answers
    reached: threading.Event  # a request has come there


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def served(request: pytest.FixtureRequest, clean_environment: None) -> Iterator[Served]:
    ready: list[Served] = []
    failed: list[BaseException] = []
    started, done, reached = threading.Event(), threading.Event(), threading.Event()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            if request.param == "memory":
                server = stack.enter_context(memory_server())
                url, queue, silent = server.url, unique("queue"), unique("silent")
            else:
                stage = await stack.enter_async_context(rabbit_stage())
                url, queue, silent = stage.url, stage.queue(), stage.queue("silent")
            app = await stack.enter_async_context(RabbitMQ(url))

            @app.handler(queue)
            async def double(payload: int, message: Message) -> int:
                return payload * 2

            @app.handler(silent)
            async def never(payload: int) -> None:
                reached.set()
                await asyncio.Event().wait()

            await app.start_consuming()
            ready.append(Served(url, queue, silent, reached))
            started.set()
            await asyncio.to_thread(done.wait)
            await app.stop_consuming(0)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - the test fails with it
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(PATIENCE)
    if not ready:
        thread.join()
        raise failed[0]
    yield ready[0]
    done.set()
    thread.join(PATIENCE)
    assert not failed


@pytest.fixture
def producing_threads() -> Callable[[], int]:
    """How many threads of producers there are by the test's own doing: others may have left theirs open."""

    def running() -> set[int | None]:
        return {thread.ident for thread in threading.enumerate() if thread.name == THREAD}

    before = running()
    return lambda: len(running() - before)


def test_every_call_from_the_main_thread(served: Served) -> None:
    with SyncRabbitMQProducer(served.url) as producer:
        assert producer.send_message(served.queue, 2, correlation_id="mine") == {
            "success": True,
            "data": 4,
            "correlation_id": "mine",
        }
        sent = producer.send_message(served.queue, 2, wait_for_response=False, correlation_id="told")
        assert sent == {"correlation_id": "told", "sent": True}
        assert producer.send_fire_and_forget(served.queue, 3, correlation_id="other") == "other"
        with pytest.raises(PublishUnroutable):
            producer.publish_to_exchange("amq.topic", unique("nobody"), 1)
        assert producer.publish_to_exchange(
            "amq.topic", unique("nobody"), 1, mandatory=False, correlation_id="event"
        ) == ("event")


def test_it_connects_on_the_first_call_and_goes_on_after_errors(
    served: Served, producing_threads: Callable[[], int]
) -> None:
    producer = SyncRabbitMQProducer(served.url)
    assert producing_threads() == 0
    try:
        with pytest.raises(PublishUnroutable):
            producer.send_message(unique("missing"), 1)
        with pytest.raises(ReplyTimeout):
            producer.send_message(served.silent, 1, timeout=0.1)
        with pytest.raises(ConfigError):
            producer.send_fire_and_forget(served.queue, 1, delay=-1)
        assert producer.send_message(served.queue, 4)["data"] == 8
        assert producing_threads() == 1
    finally:
        producer.close()


def test_twenty_threads_at_once_share_one_connection(
    served: Served, producing_threads: Callable[[], int]
) -> None:
    barrier = threading.Barrier(20, timeout=PATIENCE)
    with ExitStack() as stack, ThreadPoolExecutor(20) as pool:
        producer = SyncRabbitMQProducer(served.url)
        stack.callback(producer.close)

        def work(number: int) -> list[int]:
            barrier.wait()
            return [producer.send_message(served.queue, number * 10 + n)["data"] for n in range(5)]

        results = list(pool.map(work, range(20)))
        assert producing_threads() == 1
    assert results == [[2 * (number * 10 + n) for n in range(5)] for number in range(20)]


def test_close_is_idempotent_ends_its_thread_and_is_final(
    served: Served, producing_threads: Callable[[], int]
) -> None:
    producer = SyncRabbitMQProducer(served.url)
    producer.send_fire_and_forget(served.queue, 1)
    assert producing_threads() == 1
    for _ in range(3):
        producer.close()
    assert producing_threads() == 0
    with pytest.raises(ClosedError, match="closed"):
        producer.send_fire_and_forget(served.queue, 1)
    assert producing_threads() == 0

    SyncRabbitMQProducer(served.url).close()  # never used


def test_close_ends_a_call_that_waits_in_another_thread(served: Served) -> None:
    producer = SyncRabbitMQProducer(served.url)
    producer.connect()
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            producer.send_message(served.silent, 1)
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert served.reached.wait(PATIENCE)
    producer.close()
    thread.join(PATIENCE)
    assert [type(error) for error in errors] == [ClosedError]


CALLS: list[Callable[[SyncRabbitMQProducer, str], Any]] = [
    lambda producer, queue: producer.send_message(queue, 1),
    lambda producer, queue: producer.send_fire_and_forget(queue, 1),
    lambda producer, queue: producer.publish_to_exchange("amq.topic", "a", 1),
    lambda producer, queue: producer.connect(),
    lambda producer, queue: producer.__enter__(),
]


@pytest.mark.parametrize("call", CALLS, ids=["send", "fire_and_forget", "publish", "connect", "with"])
async def test_inside_an_event_loop_it_refuses_to_block(
    served: Served, call: Callable[[SyncRabbitMQProducer, str], Any]
) -> None:
    producer = SyncRabbitMQProducer(served.url)
    try:
        with pytest.raises(ClosedError, match="async producer"):
            call(producer, served.queue)
    finally:
        producer.close()


async def test_beside_an_event_loop_it_works(served: Served) -> None:
    producer = SyncRabbitMQProducer(served.url)
    reply = await asyncio.to_thread(producer.send_message, served.queue, 5)
    assert reply["data"] == 10
    await asyncio.to_thread(producer.close)


def test_no_broker_is_told_and_leaves_no_thread(producing_threads: Callable[[], int]) -> None:
    producer = SyncRabbitMQProducer("amqp://guest:guest@127.0.0.1:1/", startup_timeout=0.2)
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        producer.send_message("orders", 1)
    producer.close()
    assert producing_threads() == 0


def test_a_wrong_setting_is_told_where_it_is_made() -> None:
    with pytest.raises(ConfigError, match="heartbeat=0"):
        SyncRabbitMQProducer("memory://x", heartbeat=0)
