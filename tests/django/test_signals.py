"""Django's signals of what happens to messages, and the log lines of the app."""

from __future__ import annotations

import asyncio
import logging
import logging.config
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.dispatch import Signal
from django.test import override_settings

from autosell_rmq import Message, RabbitMQ, Reject
from autosell_rmq.testing import MemoryServer, memory_server
from autosell_rmq_django import signals
from autosell_rmq_django.consuming import build_app
from autosell_rmq_django.registry import Registry
from autosell_rmq_django.signals import (
    message_dead_lettered,
    message_failed,
    message_handled,
    message_received,
)
from tests.django.handler_fixtures import own_registry
from tests.django.shop.models import Effect
from tests.support.waiting import eventually

__all__ = ["own_registry"]

SIGNALS = {
    "received": message_received,
    "handled": message_handled,
    "failed": message_failed,
    "dead_lettered": message_dead_lettered,
}
IN_MEMORY = {"STORE": "autosell_rmq.MemoryStore"}


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    with (
        memory_server() as server,
        override_settings(AUTOSELL_RMQ={"URL": server.url, "IDEMPOTENCY": IN_MEMORY, "RETRY_DELAY": 0.05}),
    ):
        yield server


def order(data: dict[str, str], message: Message) -> str:
    if data["word"] == "reject":
        raise Reject("no")
    if data["word"] == "fail" and message.attempt == 1:
        raise ValueError("not yet")
    return data["word"]


async def receipt(data: dict[str, str]) -> str:
    return data["word"]


@pytest.fixture
async def app(server: MemoryServer, own_registry: Registry) -> AsyncIterator[RabbitMQ]:
    own_registry.router.handler("orders")(order)
    own_registry.router.handler("receipts")(receipt)
    async with build_app() as app:
        await app.start_consuming()
        yield app
    await signals.finish(5)


@contextmanager
def received(signal: Signal, receiver: Callable[..., object], sender: object = None) -> Generator[None]:
    signal.connect(receiver, sender=sender)
    try:
        yield
    finally:
        signal.disconnect(receiver, sender=sender)


