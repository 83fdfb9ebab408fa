"""The app object: handlers, one producer, one connection, one life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal, Self, Unpack

from autosell_rmq.broker import Broker
from autosell_rmq.brokers import create_broker
from autosell_rmq.config import HandlerKwargs, Settings, SettingsKwargs, from_environment, joined
from autosell_rmq.consumer import ConsumerGroup, Runner
from autosell_rmq.exceptions import ConfigError
from autosell_rmq.health import Health
from autosell_rmq.idempotency import IdempotencyStore, Record
from autosell_rmq.link import Link
from autosell_rmq.message import SendOptions
from autosell_rmq.middleware import Middleware
from autosell_rmq.pipeline import Injector, Observer, Statistics, ThreadContext, ThreadPool
from autosell_rmq.producer import BlockingProducer, RabbitMQProducer
from autosell_rmq.router import PublishedEvent, Registration, Router


class RabbitMQ:
    """An application's RabbitMQ: decorate handlers, send by `producer`, consume by `run`.

    ::

        rmq = RabbitMQ()

        @rmq.handler("orders", max_retries=5)
        async def create_order(order: Order, message: Message) -> OrderCreated: ...

        async with rmq:
            await rmq.run()

    Args:
        url: by default ``RABBITMQ_URL``, else ``amqp://guest:guest@localhost/``; a list names several hosts.
        store: remembers what is done; by default in memory, for the life of the process.
        middleware: around every run of a handler, the first outermost.
        observers: told of every message what happened to it; see `MessageEvent`.
        thread_context: makes a context manager that is entered in the thread around each sync handler.
        thread_pool: runs the sync handlers; by default one of `threads` threads is made for each start.
        broker: use this one instead of what `url` names; it stays its owner's to open and close.
        settings: see `Settings`. ``MAX_RETRIES`` of the environment counts where `max_retries` is left out.

    Attributes:
        injector: serves the parameters of handlers that bear a framework's marker (FastAPI's ``Depends``);
            to be set before `start_consuming`. By default there is none, and such a handler is refused.

    Raises:
        ConfigError: a setting or an environment variable is wrong; it is named.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
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
        self.settings = Settings.build(joined(url) or environment.url, **settings)
        self.statistics = Statistics()
        self._middleware = tuple(middleware)
        self._thread_context = thread_context
        self._thread_pool = thread_pool
        self.injector: Injector | None = None
        self._router = Router()
        self._runner = Runner(self._make_group, drain_timeout=self.settings.drain_timeout)
        over = broker if broker is not None else create_broker(self.settings)
        self.producer = RabbitMQProducer(self.settings.url, broker=over, **settings)
        limit = self.settings.max_body_bytes
        self._link = Link(over, self.producer, store, observers, owned=broker is None, limit=limit)

    @property
    def handlers(self) -> tuple[Registration, ...]:
        """What is registered, in the order of registration."""
        return tuple(self._router)

    @property
    def events(self) -> tuple[PublishedEvent, ...]:
        """What `publishes` has declared, in that order."""
        return self._router.events

    @property
    def store(self) -> IdempotencyStore:
        """Where the outcome of each handled message is kept."""
        return self._link.store

    def handler[**P, R](
        self, queue: str, **options: Unpack[HandlerKwargs]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Register the decorated function for `queue`; see `Router.handler`."""
        return self._router.handler(queue, **options)

    def publishes(
        self,
        exchange: str,
        routing_key: str,
        payload_type: object,
        *,
        exchange_type: Literal["topic", "direct", "fanout", "headers"] = "topic",
        description: str = "",
    ) -> None:
        """Declare an event for the app's document; see `Router.publishes`."""
        self._router.publishes(
            exchange, routing_key, payload_type, exchange_type=exchange_type, description=description
        )

    def include(
        self,
        router: Router,
        *,
        queues: Container[str] | None = None,
        overrides: Mapping[str, HandlerKwargs] | None = None,
    ) -> None:
        """Take over a router's handlers and events; see `Router.include`."""
        self._router.include(router, queues=queues, overrides=overrides)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it cannot do now what it was started for, in words; empty while it can.

        To send is what it always has to do; to consume, from `start_consuming` or `run` on until the drain.
        What is lost is being opened again meanwhile.
        """
        return (*filter(None, [self._link.broker.problem]), *self._runner.problems)

    @property
    def health(self) -> Health:
        """How it is at this moment: `problems`, and what an operator asks next. For its event loop."""
        broker, group, problems = self._link.broker, self._runner.group, self.problems
        return Health(
            ready=not problems,
            problems=problems,
            connected=broker.problem is None or broker.blocked,
            blocked=broker.blocked,
            reconnects=broker.reconnects,
            loop_lag=group.loop_lag if group is not None else 0.0,
            consumers=group.health if group is not None else (),
        )

    async def backlog(self) -> int:
        """How many messages there are to handle now: ready in the consumed queues, or in hand.

        Those in the delay line are not counted, and one on its way to us may not be: ask twice.

        Raises:
            QueueNotFound: a queue is not declared yet.
        """
        group = self._runner.group
        depths = [await self._link.broker.depth(entry.queue) for entry in self._router]
        return sum(depths) + (group.in_hand if group is not None else 0)

    async def connect(self) -> None:
        """Connect. Idempotent; `async with` does it.

        Raises:
            BrokerUnavailable: no answer within ``startup_timeout``.
            AccessRefused: login, vhost or permission.
            ClosedError: it is connected on another event loop.
        """
        await self._link.open()

    async def accept(
        self,
        queue_name: str,
        message_data: object,
        *,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> str:
        """Send without waiting for an answer, so that `lookup` can tell from now on what becomes of it.

        Returns the correlation id once the broker has the message stored, or once it is known that a message
        under this id is being handled or done: then nothing is sent. One that has only been accepted is
        sent again, for it may never have been; one that has failed is, too. The store and the handler see to
        it that all of this has one effect, and this app's `store` has to be the one of the queue's consumer.
        After an error, call again under the same id.

        Args:
            queue_name: an existing queue, whose handler takes the correlation id for its key (the default).
            message_data: anything that pydantic writes as JSON, the same for the same id.
            correlation_id: by default a new one.
            options: see `SendOptions`.

        Raises:
            IdConflict: the id was used before with other data.
            ConfigError: this app's own handler of the queue has another `idempotency_key`.
            ClosedError: the app is not connected.
            StoreUnavailable: the store does not answer; nothing was sent.
            PublishUnroutable, PublishNacked, PublishUnknown, BrokerUnavailable, EncodeError: as
                `RabbitMQProducer.send_message`.
        """
        here = self._check_key_of(queue_name)
        await self._link.open_store()
        return await self._link.acceptance.accept(
            queue_name, message_data, correlation_id, options, here=here
        )

    async def lookup(self, queue_name: str, correlation_id: str) -> Record | None:
        """What the store knows of a message; None for one of which nothing is known (any more).

        Raises:
            ConfigError, ClosedError, StoreUnavailable: as `accept`.
        """
        self._check_key_of(queue_name)
        await self._link.open_store()
        return await self._link.acceptance.lookup(queue_name, correlation_id)

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
            BrokerError: a consumer was lost, and not found again within ``reconnect_timeout``, if set.
            ConfigError, TopologyMismatch, BrokerUnavailable, AccessRefused: as `start_consuming`.
        """
        await self._runner.run_forever()

    def stop(self) -> None:
        """Let `run` drain and return; from a signal handler or any thread, at any time."""
        self._runner.stop()

    async def stop_consuming(self, timeout: float | None = None) -> None:
        """Drain for `timeout` seconds (by default ``drain_timeout``); sending goes on.

        Cancelled, it cuts the handlers that still run short; their messages go back.
        """
        await self._runner.drain(timeout)

    async def close(self) -> None:
        """Drain, give up pending requests, disconnect. Idempotent; `connect` opens everything again."""
        await self._runner.drain()
        await self._link.close()

    def rewired(
        self, broker: Broker, store: IdempotencyStore, observer: Observer
    ) -> AbstractContextManager[None]:
        """For `autosell_rmq.testing`: work over these meanwhile; see `Link.rewired`."""
        return self._link.rewired(broker, store, observer)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _check_key_of(self, queue: str) -> bool:
        """Whether the queue's handler is here; refuses one whose messages go under other ids."""
        [*mine] = (entry for entry in self._router if entry.queue == queue)
        for entry in mine:
            key = entry.options(self.settings).idempotency_key
            if key is None or key == "message_id":
                raise ConfigError(
                    f"queue {queue!r}: its handler has idempotency_key={key!r}, so nothing can be known of a"
                    ' message by its correlation id: set idempotency_key="correlation_id"'
                )
        return bool(mine)

    async def _make_group(self) -> ConsumerGroup:
        if not len(self._router):
            raise ConfigError("there is nothing to consume: decorate a function with @rmq.handler(queue)")
        await self.connect()
        return ConsumerGroup(
            self._link.broker,
            [(entry.handler, entry.options(self.settings)) for entry in self._router],
            settings=self.settings,
            store=self._link.store,
            statistics=self.statistics,
            middleware=self._middleware,
            observers=self._link.observers,
            threads=self._thread_pool,
            thread_context=self._thread_context,
            injector=self.injector,
            producer=self.producer,
            sync_producer=BlockingProducer(self.producer, asyncio.get_running_loop()),
        )
