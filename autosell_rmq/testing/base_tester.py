"""What a test does with messages: deliver one, see what was sent, let it go on."""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Unpack

from autosell_rmq.app import RabbitMQ
from autosell_rmq.exceptions import ConfigError, QueueNotFound
from autosell_rmq.message import SendOptions
from autosell_rmq.pipeline import MessageEvent
from autosell_rmq.producer import RabbitMQProducer
from autosell_rmq.testing.letters import DeadLetter, Failure, SentMessage
from autosell_rmq.testing.pace import Pace
from autosell_rmq.testing.recording import RecordingServer

PATIENCE = 10.0  # seconds


class BaseTester(ABC):
    """The verbs of a `RabbitMQTester`, on a `RecordingServer`.

    A subclass awaits `_begin` and `_end` on an event loop that runs beside the test, runs there what `_call`
    and `_acall` are given, and has `_observe` among the observers of each app.

    Attributes:
        failures: each attempt of a handler that failed, with its error.
    """

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self._server = RecordingServer()

    @property
    def sent(self) -> list[SentMessage]:
        """Messages, requests and events, in the order of sending. Replies and retries are not among them."""
        return self._server.sent

    # --- handling --------------------------------------------------------------------------------

    def deliver(
        self,
        queue: str,
        data: object,
        *,
        correlation_id: str | None = None,
        timeout: float = PATIENCE,
        **options: Unpack[SendOptions],
    ) -> dict[str, Any]:
        """Have the handler of `queue` handle a message; returns its reply, a success or a failure.

        Args:
            queue: one that has a handler here.
            data: anything that pydantic writes as JSON.
            correlation_id: the same twice is a duplicate; by default a new one.
            timeout: seconds of real time.
            options: of the sender, such as ``headers``.

        Raises:
            ConfigError: nobody here consumes the queue.
            ReplyTimeout: the handler took longer.
        """
        return self._call(self._deliver(queue, data, timeout, correlation_id, options))

    def deliver_event(
        self,
        exchange: str,
        routing_key: str,
        data: object,
        exchange_type: str = "topic",
        *,
        timeout: float = PATIENCE,
        **options: Unpack[SendOptions],
    ) -> None:
        """Have every handler that is bound to such an event handle it.

        Raises:
            PublishUnroutable: none is.
            TimeoutError: they took longer, in real time.
        """
        self._call(self._publish(exchange, routing_key, data, exchange_type, timeout, options))

    def run(self, timeout: float = PATIENCE) -> int:
        """Hand what was sent to the handlers that are here, and what they send in turn, until all is done.

        Returns:
            how many messages and events that were. Those for other services stay in `sent` only.

        Raises:
            TimeoutError: it took longer, in real time.
        """
        return self._call(self._run(timeout))

    def answer(self, queue: str, reply: object | Callable[[Any], object]) -> None:
        """Stand in for another service: what requests to its queue get.

        Args:
            queue: of that service.
            reply: the ``data`` of the reply, or a function that makes it of the request's data; if that
                raises, the reply is a failure. It is called beside the test: no database there.
        """
        self._server.answers[queue] = reply if callable(reply) else lambda _: reply

    def dead_letters(self, queue: str) -> list[DeadLetter]:
        """What the handler of `queue` could not handle, oldest first."""
        dlqs = {
            entry.options(app.settings).dlq
            for app in self._apps
            for entry in app.handlers
            if entry.queue == queue
        }
        try:
            return [DeadLetter.of(message) for dlq in dlqs for message in self._server.queue(dlq).messages]
        except QueueNotFound:
            return []

    # --- the same for async tests ----------------------------------------------------------------

    async def adeliver(
        self,
        queue: str,
        data: object,
        *,
        correlation_id: str | None = None,
        timeout: float = PATIENCE,
        **options: Unpack[SendOptions],
    ) -> dict[str, Any]:
        """See `deliver`."""
        return await self._acall(self._deliver(queue, data, timeout, correlation_id, options))

    async def adeliver_event(
        self,
        exchange: str,
        routing_key: str,
        data: object,
        exchange_type: str = "topic",
        *,
        timeout: float = PATIENCE,
        **options: Unpack[SendOptions],
    ) -> None:
        """See `deliver_event`."""
        await self._acall(self._publish(exchange, routing_key, data, exchange_type, timeout, options))

    async def arun(self, timeout: float = PATIENCE) -> int:
        """See `run`."""
        return await self._acall(self._run(timeout))

    # --- what a subclass says ----------------------------------------------------------------------

    @property
    @abstractmethod
    def _apps(self) -> Sequence[RabbitMQ]:
        """Whose handlers are here."""

    @abstractmethod
    def _call[T](self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop beside, from a thread that may wait."""

    @abstractmethod
    async def _acall[T](self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on the loop beside, from another loop."""

    _none = "none"  # what to say of handlers where there are none

    async def _finish(self, timeout: float) -> None:
        """Wait for what follows a message besides its handling: nothing here."""
        return

    # --- on the event loop beside ----------------------------------------------------------------

    async def _begin(self) -> None:
        self._pace = Pace(self._server)
        self._time = asyncio.create_task(self._pace.let_time_pass())
        self._producer = RabbitMQProducer(self._server.url)

    async def _end(self) -> None:
        self._time.cancel()
        await self._producer.close()

    async def _deliver(
        self, queue: str, data: object, timeout: float, correlation_id: str | None, options: SendOptions
    ) -> dict[str, Any]:
        own = self._server.own
        if queue not in own:
            raise ConfigError(f"no handler for queue {queue!r}: there are {', '.join(own) or self._none}")
        self._send_through(options)
        reply = await self._producer.send_message(queue, data, True, timeout, correlation_id, **options)
        await self._finish(timeout)
        return reply

    async def _publish(
        self, exchange: str, key: str, data: object, kind: str, timeout: float, options: SendOptions
    ) -> None:
        self._send_through(options)
        async with asyncio.timeout(timeout):
            await self._producer.publish_to_exchange(exchange, key, data, kind, **options)
            await self._pace.rest()
            await self._finish(timeout)

    async def _run(self, timeout: float) -> int:
        handed_over = 0
        async with asyncio.timeout(timeout):
            while self._server.held:
                handed_over += self._server.release(self._server.held.popleft())
                await self._pace.rest()
            await self._finish(timeout)
        return handed_over

    def _send_through(self, options: SendOptions) -> None:
        """What the test itself sends is not held."""
        self._server.let_pass(options.setdefault("message_id", uuid.uuid4().hex))

    def _observe(self, event: MessageEvent) -> None:
        """Called on the event loop of an app."""
        if event.kind == "failed" and event.error is not None:
            failure = Failure(queue=event.message.queue, attempt=event.attempt, error=event.error)
            self.failures.append(failure)
        self._pace.changed()
