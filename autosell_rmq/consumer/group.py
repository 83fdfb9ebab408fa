"""The consumers of one app: started together, drained together under one deadline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from autosell_rmq.broker import Broker
from autosell_rmq.config import HandlerOptions, Settings
from autosell_rmq.consumer.consumer import Consumer
from autosell_rmq.consumer.flow import Flow
from autosell_rmq.consumer.homecoming import Homecoming
from autosell_rmq.consumer.loop_watch import LoopWatch
from autosell_rmq.consumer.settlement import Settlement
from autosell_rmq.consumer.watchdog import watch
from autosell_rmq.exceptions import ConfigError
from autosell_rmq.health import ConsumerHealth
from autosell_rmq.idempotency import IdempotencyStore
from autosell_rmq.message import NO_PRODUCER, NO_SYNC_PRODUCER, MessageProducer, SyncMessageProducer
from autosell_rmq.middleware import Middleware
from autosell_rmq.pipeline import (
    Handler,
    Injector,
    Observer,
    Pipeline,
    Statistics,
    Surroundings,
    ThreadContext,
    ThreadPool,
)

logger = logging.getLogger(__name__)

_MOST_THREADS = 8
_STATISTICS_EVERY = 60.0  # seconds


class ConsumerGroup:
    """What an app consumes. Single use: a new one is made for each start.

    Attributes:
        statistics: the counters of all its queues.
        flow: whether handlers may start, and if not, why.
        lost: done with the reason once a consumer is given up; see the setting ``reconnect_timeout``.
    """

    def __init__(
        self,
        broker: Broker,
        handlers: Sequence[tuple[Handler | None, HandlerOptions]],
        *,
        settings: Settings,
        store: IdempotencyStore,
        statistics: Statistics,
        middleware: Sequence[Middleware] = (),
        observers: Sequence[Observer] = (),
        threads: ThreadPool | None = None,
        thread_context: ThreadContext | None = None,
        injector: Injector | None = None,
        producer: MessageProducer = NO_PRODUCER,
        sync_producer: SyncMessageProducer = NO_SYNC_PRODUCER,
    ) -> None:
        self._broker = broker
        self._handlers = handlers
        self._settings = settings
        self._store = store
        self._middleware = middleware
        self._observers = observers
        self._thread_context = thread_context
        self._injector = injector
        self._producer = producer
        self._sync_producer = sync_producer
        self._consumers: list[Consumer] = []
        self._threads = threads or ThreadPool(settings.threads or _threads(handlers))
        self._reported = ""
        self._report: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None
        self._homecoming = Homecoming(broker, settings)
        self._loop_watch = LoopWatch()
        self.statistics = statistics
        self.flow = Flow()
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    @property
    def in_hand(self) -> int:
        """Deliveries that are not settled."""
        return sum(consumer.in_hand for consumer in self._consumers)

    @property
    def health(self) -> tuple[ConsumerHealth, ...]:
        """Of each consumer."""
        return tuple(consumer.health for consumer in self._consumers)

    @property
    def loop_lag(self) -> float:
        """By how many seconds the event loop is late."""
        return self._loop_watch.lag

    @property
    def problems(self) -> tuple[str, ...]:
        """Why something is not consumed right now."""
        detached = (consumer.attachment.problem for consumer in self._consumers)
        return tuple(dict.fromkeys(filter(None, detached))) + self.flow.reasons

    async def start(self) -> None:
        """Open the store and start every consumer; on a failure none is left running."""
        for handler, options in self._handlers:
            _check_effect(handler, options, self._store)
        around = Surroundings(
            settings=self._settings,
            store=self._store,
            threads=self._threads,
            statistics=self.statistics,
            vhost=self._broker.vhost,
            now=self._broker.now,
            middleware=self._middleware,
            observers=self._observers,
            thread_context=self._thread_context,
            injector=self._injector,
            producer=self._producer,
            sync_producer=self._sync_producer,
        )
        pipelines = [
            (Pipeline(handler, options, around), options) for handler, options in self._handlers
        ]  # all of them first: a handler that cannot be served ends the start
        await self._store.open()
        if not self._store.durable:
            logger.warning(
                "idempotency is kept in this process's memory: a duplicate is recognised neither after a"
                " restart nor by another process (pass store=RedisStore(…) for that)"
            )
        settlement = Settlement(
            self._broker,
            self._settings,
            self.statistics,
            self.flow,
            own_queues=self._own_queues(),
            observers=self._observers,
        )

        def on_attached() -> None:
            settlement.forget_declared()
            self._homecoming.look()

        self._loop_watch.start()
        try:
            for pipeline, options in pipelines:
                consumer = Consumer(
                    self._broker,
                    options,
                    self._settings,
                    pipeline,
                    settlement,
                    self.flow,
                    on_attached,
                    self._on_given_up,
                )
                await consumer.start()
                self._consumers.append(consumer)
            self._watching = asyncio.create_task(watch(self._consumers, self._broker), name="watchdog")
            self._homecoming.start()
            self._report_statistics()
        except BaseException:
            await self.drain(self._settings.drain_timeout)
            raise

    async def drain(self, timeout: float) -> None:
        """Cancel the consumers, give back what is unstarted, let handlers finish for `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        if self.in_hand:
            logger.info("draining: %d messages in hand, up to %g s", self.in_hand, timeout)
        if self._watching is not None:
            self._watching.cancel()
        # One after the other would let the later consumers start handlers meanwhile.
        await asyncio.gather(self._homecoming.stop(), *(consumer.cancel() for consumer in self._consumers))
        self._threads.stop()
        await asyncio.gather(*(consumer.drain(deadline) for consumer in self._consumers))
        self._loop_watch.stop()
        if self._report is not None:
            self._report.cancel()
        self._log_statistics()

    def _report_statistics(self) -> None:
        """Now and then, while something happens."""
        if self._report is not None:
            self._log_statistics()
        self._report = asyncio.get_running_loop().call_later(_STATISTICS_EVERY, self._report_statistics)

    def _log_statistics(self) -> None:
        current = str(self.statistics)
        if current != self._reported:
            self._reported = current
            logger.info("idempotency and handling statistics: %s", current)

    def _own_queues(self) -> list[str]:
        return [name for _, options in self._handlers for name in (options.queue, options.dlq)]

    def _on_given_up(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_result(error)


def _check_effect(handler: Handler | None, options: HandlerOptions, store: IdempotencyStore) -> None:
    """Refuse what is asked of a transaction that there is not."""
    queue, batch = options.queue, options.batch
    wanted = f"batch={batch}" if batch > 1 else 'effect="exactly_once"'
    if batch == 1 and options.effect != "exactly_once":
        return
    why = "has no transaction" if not store.transactional else "runs only sync handlers in its transaction"
    if not store.transactional or (handler is not None and handler.is_async):
        raise ConfigError(f"queue {queue!r}: {wanted} is not possible: {type(store).__name__} {why}")
    if batch > options.prefetch:
        raise ConfigError(
            f"queue {queue!r}: batch={batch} is over prefetch={options.prefetch}: never so many"
        )


def _threads(handlers: Sequence[tuple[Handler | None, HandlerOptions]]) -> int:
    """Threads for sync handlers: what may be in hand at once, within reason."""
    in_hand = sum(options.prefetch for handler, options in handlers if handler and not handler.is_async)
    return min(max(in_hand, 1), _MOST_THREADS)
