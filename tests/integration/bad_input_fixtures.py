"""A service with one queue, on either broker, that bad input is thrown at, and what is seen from outside."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Unpack

import pika  # type: ignore[import-untyped]
import pytest

from autosell_rmq import Message, RabbitMQ
from autosell_rmq.broker import Broker
from autosell_rmq.codec import Envelope, decode, restore
from autosell_rmq.config import HandlerKwargs, SettingsKwargs
from autosell_rmq.idempotency import IdempotencyStore
from autosell_rmq.message import Properties
from tests.support import services
from tests.support.broker_labs import BrokerLab, MemoryLab, RabbitLab
from tests.support.inbox import Inbox
from tests.support.names import unique
from tests.support.publications import send, to
from tests.support.waiting import eventually

BROKERS: Final = ["memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]

_TICK = 0.5  # seconds that a virtual clock moves between two looks


class Recorder:
    """A handler that keeps what it was called with, and fails with `error` where there is one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.payloads: list[object] = []
        self.messages: list[Message] = []

    @property
    def runs(self) -> int:
        return len(self.messages)

    async def __call__(self, payload: object, message: Message) -> object:
        self.payloads.append(payload)
        self.messages.append(message)
        if self.error is not None:
            raise self.error.with_traceback(None)  # or each raise would make it longer
        return payload


def publish_by_pika(queue: str, body: bytes, **properties: Any) -> None:  # noqa: ANN401 - as pika takes them
    """Publish to RabbitMQ with these properties and none besides: ours always adds a message id."""
    connection = pika.BlockingConnection(pika.URLParameters(services.RABBITMQ_URL))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", queue, body, pika.BasicProperties(**properties), mandatory=True)
    finally:
        connection.close()


class Service:
    """One app with one handler, and the queues around it."""

    def __init__(self, lab: BrokerLab, outside: Broker, app: RabbitMQ, queue: str, dlq: str) -> None:
        self.lab = lab
        self.outside = outside
        self.app = app
        self.queue = queue
        self.dlq = dlq
        self.reply_queue = ""
        self._replies: Inbox | None = None
        self._letters: Inbox | None = None

    async def send(self, body: bytes = b"{}", /, **properties: object) -> str | None:
        """Publish a request from outside; its reply comes to `reply`. Returns its correlation id."""
        await self.listen()
        asked: dict[str, Any] = {"correlation_id": unique("id"), "reply_to": self.reply_queue}
        asked |= properties
        await send(self.outside, to(self.queue, body, Properties(**asked)))
        sent_as: str | None = asked["correlation_id"]
        return sent_as

    async def send_without_ids(self, body: bytes, *, correlation_id: str | None = None) -> None:
        """Publish as a client that stamps nothing; the reply comes to `reply`."""
        await self.listen()
        if isinstance(self.lab, MemoryLab):
            properties = Properties(correlation_id=correlation_id, reply_to=self.reply_queue)
            await send(self.outside, to(self.queue, body, properties))
        else:
            publish_by_pika(self.queue, body, correlation_id=correlation_id, reply_to=self.reply_queue)

    async def listen(self) -> None:
        """Have a reply queue, and read it."""
        if self._replies is None:
            self.reply_queue = await self.lab.queue(self.outside)
            self._replies = await Inbox.of(self.outside, self.reply_queue)

    async def reply(self) -> dict[str, Any]:
        """The next reply."""
        message = await self.reply_message()
        reply = decode(message.body)
        assert isinstance(reply, dict)
        return reply

    async def reply_message(self) -> Message:
        assert self._replies is not None, "nothing was sent that could be answered"
        return await self._next(self._replies)

    async def letter(self) -> Message:
        """The next message of the DLQ, as it lies there."""
        if self._letters is None:
            self._letters = await Inbox.of(self.outside, self.dlq)
        return await self._next(self._letters)

    async def dead(self) -> Envelope:
        """The next message of the DLQ, taken apart."""
        return restore((await self.letter()).body)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition while time passes, the virtual one too."""

        async def holds() -> bool:
            await self.lab.pass_time(_TICK)
            return condition()

        await eventually(holds)

    async def leftovers(self) -> tuple[int, int]:
        """Stop consuming; how many messages are in the work queue and, beyond those read, in the DLQ.

        What was unacked would be back in its queue.
        """
        await self.app.stop_consuming()
        unread = self._letters.deliveries.qsize() if self._letters else await self.lab.depth(self.dlq)
        return await self.lab.depth(self.queue), unread

    async def _next(self, inbox: Inbox) -> Message:
        await self.until(lambda: not inbox.deliveries.empty())
        delivery = inbox.deliveries.get_nowait()
        await delivery.ack()
        return delivery.message


class Serve:
    """Starts services on one broker; the queues are deleted at the end."""

    def __init__(self, lab: BrokerLab, outside: Broker, stack: AsyncExitStack) -> None:
        self.lab = lab
        self.outside = outside
        self._stack = stack

    async def __call__(
        self,
        handler: Callable[..., object],
        *,
        settings: SettingsKwargs | None = None,
        store: IdempotencyStore | None = None,
        start: bool = True,
        queue: str | None = None,
        **options: Unpack[HandlerKwargs],
    ) -> Service:
        queue = queue or unique("bad")
        dlq = options.get("dlq", f"{queue}_dlq")
        app = RabbitMQ(broker=await self.lab.open(), store=store, **(settings or {}))
        app.handler(queue, **options)(handler)
        service = Service(self.lab, self.outside, app, queue, dlq)
        self._stack.push_async_callback(self._end, service)
        if start:
            await app.start_consuming()
        return service

    async def _end(self, service: Service) -> None:
        await service.app.stop_consuming(0)
        await service.app.close()
        for name in (service.queue, service.dlq):
            await self.lab.delete_queue(name)


@asynccontextmanager
async def serving(broker: str) -> AsyncGenerator[Serve]:
    """A place to start services in: ``memory`` or ``rabbitmq``."""
    async with AsyncExitStack() as stack:
        if broker == "memory":
            lab: BrokerLab = await stack.enter_async_context(MemoryLab())
        else:
            services.require("rabbitmq")
            lab = await stack.enter_async_context(RabbitLab())
        yield Serve(lab, await lab.open(), stack)
