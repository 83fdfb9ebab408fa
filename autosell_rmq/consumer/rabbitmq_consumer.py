"""The original library's consumer: one queue, one handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, Unpack, cast

from autosell_rmq import forks
from autosell_rmq.broker import Broker
from autosell_rmq.brokers import create_broker
from autosell_rmq.config import (
    SETTING_NAMES,
    HandlerOptions,
    QueueKwargs,
    Settings,
    SettingsKwargs,
    SharedKwargs,
    default_dlq,
    from_environment,
    joined,
)
from autosell_rmq.consumer.group import ConsumerGroup
from autosell_rmq.consumer.runner import Runner
from autosell_rmq.idempotency import IdempotencyStore, MemoryStore
from autosell_rmq.middleware import Middleware
from autosell_rmq.pipeline import Handler, Statistics
from autosell_rmq.producer import BlockingProducer, RabbitMQProducer

DEFAULT_QUEUE = "main_queue"
DEFAULT_DLQ = "dlq_queue"


class ConsumerKwargs(SharedKwargs, QueueKwargs, total=False):
    """The keyword options of `RabbitMQConsumer`; `Settings` and `HandlerOptions` say what each means."""


class RabbitMQConsumer:
    """Consumes one queue with one handler.

    ::

        consumer = RabbitMQConsumer(queue_name="orders")
        consumer.set_message_handler(create_order)
        try:
            await consumer.run_forever()
        finally:
            await consumer.close()

    Args:
        connection_url: by default ``RABBITMQ_URL``, else ``amqp://guest:guest@localhost/``; a list for
            several hosts.
        queue_name: by default ``QUEUE_NAME``, else ``main_queue``.
        dlq_name: by default ``<queue_name>_dlq`` if a `queue_name` is given; else ``DLQ_NAME``, else
            ``<QUEUE_NAME>_dlq``, else ``dlq_queue``.
        max_retries: by default ``MAX_RETRIES``, else 3.
        store: remembers what is done; by default in memory, for the life of the process.
        middleware: around every run of the handler, the first outermost.
        broker: consume from this one, which stays its owner's to open and close.
        options: see `Settings` and `HandlerOptions`.

    Raises:
        ConfigError: an argument or an environment variable is wrong; it is named.
    """

    def __init__(
        self,
        connection_url: str | Sequence[str] | None = None,
        queue_name: str | None = None,
        dlq_name: str | None = None,
        max_retries: int | None = None,
        *,
        store: IdempotencyStore | None = None,
        middleware: Sequence[Middleware] = (),
        broker: Broker | None = None,
        **options: Unpack[ConsumerKwargs],
    ) -> None:
        environment = from_environment()
        retries = max_retries if max_retries is not None else environment.max_retries
        given: dict[str, Any] = dict(options)
        if retries is not None:
            given["max_retries"] = retries
        self._settings = Settings.build(
            joined(connection_url) or environment.url,
            **cast("SettingsKwargs", {k: v for k, v in given.items() if k in SETTING_NAMES}),
        )
        queue = queue_name or environment.queue_name
        dlq = dlq_name or (default_dlq(queue_name) if queue_name else environment.dlq_name)
        self._options = HandlerOptions.resolve(
            queue or DEFAULT_QUEUE,
            self._settings,
            dlq=dlq or (default_dlq(queue) if queue else DEFAULT_DLQ),
            **cast("QueueKwargs", {k: v for k, v in given.items() if k not in SETTING_NAMES}),
        )
        self._store: IdempotencyStore = store if store is not None else MemoryStore()
        self._middleware = tuple(middleware)
        self._owns_broker = broker is None
        self._broker = broker
        self._handler: Handler | None = None
        self._producer: RabbitMQProducer | None = None
        self._connecting: asyncio.Lock | None = None
        self._connected = False
        self._runner = Runner(self._make_group, drain_timeout=self._settings.drain_timeout)
        self.statistics = Statistics()
        forks.watch(self)

    def after_fork(self) -> None:
        """In a forked child: not connected."""
        forks.leave(self._connecting)
        self._connecting = None
        self._connected = False

    @property
    def connection_url(self) -> str:
        """The broker's address, without its password."""
        return str(self._settings.broker_url)

    @property
    def queue_name(self) -> str:
        return self._options.queue

    @property
    def dlq_name(self) -> str:
        return self._options.dlq

    @property
    def max_retries(self) -> int:
        return self._options.max_retries

    def set_message_handler(self, handler: Callable[..., object]) -> None:
        """Set the handler, before consuming starts. Without one every message goes to the DLQ.

        Raises:
            ConfigError: its signature does not fit.
        """
        self._handler = Handler(handler)

    async def connect(self) -> None:
        """Connect, without consuming yet.

        Raises:
            BrokerUnavailable: no answer within ``startup_timeout``.
            AccessRefused: login, vhost or permission.
        """
        self._connecting = self._connecting or asyncio.Lock()
        async with self._connecting:
            if self._connected:
                return
            if self._broker is None:
                self._broker = create_broker(self._settings)
            if self._owns_broker:
                await self._broker.open()
            self._connected = True

    async def start_consuming(self) -> None:
        """Declare the queues and consume; returns once messages can come.

        Raises:
            TopologyMismatch: the queue exists with other arguments; the message says which and what to set.
            BrokerUnavailable, AccessRefused: as `connect`.
        """
        await self._runner.start()

    async def run_forever(self) -> None:
        """Consume until `stop`, SIGINT or SIGTERM; then drain: running handlers finish, the rest goes back.

        The second signal leaves at once. Off the main thread it installs no signal handlers.

        Raises:
            BrokerError: the consumer ended by itself (queue deleted, connection lost).
            TopologyMismatch, BrokerUnavailable, AccessRefused: as `start_consuming`.
        """
        await self._runner.run_forever()

    def stop(self) -> None:
        """Let `run_forever` drain and return; from a signal handler or any thread, at any time, twice too."""
        self._runner.stop()

    async def close(self) -> None:
        """Drain what is still running, then disconnect. Idempotent; `connect` opens everything again."""
        await self._runner.drain()
        if self._producer is not None:
            await self._producer.close()
        if self._owns_broker and self._broker is not None:
            await self._broker.close()
        await self._store.close()
        self._connected = False
        self._connecting = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _make_group(self) -> ConsumerGroup:
        await self.connect()
        assert self._broker is not None
        if self._producer is None:
            self._producer = RabbitMQProducer(self._settings.url, broker=self._broker)
        await self._producer.connect()
        return ConsumerGroup(
            self._broker,
            [(self._handler, self._options)],
            settings=self._settings,
            store=self._store,
            statistics=self.statistics,
            middleware=self._middleware,
            producer=self._producer,
            sync_producer=BlockingProducer(self._producer, asyncio.get_running_loop()),
        )
