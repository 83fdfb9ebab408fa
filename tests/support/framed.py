"""Channels of the client library under our frames, with a test in the broker's place."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast, override

from aiormq.abc import AbstractConnection
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from autosell_rmq.brokers.rabbitmq.frames import FrameProtocol, read_by
from tests.support.waiting import eventually


class Wire(asyncio.Transport):
    """The writing end of a connection: keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closing = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    @override
    def is_closing(self) -> bool:
        return self.closing


def open_frames(connection: object) -> FrameProtocol:
    """Our reader and writer for a stand-in of a connection."""
    loop = asyncio.get_running_loop()
    protocol = FrameProtocol(asyncio.StreamReader(loop=loop), loop)
    protocol.connection_made(Wire())
    read_by(cast("AbstractConnection", connection), protocol)
    return protocol


def frames_in(raw: bytes) -> list[Any]:
    """What the client library reads in it."""
    found = []
    while raw:
        size, _, each = frame.unmarshal(raw)
        found.append(each)
        raw = raw[size:]
    return found


def delivery(tag: int, body: bytes, *, channel: int) -> bytes:
    """A message to a consumer, as RabbitMQ sends it."""
    properties = Basic.Properties(message_id=f"{tag:032}", correlation_id=f"{tag:032}")
    frames = (
        Basic.Deliver("ct", tag, False, "", "queue"),
        ContentHeader(0, len(body), properties),
        ContentBody(body),
    )
    return b"".join(frame.marshal(each, channel) for each in frames)


class Connection:
    """A stand-in that can be referred to weakly."""


class Channel:
    """As much of a channel as is used: the test says what RabbitMQ answers, and when it closes."""

    number = 1

    def __init__(self) -> None:
        self.connection = Connection()
        self.frames = open_frames(self.connection)
        self.wire = Wire()
        self.frames.writer.opened(self.wire)
        self.closing: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.on_consumer_cancel_callbacks: set[Any] = set()
        self.may_close = asyncio.Event()
        self.closes = 0
        self.closed = False
        self.cut_off = False
        self.cancels_fail = False
        self.may_cancel = asyncio.Event()
        self.may_cancel.set()
        self.ends_at_once = False  # its consumer

    @property
    def is_closed(self) -> bool:
        return self.closing.done()

    @property
    def sent(self) -> list[Any]:
        return frames_in(b"".join(self.wire.writes))

    @property
    def published(self) -> int:
        return sum(isinstance(each, Basic.Publish) for each in self.sent)

    async def until_published(self, number: int) -> None:
        await eventually(lambda: self.published == number)

    def confirm(self, tag: int, *, multiple: bool = False) -> None:
        self.hear(Basic.Ack(tag, multiple))

    def refuse(self, tag: int, *, multiple: bool = False) -> None:
        self.hear(Basic.Nack(tag, multiple, requeue=False))

    def give_back(self, message_id: str) -> None:
        properties = Basic.Properties(message_id=message_id)
        self.hear(
            Basic.Return(312, "NO_ROUTE", "", "queue"), ContentHeader(0, 1, properties), ContentBody(b"1")
        )

    def deliver(self, tag: int, body: bytes = b"1") -> None:
        self.frames.data_received(delivery(tag, body, channel=self.number))

    def hear(self, *frames: Any) -> None:  # noqa: ANN401 - of any class of pamqp
        self.frames.data_received(b"".join(frame.marshal(each, self.number) for each in frames))

    async def basic_qos(self, **_: object) -> None:
        pass

    async def basic_consume(self, *_: object, **__: object) -> object:
        if self.ends_at_once:
            for tell in self.on_consumer_cancel_callbacks:
                await tell(None)
        return SimpleNamespace(consumer_tag="tag")

    async def basic_cancel(self, *_: object, **__: object) -> None:
        await self.may_cancel.wait()
        if self.cancels_fail:
            raise TimeoutError
        self.wire.write(frame.marshal(Basic.CancelOk("tag"), self.number))

    async def close(self) -> None:
        self.closes += 1
        try:
            await self.may_close.wait()
        except asyncio.CancelledError:
            self.cut_off = True
            raise
        self.closed = True
