"""The reading end of a connection: splits what comes into frames, and takes those of our channels out."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Final, cast, override

from autosell_rmq import forks
from autosell_rmq.brokers.rabbitmq.frames.content import Content
from autosell_rmq.brokers.rabbitmq.frames.listener import ChannelListener
from autosell_rmq.brokers.rabbitmq.frames.writer import FrameWriter

logger = logging.getLogger(__name__)

_HEAD: Final = struct.Struct(">BHI")  # of a frame: type, channel, size of its payload
_AROUND: Final = 8  # bytes of a frame beside its payload: the head and the end
_END: Final = 0xCE
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_TYPES: Final = frozenset({_METHOD, _HEADER, _BODY, _HEARTBEAT})
_RETURN: Final = bytes((0, 60, 0, 50))
_DELIVER: Final = bytes((0, 60, 0, 60))
_ACK: Final = bytes((0, 60, 0, 80))
_NACK: Final = bytes((0, 60, 0, 120))
_CLOSE: Final = bytes((0, 20, 0, 40))
_CONFIRM: Final = struct.Struct(">QB")  # of a basic.ack or basic.nack: the tag, bits
_TUNE: Final = bytes((0, 10, 0, 30))
_BLOCKED: Final = bytes((0, 10, 0, 60))
_UNBLOCKED: Final = bytes((0, 10, 0, 61))
_FRAME_MAX: Final = struct.Struct(">6xI")  # in the payload of connection.tune
_LONGEST_EVER: Final = 2**32
_HEARTBEAT_FRAME: Final = bytes((8, 0, 0, 0, 0, 0, 0, _END))
_SIGN_OF_LIFE: Final = 1.0  # seconds


class BrokenFrame(ConnectionError):
    """What came over the connection is no AMQP 0-9-1."""


class FrameProtocol(asyncio.StreamReaderProtocol):
    """Hands deliveries, returns and confirms to those that `listen`, and all else on to the client library.

    So a header that the library cannot decode ends as a message that we judge, not as a lost connection, and
    a message costs a fraction of what it costs there. Listeners are called while the data is read: nothing is
    queued, so TCP holds the broker back.

    Attributes:
        writer: takes what we send ourselves.
        frame_max: the longest frame that the broker takes, in bytes; from connection.tune.
    """

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self.writer = FrameWriter(loop)
        self.frame_max = 131_072
        self._reader = reader
        self._clock = loop.time
        self._left = b""
        self._longest = self.frame_max
        self._listeners: dict[int, ChannelListener] = {}
        self._arriving: dict[int, Content] = {}
        self._told = self._clock()
        self._broken = False

    def listen(self, channel: int, listener: ChannelListener) -> None:
        """Take what comes over this channel, which nobody else consumes or publishes on."""
        self._arriving.pop(channel, None)
        self._listeners[channel] = listener

    def forget(self, channel: int, listener: ChannelListener) -> None:
        """End `listen`: the channel is closed. Its number may belong to another one by now."""
        if self._listeners.get(channel) is listener:
            del self._listeners[channel]
            self._arriving.pop(channel, None)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.writer.opened(cast("asyncio.WriteTransport", transport))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        forks.disown(self)
        self.writer.lost()
        super().connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self.writer.filled()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self.writer.drained()

    @override
    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._broken:
            return
        if self._listeners:
            self._show_life()
        if self._left:
            data = self._left + data
        try:
            self._left = data[self._split(data) :]
        except BrokenFrame as error:
            # The client library reads this as a lost connection, and closes it.
            self._broken = True
            self._left = b""
            self._reader.set_exception(error)

    def _split(self, data: bytes) -> int:
        """Take the whole frames out of `data`; returns where the rest begins."""
        at, size = 0, len(data)
        unpack, listeners = _HEAD.unpack_from, self._listeners
        while size - at >= _AROUND - 1:
            kind, channel, length = unpack(data, at)
            if kind not in _TYPES or length > self._longest:
                raise BrokenFrame(f"a frame of type {kind} and {length} bytes: this is no AMQP 0-9-1")
            end = at + length + _AROUND
            if end > size:
                break
            if data[end - 1] != _END:
                raise BrokenFrame("a frame does not end where it says")
            listener = listeners.get(channel)
            if listener is None or not self._is_ours(listener, kind, channel, data[at + 7 : end - 1]):
                if channel == 0 and kind == _METHOD:
                    self._note(data[at + 7 : end - 1])
                super().data_received(data[at:end])
            at = end
        return at

    def _is_ours(self, listener: ChannelListener, kind: int, channel: int, payload: bytes) -> bool:
        """Whether it is for the listener; then it is taken."""
        try:
            if kind == _METHOD:
                return self._is_our_method(listener, channel, payload)
            content = self._arriving.get(channel)
            if content is None:
                return False  # a message that was asked for, with basic.get
            if content.begin(payload) if kind == _HEADER else content.add(payload):
                del self._arriving[channel]
                _tell(listener.on_delivered if content.tag else listener.on_returned, content)
        except (IndexError, struct.error):
            raise BrokenFrame("a frame's arguments are cut off") from None
        return True

    def _is_our_method(self, listener: ChannelListener, channel: int, payload: bytes) -> bool:
        method = payload[:4]
        if method == _DELIVER:
            self._arriving[channel] = Content.delivered(payload)
        elif method in (_ACK, _NACK):
            tag, bits = _CONFIRM.unpack_from(payload, 4)
            _tell(listener.on_confirmed, tag, multiple=bool(bits & 1), refused=method == _NACK)
        elif method == _RETURN:
            self._arriving[channel] = Content.returned(payload)
        else:
            if method == _CLOSE:
                _tell(listener.on_closing)
            return False
        return True

    def _note(self, method: bytes) -> None:
        """See what concerns the connection; the client library gets it, too."""
        which = method[:4]
        if which == _TUNE and len(method) >= _FRAME_MAX.size:
            most = _FRAME_MAX.unpack_from(method)[0]
            self.frame_max = most or self.frame_max
            self._longest = most or _LONGEST_EVER
        elif which == _BLOCKED:
            self.writer.block(method[5:].decode(errors="replace") or "an alarm")
        elif which == _UNBLOCKED:
            self.writer.block(None)

    def _show_life(self) -> None:
        """Let the client library know that something came, even if all of it is ours.

        It gives a silent connection up, and RabbitMQ sends no heartbeats while it sends messages.
        """
        now = self._clock()
        if now - self._told > _SIGN_OF_LIFE:
            self._told = now
            super().data_received(_HEARTBEAT_FRAME)


def _tell[**P](listener: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    try:
        listener(*args, **kwargs)
    except Exception:
        logger.exception("a bug: a frame could not be taken; what it was about ends with its channel")
