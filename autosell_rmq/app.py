"""The app object: handlers, one producer, one connection, one life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from types import TracebackType
from typing import Self, Unpack

from autosell_rmq.broker import Broker
from autosell_rmq.brokers import create_broker
from autosell_rmq.config import HandlerKwargs, Settings, SettingsKwargs, from_environment
from autosell_rmq.consumer import ConsumerGroup, Runner
from autosell_rmq.exceptions import ConfigError
from autosell_rmq.idempotency import IdempotencyStore, MemoryStore
from autosell_rmq.middleware import Middleware
from autosell_rmq.pipeline import Observer, Statistics, ThreadContext, ThreadPool
from autosell_rmq.producer import BlockingProducer, RabbitMQProducer
from autosell_rmq.router import Registration, Router


class RabbitMQ:
    """An application's RabbitMQ: decorate handlers, send by `producer`, consume by `run`.

    ::

        rmq = RabbitMQ()

        @rmq.handler("orders", max_retries=5)
        async def create_order(order: Order, message: Message) -> OrderCreated: ...

        async with rmq:
            await rmq.run()

    Args:
        url: by default ``RABBITMQ_URL``, else ``amqp://guest:guest@localhost/``.
        store: remembers what is done; by default in memory, for the life of the process.
        middleware: around every run of a handler, the first outermost.
        observers: told of every message what happened to it; see `MessageEvent`.
        thread_context: makes a context manager that is entered in the thread around each sync handler.
        thread_pool: runs the sync handlers; by default one of `threads` threads is made for each start.
        broker: use this one instead of what `url` names; it stays its owner's to open and close.
        settings: see `Settings`. ``MAX_RETRIES`` of the environment counts where `max_retries` is left out.

    Raises:
        ConfigError: a setting or an environment variable is wrong; it is named.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        store: IdempotencyStore | None = None,
        middleware: Sequence[Middleware] = (),
        observers: Sequence[Observer] = (),
        thread_context: ThreadContext | None = None,
        thread_pool: ThreadPool | None = None,
        broker: Broker | None = None,
        **settings: Unpack[SettingsKwargs],
    ) -> None:
        environment = from_environment()
        if environment.max_retries is not None:
            settings.setdefault("max_retries", environment.max_retries)
        self.settings = Settings.build(url or environment.url, **settings)
        self.statistics = Statistics()
        self._store: IdempotencyStore = store if store is not None else MemoryStore()
        self._middleware = tuple(middleware)
        self._observers = tuple(observers)
        self._thread_context = thread_context
        self._thread_pool = thread_pool
        self._owns_broker = broker is None
        self._broker: Broker = broker if broker is not None else create_broker(self.settings)
        self._router = Router()
        self._connecting: asyncio.Lock | None = None
        self._connected = False
        self._runner = Runner(self._make_group, drain_timeout=self.settings.drain_timeout)
        self.producer = RabbitMQProducer(self.settings.url, broker=self._broker, **settings)

    @property
    def handlers(self) -> tuple[Registration, ...]:
        """What is registered, in the order of registration."""
        return tuple(self._router)

    @property
    def store(self) -> IdempotencyStore:
        """Where the outcome of each handled message is kept."""
        return self._store

    def handler[**P, R](
        self, queue: str, **options: Unpack[HandlerKwargs]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register the decorated function for `queue`; see `Router.handler`."""
        return self._router.handler(queue, **options)

    def include(
        self,
        router: Router,
        *,
        queues: Container[str] | None = None,
        overrides: Mapping[str, HandlerKwargs] | None = None,
    ) -> None:
        """Take over a router's handlers; see `Router.include`."""
        self._router.include(router, queues=queues, overrides=overrides)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why messages are not being handled right now, in words; empty while they are."""
        group = self._runner.group
        if group is None:
            return ("not consuming",)
        lost = (str(group.lost.result()),) if group.lost.done() else ()
        return lost + group.flow.reasons

    async def backlog(self) -> int:
        """How many messages there are to handle now: ready in the consumed queues, or in hand.

        Those in the delay line are not counted, and one on its way to us may not be: ask twice.

        Raises:
            QueueNotFound: a queue is not declared yet.
        """
        group = self._runner.group
        depths = [await self._broker.depth(entry.queue) for entry in self._router]
        return sum(depths) + (group.in_hand if group is not None else 0)

    async def connect(self) -> None:
        """Connect. Idempotent; `async with` does it.

        Raises:
            BrokerUnavailable: no answer within ``startup_timeout``.
            AccessRefused: login, vhost or permission.
        """
        if self._connected:
            return
        self._connecting = self._connecting or asyncio.Lock()
        async with self._connecting:
            if self._owns_broker:
                await self._broker.open()
            await self.producer.connect()
            self._connected = True

    async def start_consuming(self) -> None:
        """Consume every handler's queue; returns once messages can come.

        Raises:
            ConfigError: there is no handler.
            TopologyMismatch: a queue exists with other arguments.
            BrokerUnavailable, AccessRefused: as `connect`.
        """
        await self._runner.start()

    async def run(self) -> None:
        """Consume until `stop`, SIGINT or SIGTERM, then drain; the second signal leaves at once.

        Raises:
            BrokerError: a consumer ended by itself (queue deleted, connection lost).
            ConfigError, TopologyMismatch, BrokerUnavailable, AccessRefused: as `start_consuming`.
        """
        await self._runner.run_forever()

    def stop(self) -> None:
        """Let `run` drain and return; from a signal handler or any thread, at any time."""
        self._runner.stop()

    async def stop_consuming(self, timeout: float | None = None) -> None:
        """Drain for `timeout` seconds (by default ``drain_timeout``); sending goes on."""
        await self._runner.drain(timeout)

    async def close(self) -> None:
        """Drain, give up pending requests, disconnect. Idempotent; `connect` opens everything again."""
        await self._runner.drain()
        await self.producer.close()
        if self._owns_broker:
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
        if not len(self._router):
            raise ConfigError("there is nothing to consume: decorate a function with @rmq.handler(queue)")
        await self.connect()
        return ConsumerGroup(
            self._broker,
            [(entry.handler, entry.options(self.settings)) for entry in self._router],
            settings=self.settings,
            store=self._store,
            statistics=self.statistics,
            middleware=self._middleware,
            observers=self._observers,
            threads=self._thread_pool,
            thread_context=self._thread_context,
            producer=self.producer,
            sync_producer=BlockingProducer(self.producer, asyncio.get_running_loop()),
        )
