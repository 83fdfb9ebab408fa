"""One run of a handler: deadline, middleware, thread or coroutine, timeout, result as bytes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from autosell_rmq.codec import encode
from autosell_rmq.config import HandlerOptions, Settings
from autosell_rmq.deadlines import Deadlines
from autosell_rmq.idempotency import Call, IdempotencyStore
from autosell_rmq.message import (
    DEADLINE,
    NO_PRODUCER,
    NO_SYNC_PRODUCER,
    Message,
    MessageProducer,
    SyncMessageProducer,
    int_header,
)
from autosell_rmq.middleware import Middleware, Next, compose
from autosell_rmq.pipeline.decide import Expired
from autosell_rmq.pipeline.events import Observer
from autosell_rmq.pipeline.handler import Handler
from autosell_rmq.pipeline.in_thread import HandlerThreads, HandOver, ThreadContext, call_here
from autosell_rmq.pipeline.injection import Injecting, Injector, planned
from autosell_rmq.pipeline.statistics import Statistics
from autosell_rmq.pipeline.threads import ThreadPool

_REPLY_FIELDS = 4096  # bytes that a reply may take beside the result


class HandlerTimeout(TimeoutError):
    """A run of the handler took longer than its timeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the pipelines of one app share.

    Attributes:
        now: the broker's clock; seconds since the epoch.
        threads: for sync handlers.
        thread_context: entered in the thread around each of them.
    """

    settings: Settings
    store: IdempotencyStore
    threads: ThreadPool
    statistics: Statistics
    vhost: str
    now: Callable[[], float]
    middleware: Sequence[Middleware] = ()
    observers: Sequence[Observer] = ()
    thread_context: ThreadContext | None = None
    injector: Injector | None = None
    producer: MessageProducer = NO_PRODUCER
    sync_producer: SyncMessageProducer = NO_SYNC_PRODUCER


class Execution:
    """Runs the handler of one queue.

    Attributes:
        arguments: see `Handler.arguments`.
        shows_message: whether anybody gets to see the message: the handler, a middleware, what is injected.

    Raises:
        ConfigError: a parameter of the handler cannot be served.
    """

    def __init__(self, handler: Handler, options: HandlerOptions, around: Surroundings) -> None:
        self._handler = handler
        self._options = options
        self._around = around
        self._limit = max(around.settings.max_body_bytes - _REPLY_FIELDS, 0)
        injection = planned(handler, around.injector)
        self._injecting = Injecting(injection, self._encoded) if injection is not None else None
        self._deadlines = Deadlines()
        self._invoke: HandOver = self._timed if handler.is_async else self._in_pool
        if self._injecting is not None:
            self._invoke = partial(self._injected, self._injecting)
        self.arguments = handler.arguments
        self.shows_message = bool(handler.takes_message or around.middleware or injection is not None)
        self._in_thread = HandlerThreads(
            around.threads, around.thread_context, queue=options.queue, timeout=options.timeout
        )

    def call(self, message: Message, arguments: Mapping[str, object], *, attempt: int) -> Call:
        """The run, bound to its message, as a store takes it."""
        run_sync: Callable[[], bytes] | None = None
        if not self._handler.is_async and self._options.effect != "lease":
            run_sync = partial(self._run_here, message, arguments, asyncio.get_running_loop())
        return Call(
            run=partial(self._run, message, arguments),
            run_sync=run_sync,
            in_thread=self._in_thread if run_sync else None,
            batch=self._options.batch,
            cancellable=self._handler.is_async,
            queue=message.queue,
            correlation_id=message.correlation_id,
            attempt=attempt,
        )

    async def _run(self, message: Message, arguments: Mapping[str, object]) -> bytes:
        """One run: deadline, middleware, handler, result as bytes."""
        if message.headers:
            self._check_deadline(message)
        if not self._around.middleware:
            return self._encoded(await self._invoke(message, arguments))

        async def invoke(passed: Message) -> object:
            return await self._invoke(passed, arguments)

        return self._encoded(await compose(self._around.middleware, invoke)(message))

    def _run_here(
        self, message: Message, arguments: Mapping[str, object], loop: asyncio.AbstractEventLoop
    ) -> bytes:
        """The same in the calling thread."""
        self._check_deadline(message)
        bare = not self._around.middleware and self._injecting is None
        layers = None if bare else partial(self._layers, arguments)
        return self._encoded(call_here(self._handler, message, arguments, layers, loop))

    def _layers(self, arguments: Mapping[str, object], call: HandOver) -> Next:
        """Middleware and injection around `call`."""
        injecting = self._injecting

        async def innermost(message: Message) -> object:
            if injecting is None:
                return await call(message, arguments)
            return await injecting(message, arguments, partial(call, message))

        return compose(self._around.middleware, innermost)

    def _encoded(self, result: object) -> bytes:
        return encode(result, limit=self._limit)

    def _check_deadline(self, message: Message) -> None:
        if DEADLINE not in message.headers:
            return
        deadline = int_header(message.headers, DEADLINE) / 1000
        late = self._around.now() - deadline
        if deadline and late > 0:
            raise Expired(f"the deadline was over {late:.1f} s before the attempt")

    async def _injected(
        self, injecting: Injecting, message: Message, arguments: Mapping[str, object]
    ) -> object:
        handler, timeout = self._handler, self._options.timeout
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                call = self._on_loop if handler.is_async else partial(self._untimed, limit)
                return await injecting(message, arguments, partial(call, message))
        except TimeoutError as error:
            if limit.expired():
                raise self._too_long() from error
            raise

    async def _timed(self, message: Message, arguments: Mapping[str, object]) -> object:
        run = self._deadlines.at(asyncio.get_running_loop().time() + self._options.timeout)
        try:
            with run:
                running: Any = self._handler.call(message, arguments)
                return await running
        except TimeoutError as error:
            if run.expired:
                raise self._too_long() from error
            raise

    def _too_long(self) -> HandlerTimeout:
        return HandlerTimeout(f"the handler ran longer than {self._options.timeout:g} s")

    async def _on_loop(self, message: Message, arguments: Mapping[str, object]) -> object:
        running: Any = self._handler.call(message, arguments)
        return await running

    async def _untimed(
        self, limit: asyncio.Timeout, message: Message, arguments: Mapping[str, object]
    ) -> object:
        """In a thread, which cannot be stopped: only what is injected has to come, and go, in time."""
        limit.reschedule(None)
        try:
            return await self._in_pool(message, arguments)
        finally:
            limit.reschedule(asyncio.get_running_loop().time() + self._options.timeout)

    async def _in_pool(self, message: Message, arguments: Mapping[str, object]) -> object:
        result = await self._in_thread(partial(self._handler.call, message, arguments))
        return await result if inspect.isawaitable(result) else result
