"""How a test's messages go on: time passes when nothing else happens, and rest is when nothing is left."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from autosell_rmq.testing.recording import RecordingServer

_TURNS = 100  # of the event loop, for what needs no thread to come to rest


class Pace:
    """Moves the clock of a server on; made and used on one event loop, told of changes in any thread."""

    def __init__(self, server: RecordingServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Future[None] = self._loop.create_future()
        server.on_change = self.changed

    def changed(self) -> None:
        """Something has happened to a message."""
        with suppress(RuntimeError):  # the loop was closed: the test is over
            self._loop.call_soon_threadsafe(self._step)

    async def let_time_pass(self) -> None:
        """Move on to the next timer whenever nothing happens but that messages wait for their time.

        Runs until it is cancelled.
        """
        while True:
            await self._quiet()
            if self._server.only_delays:
                await self._server.virtual_clock.advance_to_next()
                self._step()
            else:
                await asyncio.shield(self._next)

    async def rest(self) -> None:
        """Return when no message is with a handler, on its way to one, or waits for its time."""
        while True:
            await self._quiet()
            if self._server.is_at_rest:
                return
            await asyncio.shield(self._next)

    async def _quiet(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def _step(self) -> None:
        if not self._next.done():
            self._next.set_result(None)
        self._next = self._loop.create_future()
