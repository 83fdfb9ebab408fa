"""Waiting for a broker that is away: how many may at once, for one opening, how long between two attempts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager

from autosell_rmq.exceptions import BrokerUnavailable
from autosell_rmq.message import Publication, header_bytes
from autosell_rmq.retry import waits

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 0.1  # seconds
_LONGEST_PAUSE = 2.0


class WaitingRoom:
    """Where messages wait that could not be sent; it holds so many, and so many bytes.

    Attributes:
        waiting: how many are in it.
        waiting_bytes: what they take together.
    """

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._told = False
        self.waiting = 0
        self.waiting_bytes = 0

    @contextmanager
    def place(self, publication: Publication, why: object) -> Generator[None]:
        """A place while the body runs, however that ends; `why` it has to wait is for people.

        Raises:
            BrokerUnavailable: it is full; the setting is named.
        """
        size = len(publication.body) + header_bytes(publication.properties.headers)
        if full := self._is_full(size):
            raise BrokerUnavailable(f"{why}; this message does not wait for it, since {full}")
        self.waiting += 1
        self.waiting_bytes += size
        try:
            yield
        finally:
            self.waiting -= 1
            self.waiting_bytes -= size
            if self._told and not self.waiting:
                self._told = False
                logger.info("no message waits to be sent any more")

    def tell(self, why: object) -> None:
        """Log that messages wait: once, until the room is empty again."""
        if self.waiting and not self._told:
            self._told = True
            logger.warning("messages wait to be sent: %s", why)

    def _is_full(self, size: int) -> str | None:
        if self.waiting >= self._most:
            return f"{self.waiting} are waiting (max_waiting={self._most})"
        if self.waiting_bytes + size > self._most_bytes:
            return (
                f"it takes {size} bytes and {self.waiting_bytes} are waiting"
                f" (max_waiting_bytes={self._most_bytes})"
            )
        return None


class OpeningTurn:
    """Opening something for all who need it, one after the other.

    Who has waited while the broker was found to be away does not try for as long again: the hundredth
    would wait a hundred times as long as the first.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._away: BrokerUnavailable | None = None  # the last one, by which those who waited know it

    @asynccontextmanager
    async def take(self) -> AsyncGenerator[None]:
        """A turn for the body, which may find that it is open already.

        Raises:
            BrokerUnavailable: the body of another one has raised it while this one waited.
        """
        before = self._away
        async with self._lock:
            if self._away is not None and self._away is not before:
                raise self._away
            try:
                yield
            except BrokerUnavailable as error:
                self._away = error
                raise
            self._away = None


def pauses() -> Iterator[float]:
    """Seconds from one attempt to send a message to the next."""
    return waits(_FIRST_PAUSE, _LONGEST_PAUSE)
