"""A TCP proxy that breaks what passes through it: cuts, black holes, slow links, flapping.

It runs on an event loop in a thread of its own, so that a test may block meanwhile. Every method may be
called from any other thread, and returns when it has taken effect.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager, suppress
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

type Direction = Literal["to_server", "to_client"]

_BUFFER = 64 * 1024  # bytes in the kernel, each way: more would hide a slow link from its sender
_CHUNK = 16 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST instead of FIN


class TcpProxy:
    """Passes bytes on to `host`:`port` from a port of its own on loopback.

    Attributes:
        port: where to connect to instead.
        accepted: connections taken so far.
        passed: bytes passed on so far, by direction.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp proxy", daemon=True)
        self._open: dict[Direction, asyncio.Event] = {
            "to_server": asyncio.Event(),
            "to_client": asyncio.Event(),
        }
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._flapping: asyncio.Task[None] | None = None
        self._rate: float | None = None
        self.port = 0
        self.accepted = 0
        self.passed: dict[Direction, int] = {"to_server": 0, "to_client": 0}

    def url(self, url: str) -> str:
        """The same URL by way of this proxy."""
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{self.port}"))

    # --- faults -----------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every connection (RST); new ones are let through."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Reset every connection, and refuse new ones until `heal`."""
        self._do(self._refuse())

    def blackhole(self, *directions: Direction) -> None:
        """Let nothing pass, one way or (by default) both, and tell nobody, until `heal`.

        What is sent meanwhile waits, as TCP's retransmissions would; a new connection is taken, and silent.
        """
        self._do(self._blackhole(directions or ("to_server", "to_client")))

    def throttle(self, bytes_per_second: float) -> None:
        """A slow link, each way, until `heal`."""
        self._do(self._throttle(bytes_per_second))

    def flap(self, every: float) -> None:
        """`cut` every so many seconds, until `heal`."""
        self._do(self._flap(every))

    def heal(self) -> None:
        """End all faults; what waited passes on."""
        self._do(self._heal())

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()
        self._do(self._heal())

    def stop(self) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(timeout=10)

    async def _cut(self) -> None:
        for writer in self._writers:
            _reset(writer)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _blackhole(self, directions: tuple[Direction, ...]) -> None:
        for direction in directions:
            self._open[direction].clear()

    async def _throttle(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second

    async def _flap(self, every: float) -> None:
        async def cutting() -> None:
            while True:
                await asyncio.sleep(every)
                await self._cut()

        self._flapping = asyncio.create_task(cutting())

    async def _heal(self) -> None:
        self._rate = None
        if self._flapping is not None:
            self._flapping.cancel()
            self._flapping = None
        for gate in self._open.values():
            gate.set()
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, sock=_listening(self.port), limit=_CHUNK, backlog=100
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        await self._refuse()
        for task in [*self._tasks, *filter(None, [self._flapping])]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the way through --------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        both = {writer}
        self._writers.add(writer)
        try:
            far_reader, far_writer = await self._far_side()
            both.add(far_writer)
            self._writers.add(far_writer)
            await asyncio.gather(
                self._pass(reader, far_writer, "to_server"), self._pass(far_reader, writer, "to_client")
            )
        except OSError:
            pass  # nobody there, or reset: so is the other side
        finally:
            self._writers -= both
            for each in both:
                _reset(each)

    async def _far_side(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        far.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(far, self._target)
        except BaseException:
            far.close()
            raise
        return await asyncio.open_connection(sock=far, limit=_CHUNK)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        gate = self._open[direction]
        while True:
            await gate.wait()
            data = await reader.read(_CHUNK if self._rate is None else max(int(self._rate / 10), 1))
            if self._rate is not None:
                await asyncio.sleep(len(data) / self._rate)
            await gate.wait()
            if not data:
                break
            writer.write(data)
            await writer.drain()
            self.passed[direction] += len(data)
        with suppress(OSError):  # the other way may still have something to say
            writer.write_eof()


def _listening(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    listening.bind(("127.0.0.1", port))
    return listening


def _reset(writer: asyncio.StreamWriter) -> None:
    connected = writer.get_extra_info("socket")
    if connected is not None and connected.fileno() != -1:
        with suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@contextmanager
def tcp_proxy(host: str, port: int) -> Generator[TcpProxy]:
    """A running proxy, stopped at the end."""
    proxy = TcpProxy(host, port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
