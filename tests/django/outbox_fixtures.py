"""A broker in memory, what is in its queues, and relays that run until a test has seen enough."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Unpack

from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from autosell_rmq import Message, RabbitMQProducer, Settings, SettingsKwargs
from autosell_rmq.brokers import create_broker
from autosell_rmq.testing import Faults, FaultyBroker, MemoryServer, memory_server
from autosell_rmq.topology import Exchange, Queue, QueueBinding, Topology
from autosell_rmq_django.conf import AppSettings, Outbox, get_settings
from autosell_rmq_django.models import IdempotencyRecord, OutboxMessage
from autosell_rmq_django.relay import OutboxFlush, Relay
from tests.support.waiting import eventually

BOTH = ("default", "other")


@contextmanager
def memory_setting(**setting: object) -> Generator[MemoryServer]:
    """A server in memory with the queue ``orders``, which ``AUTOSELL_RMQ`` names."""
    with memory_server() as server, override_settings(AUTOSELL_RMQ={"URL": server.url, **setting}):
        add_queue(server, "orders")
        yield server


def add_queue(server: MemoryServer, name: str) -> None:
    server.declare(Topology(queues=(Queue(name=name),)))


def add_event_queue(server: MemoryServer, name: str, exchange: str, key: str) -> None:
    """A queue that is bound to a topic exchange."""
    server.declare(
        Topology(
            exchanges=(Exchange(name=exchange, type="topic"),),
            queues=(Queue(name=name),),
            bindings=(QueueBinding(queue=name, exchange=exchange, routing_key=key),),
        )
    )


def messages(server: MemoryServer, queue: str = "orders") -> tuple[Message, ...]:
    return server.queue(queue).messages


def sent(server: MemoryServer, queue: str = "orders") -> list[Any]:
    """The payloads in a queue, in order."""
    return [json.loads(message.body) for message in messages(server, queue)]


def unsent(using: str = "default") -> list[OutboxMessage]:
    return list(OutboxMessage.objects.using(using).filter(sent__isnull=True).order_by("id"))


def make_record(using: str = "default", key: str = "k") -> IdempotencyRecord:
    return IdempotencyRecord.objects.using(using).create(
        key=key,
        queue="orders",
        fingerprint="f",
        state=IdempotencyRecord.State.DONE,
        expires=timezone.now() + dt.timedelta(days=1),
    )


def quick(*, batch: int = 100, retention: float = 3600.0, interval: float = 0.01) -> AppSettings:
    """The settings with a relay that looks often and tries again soon."""
    settings = get_settings()
    return AppSettings(
        url=settings.url,
        core={"backoff": 0.01, "max_backoff": 0.05, **settings.core},
        outbox=Outbox(interval=interval, batch=batch, retention=retention),
    )


@contextmanager
def rolled_back(using: str = "default") -> Generator[None]:
    """A transaction, or a savepoint in one, that fails."""
    with transaction.atomic(using=using):
        yield
        transaction.set_rollback(True, using=using)


def run[T](main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from a synchronous test, whose thread has the ORM."""
    return asyncio.run(main)


@asynccontextmanager
async def connected(
    settings: AppSettings, faults: Faults | None = None, **core: Unpack[SettingsKwargs]
) -> AsyncGenerator[RabbitMQProducer]:
    """A producer as an app has it, whose calls of the broker go wrong as planned."""
    broker = create_broker(Settings.build(settings.url))
    await broker.open()
    try:
        async with RabbitMQProducer(broker=FaultyBroker(broker, faults or Faults()), **core) as producer:
            yield producer
    finally:
        await broker.close()


def relay_until(
    condition: Callable[[], bool],
    *,
    settings: AppSettings | None = None,
    relays: int = 1,
    faults: Faults | None = None,
) -> None:
    """Run relays, each with a producer of its own, until the condition holds; it must not use the ORM."""
    chosen = settings or quick()

    async def one(done: asyncio.Event) -> None:
        async with connected(chosen, faults) as producer:
            relay = Relay(producer, chosen)
            running = asyncio.create_task(relay.run())
            await done.wait()
            relay.stop()
            await running

    async def main() -> None:
        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(relays):
                group.create_task(one(done))
            try:
                await eventually(condition)
            finally:
                done.set()

    run(main())


def flush(
    record_id: int,
    *,
    using: str | None = None,
    settings: AppSettings | None = None,
    faults: Faults | None = None,
) -> None:
    """What the store does after the commit."""
    chosen = settings or quick()

    async def main() -> None:
        async with connected(chosen, faults) as producer:
            await OutboxFlush(producer, chosen, using=using)(record_id)

    run(main())
