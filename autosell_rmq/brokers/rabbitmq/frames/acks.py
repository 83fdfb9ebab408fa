"""Acknowledging the deliveries of a channel: those of one turn of the loop in as few frames as may be."""

from __future__ import annotations

import struct
from typing import Final

from autosell_rmq.brokers.rabbitmq.frames.writer import FrameWriter

_SETTLE: Final = struct.Struct(">BHIHHQBB")
_SIZE: Final = 13  # bytes of the payload
_BASIC: Final = 60
_ACK, _REJECT, _NACK = 80, 90, 120
_MULTIPLE, _REQUEUE = 1, {_REJECT: 1, _NACK: 2}
_END: Final = 0xCE


class Acks:
    """The unsettled deliveries of one channel, whose number is `channel`.

    RabbitMQ closes the channel over a tag that is settled twice, and takes an ack of several for everything
    below it. So one goes no further than to the lowest delivery that is still being handled, and only to a
    tag that is itself unsettled; what is done beyond that is acked one by one.
    """

    def __init__(self, channel: int, writer: FrameWriter) -> None:
        self._channel = channel
        self._writer = writer
        self._unsettled: dict[int, None] = {}  # ascending, as RabbitMQ counts
        self._done: set[int] = set()  # of them, those that the broker does not know of yet
        self.closed = False

    def delivered(self, tag: int) -> None:
        self._unsettled[tag] = None

    def ack(self, tag: int) -> None:
        """Ack it at the end of this turn of the loop."""
        if not self._done:
            self._writer.before_flush(self._flush)
        self._done.add(tag)

    def requeue(self, tag: int) -> None:
        self._settle(_NACK, tag)

    def reject(self, tag: int) -> None:
        self._settle(_REJECT, tag)

    def flush(self) -> None:
        """Send what is gathered now: before the consumer is cancelled, or its channel closed."""
        self._writer.flush()

    def close(self) -> None:
        """The channel is gone, or closing: what it delivered comes again."""
        self.closed = True
        self._done.clear()
        self._unsettled.clear()

    def _settle(self, method: int, tag: int) -> None:
        del self._unsettled[tag]
        self._writer.write(self._frame(method, tag, _REQUEUE[method]))

    def _flush(self) -> None:
        done, unsettled = self._done, self._unsettled
        top = first = 0
        for tag in unsettled:
            if tag not in done:
                break
            first = first or tag
            top = tag
        if top:
            self._writer.write(self._frame(_ACK, top, _MULTIPLE if top != first else 0))
        for tag in done:
            del unsettled[tag]
            if tag > top:
                self._writer.write(self._frame(_ACK, tag, 0))
        done.clear()

    def _frame(self, method: int, tag: int, bits: int) -> bytes:
        return _SETTLE.pack(1, self._channel, _SIZE, _BASIC, method, tag, bits, _END)
