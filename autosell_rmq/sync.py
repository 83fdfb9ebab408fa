"""The producer for code without an event loop: one loop per process, in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, Unpack, override

from anyio.from_thread import BlockingPortal, start_blocking_portal

from autosell_rmq import forks
from autosell_rmq.config import Settings, SettingsKwargs, from_environment, joined
from autosell_rmq.exceptions import ClosedError
from autosell_rmq.message import SendOptions
from autosell_rmq.producer import BlockingProducer, RabbitMQProducer, SendsManyAnywhere, Submit


class SyncRabbitMQProducer(SendsManyAnywhere):
    """`RabbitMQProducer` for scripts, WSGI views and threads: the same calls, each blocking its caller.

    Connects on the first call. All threads of a process share one connection; after a fork the child
    opens its own on its first call and leaves the parent's alone. One that was not closed is at exit.

    ::

        with SyncRabbitMQProducer() as producer:
            reply = producer.send_message("orders", {"item": 1})
    """

    def __init__(
        self, connection_url: str | Sequence[str] | None = None, **settings: Unpack[SettingsKwargs]
    ) -> None:
        self._url = joined(connection_url) or from_environment().url
        self._given = settings
        Settings.build(self._url, **settings)  # a wrong setting is told here, not on the first send
        self._lock = threading.Lock()
        self._running: _Running | None = None
        forks.watch(self)
        self._closed = False

    def connect(self) -> None:
        """Connect now, instead of on the first call; see `RabbitMQProducer.connect`."""
        self._here().blocking.connect()

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
        return self._here().blocking.send_message(
            queue_name, message_data, wait_for_response, timeout, correlation_id, **options
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
        return self._here().blocking.send_fire_and_forget(
            queue_name, message_data, correlation_id=correlation_id, **options
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
        return self._here().blocking.publish_to_exchange(
            exchange_name,
            routing_key,
            message_data,
            exchange_type,
            correlation_id=correlation_id,
            mandatory=mandatory,
            **options,
        )

    async def asend_message(
        self,
        queue_name: str,
        message_data: object,
        wait_for_response: bool = True,
        timeout: float = 30.0,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> dict[str, Any]:
        """`send_message` for async code on any event loop; a cancellation reaches the call."""
        here = self._here()
        call = here.producer.send_message(
            queue_name, message_data, wait_for_response, timeout, correlation_id, **options
        )
        return await asyncio.wrap_future(here.blocking.submit(call))

    async def asend_fire_and_forget(
        self,
        queue_name: str,
        message_data: object,
        *,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> str:
        """`send_fire_and_forget` for async code on any event loop."""
        here = self._here()
        call = here.producer.send_fire_and_forget(
            queue_name, message_data, correlation_id=correlation_id, **options
        )
        return await asyncio.wrap_future(here.blocking.submit(call))

    async def apublish_to_exchange(
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
        """`publish_to_exchange` for async code on any event loop."""
        here = self._here()
        call = here.producer.publish_to_exchange(
            exchange_name,
            routing_key,
            message_data,
            exchange_type,
            correlation_id=correlation_id,
            mandatory=mandatory,
            **options,
        )
        return await asyncio.wrap_future(here.blocking.submit(call))

    def close(self) -> None:
        """Disconnect and end the background thread. Idempotent."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
            _started.discard(self)
        if running is not None:
            running.stop()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @override
    def _sender(self) -> tuple[RabbitMQProducer, Submit]:
        here = self._here()
        return here.producer, here.blocking.submit

    def _here(self) -> _Running:
        """What runs in this very process, started now if it does not."""
        running = self._running
        if running is not None:
            return running
        with self._lock:
            if self._closed:
                raise ClosedError("the producer is closed: make a new one")
            if self._running is None:
                _started.add(self)
                self._running = _Running(self._url, self._given)
            return self._running

    def after_fork(self) -> None:
        """In a forked child, called by Python itself: begin anew.

        A thread that is not here any more may have held the lock.
        """
        self._lock = threading.Lock()
        # To collect what was inherited would wait for the parent's thread.
        forks.leave(self._running)
        self._running = None
        _started.discard(self)


class _Running:
    """A portal and the producer on its loop, of one process."""

    def __init__(self, url: str | None, settings: SettingsKwargs) -> None:
        self._context = start_blocking_portal(name="autosell-rmq-producer")
        self.portal: BlockingPortal = self._context.__enter__()
        self.producer = RabbitMQProducer(url, **settings)
        self.blocking = BlockingProducer(self.producer, self.portal.call(asyncio.get_running_loop))

    def stop(self) -> None:
        try:
            self.portal.call(self.producer.close)
        finally:
            self._context.__exit__(None, None, None)


# Kept until they are closed: to collect a running one would wait for its thread, wherever that happens.
_started: set[SyncRabbitMQProducer] = set()


def _close_all() -> None:
    """At exit, while the threads still run: the interpreter's own end would wait for them for ever."""
    for producer in list(_started):
        with contextlib.suppress(Exception):
            producer.close()


atexit.register(_close_all)
