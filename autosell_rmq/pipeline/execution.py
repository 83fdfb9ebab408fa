"""One run of a handler: deadline, middleware, thread or coroutine, timeout, result as bytes."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from autosell_rmq.codec import encode
from autosell_rmq.config import HandlerOptions, Settings
from autosell_rmq.idempotency import Abandoned, Call, IdempotencyStore
from autosell_rmq.message import DEADLINE, Message, MessageProducer, SyncMessageProducer, int_header
from autosell_rmq.middleware import Middleware, compose
from autosell_rmq.pipeline.decide import Expired
from autosell_rmq.pipeline.handler import Handler
from autosell_rmq.pipeline.statistics import Statistics
from autosell_rmq.pipeline.threads import ThreadPool, finished

logger = logging.getLogger(__name__)

_REPLY_FIELDS = 4096  # bytes that a reply may take beside the result


class HandlerTimeout(TimeoutError):
    """A run of the handler took longer than its timeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the pipelines of one app share.

    Attributes:
        now: the broker's clock; seconds since the epoch.
        threads: for sync handlers.
    """

    settings: Settings
    store: IdempotencyStore
    threads: ThreadPool
    statistics: Statistics
    vhost: str
    now: Callable[[], float]
    middleware: Sequence[Middleware] = ()
    producer: MessageProducer | None = None
    sync_producer: SyncMessageProducer | None = None


class Execution:
    """Runs the handler of one queue."""

    def __init__(self, handler: Handler, options: HandlerOptions, around: Surroundings) -> None:
        self._handler = handler
        self._options = options
        self._around = around

    def arguments(self, message: Message) -> Mapping[str, object]:
        """See `Handler.arguments`."""
        return self._handler.arguments(message)

    def call(self, message: Message, arguments: Mapping[str, object]) -> Call:
        """The run, bound to its message, as a store takes it."""
        return Call(run=partial(self._run, message, arguments), run_sync=self._run_sync(message, arguments))

    async def _run(self, message: Message, arguments: Mapping[str, object]) -> bytes:
        """One run: deadline, middleware, handler, result as bytes."""
        self._check_deadline(message)

        async def invoke(passed: Message) -> object:
            return await self._invoke(passed, arguments)

        result = await compose(self._around.middleware, invoke)(message)
        return self._encoded(result)

    def _run_sync(self, message: Message, arguments: Mapping[str, object]) -> Callable[[], bytes] | None:
        handler = self._handler
        if handler.is_async or self._around.middleware:
            return None

        def run() -> bytes:
            self._check_deadline(message)
            return self._encoded(handler.call(message, arguments))

        return run

    def _encoded(self, result: object) -> bytes:
        return encode(result, limit=max(self._around.settings.max_body_bytes - _REPLY_FIELDS, 0))

    def _check_deadline(self, message: Message) -> None:
        deadline = int_header(message.headers, DEADLINE) / 1000
        late = self._around.now() - deadline
        if deadline and late > 0:
            raise Expired(f"the deadline was over {late:.1f} s before the attempt")

    async def _invoke(self, message: Message, arguments: Mapping[str, object]) -> object:
        handler, timeout = self._handler, self._options.timeout
        if not handler.is_async:
            return await self._in_thread(partial(handler.call, message, arguments))
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await cast("asyncio.Future[object]", handler.call(message, arguments))
        except TimeoutError as error:
            if limit.expired():
                raise HandlerTimeout(f"the handler ran longer than {timeout:g} s") from error
            raise

    async def _in_thread(self, function: Callable[[], object]) -> object:
        """Run a sync handler. A thread cannot be stopped, so its timeout is only reported."""
        timeout = self._options.timeout
        running = self._around.threads.submit(function)
        report = asyncio.get_running_loop().call_later(
            timeout,
            logger.error,
            "queue %s: a sync handler runs for over %g s; its message is kept until it returns",
            self._options.queue,
            timeout,
        )
        try:
            result = await finished(running)
        except asyncio.CancelledError:
            if running.running():
                raise Abandoned from None
            raise
        finally:
            report.cancel()
        return await result if inspect.isawaitable(result) else result
