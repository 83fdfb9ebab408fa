"""A stage for apps, on either broker: queues of its own, a look at what comes out, nothing left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal, Unpack

from autosell_rmq import Message, Middleware, RabbitMQ, RabbitMQProducer
from autosell_rmq.broker import Broker
from autosell_rmq.brokers import create_broker
from autosell_rmq.config import Settings, SettingsKwargs
from autosell_rmq.idempotency import IdempotencyStore
from autosell_rmq.message import NO_HEADERS, Headers, Properties
from autosell_rmq.testing import Faults, FaultyBroker
from autosell_rmq.topology import Queue, Topology
from tests.support.inbox import Inbox
from tests.support.names import unique
from tests.support.publications import send, to
from tests.support.waiting import PATIENCE, eventually

_TICK = 0.25  # seconds that a virtual clock moves between two looks

type Kind = Literal["memory", "rabbitmq"]


class Stage:
    """One broker, seen from outside the apps that play on it."""

    def __init__(self, kind: Kind, url: str, outside: Broker, stack: AsyncExitStack) -> None:
        self.kind = kind
        self.url = url
        self.outside = outside
        self.stack = stack
        self.queues: list[str] = []
        self.exchanges: list[str] = []
        self._replies: Inbox | None = None
        self._reply_queue = ""
        self._listening = asyncio.Lock()
        self._answers: dict[str, list[Message]] = {}

    # --- names, apps, connections -----------------------------------------------------------------

    def queue(self, purpose: str = "queue") -> str:
        """A name of its own; the queue and its ``…_dlq`` are deleted at the end."""
        name = unique(purpose)
        self.queues += [name, f"{name}_dlq"]
        return name

    def exchange(self) -> str:
        """A name of its own; the exchange is deleted at the end."""
        name = unique("exchange")
        self.exchanges.append(name)
        return name

    async def declared(self, arguments: Headers = NO_HEADERS) -> str:
        """A new queue that exists, with its DLQ."""
        name = self.queue()
        dlq = Queue(name=f"{name}_dlq")
        await self.outside.declare(Topology(queues=(dlq, Queue(name=name, arguments=arguments))))
        return name

    def app(
        self,
        *,
        store: IdempotencyStore | None = None,
        middleware: Sequence[Middleware] = (),
        **settings: Unpack[SettingsKwargs],
    ) -> RabbitMQ:
        """An app on connections of its own, closed at the end without waiting for its handlers."""
        return self._closing(RabbitMQ(self.url, store=store, middleware=middleware, **settings))

    async def faulty_app(
        self, faults: Faults, *, store: IdempotencyStore | None = None, **settings: Unpack[SettingsKwargs]
    ) -> RabbitMQ:
        """An app whose calls of the broker go wrong as planned, and are tried again at once."""
        broker = FaultyBroker(await self.connection(), faults)
        patient: SettingsKwargs = {"backoff": 0.01, "max_backoff": 0.02, **settings}
        return self._closing(RabbitMQ(self.url, broker=broker, store=store, **patient))

    def _closing(self, app: RabbitMQ) -> RabbitMQ:
        """Close an app at the end without waiting for its handlers."""

        async def close() -> None:
            await app.stop_consuming(0)
            await app.close()

        self.stack.push_async_callback(close)
        return app

    def producer(self, **settings: Unpack[SettingsKwargs]) -> RabbitMQProducer:
        """A producer on a connection of its own."""
        producer = RabbitMQProducer(self.url, **settings)
        self.stack.push_async_callback(producer.close)
        return producer

    async def connection(self) -> Broker:
        """A connection of its own."""
        broker = create_broker(Settings(url=self.url, startup_timeout=PATIENCE))
        await broker.open()
        self.stack.push_async_callback(broker.close)
        return broker

    # --- messages in and out ----------------------------------------------------------------------

    async def ask(
        self,
        queue: str,
        data: object = None,
        /,
        *,
        body: bytes | None = None,
        **wire: Any,  # noqa: ANN401 - the fields of Properties
    ) -> str:
        """Publish a request from outside and return its correlation id; `reply` has what comes of it."""
        await self._listen()
        asked = {"correlation_id": unique("id"), "reply_to": self._reply_queue, **wire}
        body = json.dumps(data).encode() if body is None else body
        await send(self.outside, to(queue, body, Properties(**asked)))
        return asked["correlation_id"] or ""

    async def reply(self, correlation_id: str) -> dict[str, Any]:
        """The next reply to a request."""
        reply = json.loads((await self.reply_message(correlation_id)).body)
        assert isinstance(reply, dict)
        return reply

    async def reply_message(self, correlation_id: str) -> Message:
        """The next reply to a request, as it came."""

        def came() -> bool:
            self._collect()
            return bool(self._answers.get(correlation_id))

        await self.until(came)
        return self._answers[correlation_id].pop(0)

    def replies(self, correlation_id: str) -> int:
        """How many replies to a request are there, unread."""
        self._collect()
        return len(self._answers.get(correlation_id, []))

    async def letter_message(self, queue: str) -> Message:
        """The next message of a queue's DLQ, as it lies there."""
        inbox = await Inbox.of(self.outside, f"{queue}_dlq", prefetch=1)
        try:
            await self.until(lambda: not inbox.deliveries.empty())
            delivery = inbox.deliveries.get_nowait()
            await delivery.ack()
        finally:
            await inbox.subscription.cancel()
            await inbox.subscription.close()
        return delivery.message

    async def letter(self, queue: str) -> dict[str, Any]:
        """The next envelope of a queue's DLQ."""
        letter = json.loads((await self.letter_message(queue)).body)
        assert isinstance(letter, dict)
        return letter

    async def _listen(self) -> None:
        async with self._listening:
            if self._replies is None:
                self._reply_queue = unique("replies")
                self.queues.append(self._reply_queue)
                await self.outside.declare(Topology(queues=(Queue(name=self._reply_queue),)))
                self._replies = await Inbox.of(self.outside, self._reply_queue, prefetch=1000)

    def _collect(self) -> None:
        while self._replies is not None and not self._replies.deliveries.empty():
            message = self._replies.deliveries.get_nowait().message
            self._answers.setdefault(message.correlation_id or "", []).append(message)

    # --- time -------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
        """Wait for a condition while time passes, the virtual one too."""

        async def holds() -> bool:
            await self.pass_time(_TICK)
            answer = condition()
            return answer if isinstance(answer, bool) else await answer

        await eventually(holds)

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass where time is virtual; elsewhere it passes by itself."""

    # --- the broker -------------------------------------------------------------------------------

    async def depth(self, queue: str) -> int:
        """How many messages are ready; 0 for no queue."""
        raise NotImplementedError

    async def has(self, queue: str, depth: int) -> None:
        """Wait until so many messages are ready."""

        async def reached() -> bool:
            return await self.depth(queue) == depth

        await eventually(reached)

    async def send_bare(self, queue: str, body: bytes) -> None:
        """Publish a message without any property, as a foreign client may."""
        raise NotImplementedError

    async def delete_queue(self, queue: str) -> None:
        raise NotImplementedError

    async def delete_exchange(self, exchange: str) -> None:
        raise NotImplementedError


class Gate:
    """A handler waits here until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = 0
        self.cancelled = 0
        self.opened = asyncio.Event()

    async def __call__(self) -> None:
        self.entered += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def has(self, waiting: int) -> None:
        """Wait until so many have come here."""
        await eventually(lambda: self.entered >= waiting)

    def open(self) -> None:
        self.opened.set()
