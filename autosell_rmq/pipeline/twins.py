"""Messages of one key that this process has in hand at once: one is handled, its twins wait for its end."""

from __future__ import annotations

import asyncio

from autosell_rmq.exceptions import InProgress


class Twins:
    """What is at work, by key.

    Args:
        patience: seconds that a twin waits.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._at_work: dict[str, asyncio.Future[None] | None] = {}  # a future where a twin waits for the end

    def begins(self, key: str) -> bool:
        """Whether nothing of the key is at work; then something is, from now until `end`."""
        if key in self._at_work:
            return False
        self._at_work[key] = None
        return True

    async def turn(self, key: str) -> None:
        """Wait until `begins` is true.

        Raises:
            InProgress: it took too long.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience
        while not self.begins(key):
            left = give_up - loop.time()
            if left <= 0:
                raise InProgress("a duplicate is being handled by this process")
            over = self._at_work[key] = self._at_work[key] or loop.create_future()
            await asyncio.wait([over], timeout=left)

    def end(self, key: str) -> None:
        """It is not at work any more."""
        over = self._at_work.pop(key)
        if over is not None:
            over.set_result(None)
