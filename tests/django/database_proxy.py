"""A proxy in front of a database server, which cuts the connection at a statement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Literal

from django.db import connections

type Side = Literal["before", "after"]


class Cutter:
    """Cuts a connection as soon as a statement with a word in it comes by.

    Attributes:
        word: the word; None lets everything through.
        side: whether the server still gets the statement (``after``: only its answer is lost).
        cuts: how many there were.
    """

    def __init__(self, host: str, port: int) -> None:
        self.word: bytes | None = None
        self.side: Side = "before"
        self.cuts = 0
        self._target = host, port
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        back = asyncio.create_task(_copy(far_reader, writer))
        try:
            await self._forward(reader, far_writer)
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            if self.word is not None and self.side == "after":
                await far_reader.read(1)  # it is done: the answer is on its way
        finally:
            back.cancel()
            writer.transport.abort()
            far_writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter) -> None:
        """Return at the end, or at the word."""
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                at_word = self.word is not None and self.word in data
                self.cuts += at_word
                if not at_word or self.side == "after":
                    far_writer.write(data)
                    await far_writer.drain()
                if at_word:
                    return


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def cutter() -> AsyncGenerator[tuple[Cutter, int]]:
    """A running proxy to the default database, and its port."""
    settings = connections.settings["default"]
    cutter = Cutter(settings["HOST"], settings["PORT"])
    server = await asyncio.start_server(cutter.accept, "127.0.0.1", 0)
    try:
        yield cutter, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await cutter.end()
        await server.wait_closed()
