"""Many messages from a thread, or from another event loop than the producer's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Unpack

from autosell_rmq.message import SendOptions
from autosell_rmq.producer.crossing import Crossing, Submit, check_thread
from autosell_rmq.producer.many import WINDOW, Pace, SendsMany, Source
from autosell_rmq.producer.results import OnProgress, SendResult


class SendsManyBlocking(ABC):
    """`send_many` and `publish_many` for threads."""

    @abstractmethod
    def _sender(self) -> tuple[SendsMany, Submit]:
        """The producer, and how to start a call of it from here."""

    def send_many(
        self,
        queue_name: str,
        messages: Iterable[object],
        *,
        window: int = WINDOW,
        on_progress: OnProgress | None = None,
        correlation_id_of: Callable[[Any], str] | None = None,
        only_failures: bool = False,
        **options: Unpack[SendOptions],
    ) -> list[SendResult]:
        """See `RabbitMQProducer.send_many`; `messages` and `on_progress` are called in this thread."""
        check_thread()
        pace = Pace(window=window, on_progress=on_progress, only_failures=only_failures)
        return self._messages(queue_name, pace, correlation_id_of, options).run(messages)

    def publish_many(
        self,
        exchange_name: str,
        events: Iterable[tuple[str, object]],
        exchange_type: str = "topic",
        *,
        mandatory: bool = True,
        window: int = WINDOW,
        on_progress: OnProgress | None = None,
        correlation_id_of: Callable[[Any], str] | None = None,
        only_failures: bool = False,
        **options: Unpack[SendOptions],
    ) -> list[SendResult]:
        """See `RabbitMQProducer.publish_many`; `events` and `on_progress` are called in this thread."""
        check_thread()
        pace = Pace(window=window, on_progress=on_progress, only_failures=only_failures)
        crossing = self._events(
            exchange_name, pace, correlation_id_of, options, exchange_type, mandatory=mandatory
        )
        return crossing.run(events)

    def _messages(
        self, queue: str, pace: Pace, id_of: Callable[[Any], str] | None, options: SendOptions
    ) -> Crossing[object]:
        producer, submit = self._sender()

        def send(chunk: Sequence[object], pace: Pace) -> Coroutine[Any, Any, list[SendResult]]:
            return producer.send_paced(queue, chunk, pace, id_of, options)

        return Crossing(send, pace, submit)

    def _events(
        self,
        exchange: str,
        pace: Pace,
        id_of: Callable[[Any], str] | None,
        options: SendOptions,
        exchange_type: str,
        *,
        mandatory: bool,
    ) -> Crossing[tuple[str, object]]:
        producer, submit = self._sender()

        def send(chunk: Sequence[tuple[str, object]], pace: Pace) -> Coroutine[Any, Any, list[SendResult]]:
            return producer.publish_paced(
                exchange, chunk, pace, id_of, options, exchange_type, mandatory=mandatory
            )

        return Crossing(send, pace, submit)


class SendsManyAnywhere(SendsManyBlocking):
    """The same, and for async code on any event loop."""

    async def asend_many(
        self,
        queue_name: str,
        messages: Source[object],
        *,
        window: int = WINDOW,
        on_progress: OnProgress | None = None,
        correlation_id_of: Callable[[Any], str] | None = None,
        only_failures: bool = False,
        **options: Unpack[SendOptions],
    ) -> list[SendResult]:
        """`send_many` for async code on any event loop; a cancellation reaches what is in flight."""
        pace = Pace(window=window, on_progress=on_progress, only_failures=only_failures)
        return await self._messages(queue_name, pace, correlation_id_of, options).arun(messages)

    async def apublish_many(
        self,
        exchange_name: str,
        events: Source[tuple[str, object]],
        exchange_type: str = "topic",
        *,
        mandatory: bool = True,
        window: int = WINDOW,
        on_progress: OnProgress | None = None,
        correlation_id_of: Callable[[Any], str] | None = None,
        only_failures: bool = False,
        **options: Unpack[SendOptions],
    ) -> list[SendResult]:
        """`publish_many` for async code on any event loop."""
        pace = Pace(window=window, on_progress=on_progress, only_failures=only_failures)
        crossing = self._events(
            exchange_name, pace, correlation_id_of, options, exchange_type, mandatory=mandatory
        )
        return await crossing.arun(events)
