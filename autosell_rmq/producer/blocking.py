"""The producer as a thread sees it: each call waits until the event loop has done it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Unpack, override

from autosell_rmq.exceptions import ClosedError
from autosell_rmq.message import SendOptions
from autosell_rmq.pipeline import result_of
from autosell_rmq.producer.crossing import Submit, check_thread
from autosell_rmq.producer.many_blocking import SendsManyBlocking
from autosell_rmq.producer.producer import RabbitMQProducer


class BlockingProducer(SendsManyBlocking):
    """`RabbitMQProducer` for threads; the loop it belongs to runs in another one.

    An interrupted wait (KeyboardInterrupt) cancels the call on the loop.
    """

    def __init__(self, producer: RabbitMQProducer, loop: asyncio.AbstractEventLoop) -> None:
        self._producer = producer
        self._loop = loop

    def connect(self) -> None:
        """See `RabbitMQProducer.connect`."""
        self._wait(self._producer.connect())

    def send_message(
        self,
        queue_name: str,
        message_data: object,
        wait_for_response: bool = True,
        timeout: float = 30.0,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> dict[str, Any]:
        """See `RabbitMQProducer.send_message`."""
        return self._wait(
            self._producer.send_message(
                queue_name, message_data, wait_for_response, timeout, correlation_id, **options
            )
        )

    def send_fire_and_forget(
        self,
        queue_name: str,
        message_data: object,
        *,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> str:
        """See `RabbitMQProducer.send_fire_and_forget`."""
        return self._wait(
            self._producer.send_fire_and_forget(
                queue_name, message_data, correlation_id=correlation_id, **options
            )
        )

    def publish_to_exchange(
        self,
        exchange_name: str,
        routing_key: str,
        message_data: object,
        exchange_type: str = "topic",
        *,
        correlation_id: str | None = None,
        mandatory: bool = True,
        **options: Unpack[SendOptions],
    ) -> str:
        """See `RabbitMQProducer.publish_to_exchange`."""
        return self._wait(
            self._producer.publish_to_exchange(
                exchange_name,
                routing_key,
                message_data,
                exchange_type,
                correlation_id=correlation_id,
                mandatory=mandatory,
                **options,
            )
        )

    @override
    def _sender(self) -> tuple[RabbitMQProducer, Submit]:
        return self._producer, self.submit

    def _wait[T](self, call: Coroutine[Any, Any, T]) -> T:
        try:
            check_thread()
        except ClosedError:
            call.close()
            raise
        future = self.submit(call)
        try:
            return result_of(future)
        except BaseException:
            future.cancel()
            raise

    def submit[T](self, call: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a call of the producer on its loop, from any thread.

        Raises:
            ClosedError: the loop has ended.
        """
        try:
            return asyncio.run_coroutine_threadsafe(call, self._loop)
        except RuntimeError:
            call.close()
            raise ClosedError("the event loop of this producer has ended") from None
