"""The writing end of a connection: what is written in one turn of the loop goes out in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_AT_ONCE: Final = 65_536  # bytes that are not held until the end of the turn


class FrameWriter:
    """Gathers frames beside those of the client library, which writes its own at once.

    Attributes:
        blocked: why the broker takes no messages over this connection; None while it does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.blocked: str | None = None
        self._loop = loop
        self._transport: asyncio.WriteTransport | None = None
        self._frames: list[bytes] = []
        self._size = 0
        self._last: list[Callable[[], None]] = []
        self._scheduled = False
        self._full = False  # the buffer of the transport is
        self._changed = asyncio.Event()

    @property
    def is_lost(self) -> bool:
        """Whether nothing that is written gets anywhere."""
        return self._transport is None or self._transport.is_closing()

    @property
    def ready(self) -> bool:
        """Whether a message would be sent on, now."""
        return not self._full and self.blocked is None and not self.is_lost

    async def until_ready(self) -> None:
        """Wait for that; unbounded. It ends when the connection does, too."""
        while not (self.ready or self.is_lost):
            self._changed.clear()
            await self._changed.wait()

    async def until_unblocked(self) -> None:
        """Wait for the end of an alarm; unbounded. It ends when the connection does, too."""
        while not (self.blocked is None or self.is_lost):
            self._changed.clear()
            await self._changed.wait()

    def write(self, frames: bytes) -> None:
        """Send them at the end of this turn of the loop, or at once where that is much."""
        self._frames.append(frames)
        self._size += len(frames)
        if self._size >= _AT_ONCE:
            self._send()
        elif not self._scheduled:
            self._schedule()

    def before_flush(self, call: Callable[[], None]) -> None:
        """Have `call` write what it has gathered, at the end of this turn."""
        self._last.append(call)
        if not self._scheduled:
            self._schedule()

    def flush(self) -> None:
        """Hand all of it to the transport; what a lost connection cannot take any more is dropped."""
        self._scheduled = False
        if self._last:
            last, self._last = self._last, []
            for call in last:
                call()
        self._send()

    def opened(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport

    def filled(self) -> None:
        self._full = True

    def drained(self) -> None:
        self._full = False
        self._changed.set()

    def lost(self) -> None:
        self._transport = None
        self._changed.set()

    def block(self, reason: str | None) -> None:
        """Note an alarm of the broker, or its end: acks go on, publishers look at `ready`."""
        self.blocked = reason
        self._changed.set()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self.flush)

    def _send(self) -> None:
        if not self._frames:
            return
        data = b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
