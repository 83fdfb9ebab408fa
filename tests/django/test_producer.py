"""The shared producer: from any thread and event loop, made when it is needed, of the current settings."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from autosell_rmq import ClosedError, PublishUnroutable, RabbitMQ
from autosell_rmq.testing import MemoryServer
from autosell_rmq_django.publishing import DjangoProducer, producer
from tests.django.outbox_fixtures import add_event_queue, memory_setting, messages, sent
from tests.support.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    with memory_setting() as server:
        yield server


def test_sends_to_a_queue(server: MemoryServer) -> None:
    correlation_id = producer.send_fire_and_forget("orders", {"id": 1}, headers={"tenant": "x"})

    [message] = messages(server)
    assert sent(server) == [{"id": 1}]
    assert message.correlation_id == correlation_id
    assert message.headers["tenant"] == "x"


def test_publishes_an_event(server: MemoryServer) -> None:
    add_event_queue(server, "billing", "events", "order.*")

    producer.publish_to_exchange("events", "order.created", {"id": 1})

    assert sent(server, "billing") == [{"id": 1}]


def test_a_request_gets_its_reply_also_from_async_code(server: MemoryServer) -> None:
    app = RabbitMQ(server.url)

    @app.handler("numbers")
    async def double(payload: dict[str, int]) -> int:
        return payload["n"] * 2

    async def serve() -> None:
        async with app:
            await app.start_consuming()
            started.set()
            await asyncio.to_thread(over.wait, PATIENCE)

    async def ask() -> object:
        return (await producer.asend_message("numbers", {"n": 4}, timeout=PATIENCE))["data"]

    started, over = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as beside:
        serving = beside.submit(lambda: asyncio.run(serve()))
        try:
            assert started.wait(PATIENCE)

            assert producer.send_message("numbers", {"n": 3}, timeout=PATIENCE)["data"] == 6
            assert asyncio.run(ask()) == 8
        finally:
            over.set()
        serving.result(PATIENCE)


def test_two_event_loops_share_it(server: MemoryServer) -> None:
    async def send(n: int) -> None:
        await producer.asend_fire_and_forget("orders", n)

    asyncio.run(send(1))
    with ThreadPoolExecutor(1) as beside:
        beside.submit(lambda: asyncio.run(send(2))).result(PATIENCE)

    assert sent(server) == [1, 2]


def test_a_blocking_call_on_an_event_loop_is_refused(server: MemoryServer) -> None:
    async def view() -> None:
        producer.send_fire_and_forget("orders", 1)

    with pytest.raises(ClosedError, match="use the async producer"):
        asyncio.run(view())


def test_twenty_threads_share_it_from_their_first_call_on(server: MemoryServer) -> None:
    together = threading.Barrier(20, timeout=PATIENCE)

    def work(n: int) -> None:
        together.wait()
        for k in range(10):
            producer.send_fire_and_forget("orders", n * 10 + k)

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(work, range(20)))

    assert sorted(sent(server)) == list(range(200))
    assert sum(t.name.startswith("autosell-rmq-producer") for t in threading.enumerate()) == 1


def test_an_error_reaches_its_caller(server: MemoryServer) -> None:
    with pytest.raises(PublishUnroutable):
        producer.send_fire_and_forget("nobody", 1)


def test_a_changed_setting_makes_a_new_one(server: MemoryServer) -> None:
    producer.send_fire_and_forget("orders", "first")
    with memory_setting() as other:
        producer.send_fire_and_forget("orders", "second")
        assert sent(other) == ["second"]
    producer.send_fire_and_forget("orders", "third")

    assert sent(server) == ["first", "third"]


def test_another_setting_leaves_it_alone(server: MemoryServer) -> None:
    before = producer.send_fire_and_forget.__self__  # type: ignore[attr-defined]
    with override_settings(DEBUG=True):
        assert producer.send_fire_and_forget.__self__ is before  # type: ignore[attr-defined]


def test_the_settings_of_the_core_are_its_own() -> None:
    with memory_setting(MAX_BODY_BYTES=10), pytest.raises(ValueError, match="max_body_bytes"):
        producer.send_fire_and_forget("orders", "more than ten bytes")


def test_looking_at_it_makes_none() -> None:
    with override_settings(AUTOSELL_RMQ={"URL": "nonsense"}):
        assert "AUTOSELL_RMQ" in repr(producer)
        assert not hasattr(producer, "__wrapped__")
        with pytest.raises(ImproperlyConfigured, match="URL"):
            producer.send_fire_and_forget("orders", 1)


def test_a_test_can_replace_a_method(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(producer, "send_fire_and_forget", lambda *args, **_: calls.append(args))

    producer.send_on_commit("orders", 1)

    assert len(calls) == 1
    assert sent(server) == []


def test_one_of_its_own_is_closed_by_its_owner(server: MemoryServer) -> None:
    with DjangoProducer(server.url) as own:
        own.send_fire_and_forget("orders", 1)

    assert sent(server) == [1]
    with pytest.raises(ClosedError):
        own.send_fire_and_forget("orders", 2)


def test_importing_it_needs_no_settings() -> None:
    code = "from autosell_rmq_django.publishing import producer; print(repr(producer))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=PATIENCE
    )

    assert (done.returncode, done.stdout) == (0, "<the producer of AUTOSELL_RMQ>\n"), done.stderr
