"""Putting our frame reader under the client library, by its transport factory."""

from __future__ import annotations

import asyncio
from typing import Any, Final, override
from weakref import WeakKeyDictionary, ref

from aio_pika import Connection
from aio_pika.abc import ConnectionParameter
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from autosell_rmq import forks
from autosell_rmq.brokers.rabbitmq.frames.listener import ChannelListener
from autosell_rmq.brokers.rabbitmq.frames.protocol import FrameProtocol
from autosell_rmq.exceptions import BrokerUnavailable

# Weak on both sides: an error that a reader keeps leads back to its connection.
_readers: Final[WeakKeyDictionary[AbstractConnection, ref[FrameProtocol]]] = WeakKeyDictionary()


class FramedConnection(Connection):
    """A connection of the client library that reads its frames with a `FrameProtocol`."""

    PARAMETERS = (
        *Connection.PARAMETERS,
        ConnectionParameter("transport_factory", parser=lambda given: given, is_kwarg=True),
    )

    def __init__(self, url: URL, **kwargs: Any) -> None:  # noqa: ANN401 - as the client library takes them
        self._factory = _FrameTransports()
        super().__init__(url, transport_factory=self._factory, **kwargs)

    @override
    async def connect(self, timeout: float | None = None) -> None:
        await super().connect(timeout)
        if self.transport is not None and self._factory.protocol is not None:
            read_by(self.transport.connection, self._factory.protocol)


def read_by(connection: AbstractConnection, protocol: FrameProtocol) -> None:
    """Have `frames_of` find the reader of a connection."""
    _readers[connection] = ref(protocol)


def frames_of(connection: AbstractConnection) -> FrameProtocol:
    """The reader of a connection that a `FramedConnection` opened.

    Raises:
        BrokerUnavailable: the connection is gone.
    """
    found = _readers[connection]()
    if found is None:
        raise BrokerUnavailable("the connection to RabbitMQ was lost")
    return found


def listen(channel: AbstractChannel, listener: ChannelListener) -> FrameProtocol:
    """Take what comes over a channel, until it is closed; consume on it with `unheard` as the callback."""
    frames = frames_of(channel.connection)
    frames.listen(channel.number, listener)
    channel.closing.add_done_callback(lambda _: frames.forget(channel.number, listener))
    return frames


async def unheard(_: object) -> None:
    """What the client library would call with deliveries: they do not come to it."""


class _FrameTransports(TransportFactory):
    """Opens a stream as `asyncio.open_connection` does, with our protocol; one connection each."""

    def __init__(self) -> None:
        self.protocol: FrameProtocol | None = None

    @override
    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        assert url.host is not None
        assert url.port is not None
        loop = asyncio.get_running_loop()
        if not isinstance(loop, asyncio.BaseEventLoop):  # uvloop tries one address after the other
            kwargs.pop("happy_eyeballs_delay", None)
        reader = asyncio.StreamReader(loop=loop)
        self.protocol = protocol = FrameProtocol(reader, loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host, url.port, ssl=context, **kwargs
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        forks.own(protocol, transport)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
