"""The line between a supervisor and each of its processes: who is ready, who is well, who is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

VARIABLE = "AUTOSELL_RMQ_TETHER"  # in the environment of a supervised process: the number of its socket
READY = b"r"
WELL = b"."


class Tether:
    """The end of a supervised process. The other end closes with the supervisor, however that ends."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        line.setblocking(False)

    def ready(self) -> None:
        """Say that messages can come."""
        self._say(READY)

    def well(self) -> None:
        """Say that messages are being handled."""
        self._say(WELL)

    def on_loss(self, callback: Callable[[], None]) -> None:
        """Call back, on the running loop, when the supervisor is gone."""
        loop = asyncio.get_running_loop()

        def readable() -> None:
            loop.remove_reader(self._line)
            callback()

        loop.add_reader(self._line, readable)  # nothing is ever sent to us: readable is the end

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # full, so it has enough to read; or gone, which `on_loss` tells
            self._line.send(word)


def to_supervisor() -> Tether | None:
    """This process's tether; None where nobody supervises it."""
    number = os.environ.pop(VARIABLE, "")  # not for our own children
    if not number.isdecimal():
        return None
    os.set_inheritable(int(number), False)
    return Tether(socket.socket(fileno=int(number)))