class Diary:
    """Every signal in order."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, dict[str, Any]]] = []

    @contextmanager
    def kept(self) -> Generator[None]:
        receivers = {kind: self._receiver(kind) for kind in SIGNALS}
        for kind, signal in SIGNALS.items():
            signal.connect(receivers[kind])
        yield
        for kind, signal in SIGNALS.items():
            signal.disconnect(receivers[kind])

    def _receiver(self, kind: str) -> Callable[..., object]:
        return lambda **given: self.entries.append((kind, given))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.entries]

    async def has(self, count: int) -> None:
        await eventually(lambda: len(self.entries) >= count)


async def test_a_message_that_is_handled(app: RabbitMQ) -> None:
    diary = Diary()
    with diary.kept():
        await app.producer.send_message("orders", {"word": "yes"}, correlation_id="c-1")
        await diary.has(2)

    assert diary.kinds == ["received", "handled"]
    for _, given in diary.entries:
        assert given["sender"] is order
        assert (given["queue"], given["attempt"]) == ("orders", 1)
        assert given["message"].correlation_id == "c-1"


async def test_a_message_that_fails_and_is_retried(app: RabbitMQ) -> None:
    diary = Diary()
    with diary.kept():
        await app.producer.send_message("orders", {"word": "fail"})
        await diary.has(4)

    assert diary.kinds == ["received", "failed", "received", "handled"]
    assert [given["attempt"] for _, given in diary.entries] == [1, 1, 2, 2]
    assert str(diary.entries[1][1]["error"]) == "not yet"


async def test_a_dead_letter(app: RabbitMQ) -> None:
    diary = Diary()
    with diary.kept():
        await app.producer.send_message("orders", {"word": "reject"})
        await diary.has(3)

    assert diary.kinds == ["received", "failed", "dead_lettered"]
    assert diary.entries[2][1]["reason"] == "rejected"


async def test_a_receiver_may_ask_for_one_handler(app: RabbitMQ) -> None:
    got: list[str] = []

    def keep(queue: str, **_: object) -> None:
        got.append(queue)

    with received(message_handled, keep, sender=receipt):
        await app.producer.send_message("orders", {"word": "a"})
        await app.producer.send_message("receipts", {"word": "b"})
        await eventually(lambda: bool(got))

    assert got == ["receipts"]


async def test_an_async_receiver(app: RabbitMQ) -> None:
    got: list[str] = []

    async def keep(queue: str, **_: object) -> None:
        got.append(queue)

    with received(message_handled, keep):
        await app.producer.send_message("orders", {"word": "a"})
        await eventually(lambda: got == ["orders"])


async def test_a_failing_receiver_changes_nothing(app: RabbitMQ, caplog: pytest.LogCaptureFixture) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("the receiver's own")

    diary = Diary()
    with received(message_received, fail), received(message_handled, fail), diary.kept():
        reply = await app.producer.send_message("orders", {"word": "a"})
        await diary.has(2)

    assert reply["data"] == "a"
    assert any(record.name == "django.dispatch" for record in caplog.records)


@pytest.mark.django_db(transaction=True)
async def test_a_receiver_may_write_to_the_database(app: RabbitMQ) -> None:
    def write(message: Message, **_: object) -> None:
        Effect.objects.create(key=str(message.correlation_id))

    with received(message_handled, write):
        await app.producer.send_message("orders", {"word": "a"}, correlation_id="c-1")

        async def written() -> bool:
            return [effect.key async for effect in Effect.objects.all()] == ["c-1"]

        await eventually(written)


async def test_the_end_waits_for_receivers(app: RabbitMQ) -> None:
    got: list[str] = []

    def keep(queue: str, **_: object) -> None:
        got.append(queue)

    with received(message_handled, keep):
        await app.producer.send_message("orders", {"word": "a"})
        await signals.finish(5)

        assert got == ["orders"]


async def test_a_receiver_that_hangs_is_given_up(app: RabbitMQ) -> None:
    ended: list[str] = []

    async def hang(**_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with received(message_handled, hang):
        await app.producer.send_message("orders", {"word": "a"})
        await signals.finish(0.01)

    assert ended == ["cancelled"]


async def test_slow_receivers_do_not_pile_up(
    app: RabbitMQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(signals, "_MOST_WAITING", 3)
    opened = asyncio.Event()
    got: list[str] = []

    async def wait(queue: str, **_: object) -> None:
        await opened.wait()
        got.append(queue)

    with received(message_handled, wait):
        for _ in range(6):
            await app.producer.send_message("orders", {"word": "a"})
        opened.set()
        await signals.finish(5)
        assert len(got) == 3
        await app.producer.send_message("orders", {"word": "a"})
        await signals.finish(5)

    assert len(got) == 4
    assert sum("further ones are left out" in record.message for record in caplog.records) == 1


async def test_the_log_follows_djangos_logging(app: RabbitMQ) -> None:
    """Through the logger ``autosell_rmq_django``, with the facts as attributes."""
    lines: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record)

    logger = logging.getLogger("autosell_rmq_django")
    before = logger.level
    setting = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"keep": {"()": Keep}},
        "loggers": {"autosell_rmq_django": {"handlers": ["keep"], "level": "DEBUG"}},
    }
    logging.config.dictConfig(setting)
    try:
        await app.producer.send_message("orders", {"word": "a"}, correlation_id="c 1\r\nforged")
        await app.producer.send_message("orders", {"word": "reject"}, correlation_id="c-2")
        await eventually(lambda: sum(line.getMessage().startswith("message settled") for line in lines) == 2)
    finally:
        logger.handlers.clear()
        logger.setLevel(before)

    events = [(vars(line)["event"], line.levelname) for line in lines]
    assert events == [
        ("received", "DEBUG"),
        ("handled", "INFO"),
        ("settled", "DEBUG"),
        ("received", "DEBUG"),
        ("failed", "INFO"),
        ("dead_lettered", "INFO"),
        ("settled", "DEBUG"),
    ]
    assert {vars(line)["queue"] for line in lines} == {"orders"}
    assert vars(lines[5])["reason"] == "rejected"
    assert vars(lines[4])["error_type"] == "Reject"
    assert lines[0].getMessage().endswith(r"correlation_id='c 1\r\nforged' attempt=1")
    assert all("\n" not in line.getMessage() for line in lines)
