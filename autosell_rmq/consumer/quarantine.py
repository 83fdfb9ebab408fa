"""Messages that may kill their process: while there are any, a consumer has one message in hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from autosell_rmq.config import HandlerOptions
from autosell_rmq.message import Message
from autosell_rmq.pipeline import is_suspect, runs_next

logger = logging.getLogger(__name__)

type ChangePrefetch = Callable[[int, Callable[[], None]], Awaitable[None]]


class Quarantine:
    """Decides how many messages one consumer may have in hand.

    What dies with its process counts a delivery more for everything in hand, so the guilty one is told from
    its neighbours by having it alone: from the tenth delivery on, what has not started goes back and the
    prefetch is 1, until as many messages in a row as it was before have come to their end without a suspect.

    Attributes:
        is_changing: whether a delivery that has not started must go back, since it came under the prefetch
            of before.

    Args:
        change_prefetch: lets what is in hand be settled, and goes on with another prefetch; it calls the
            function that it is given as soon as nothing is delivered any more.
    """

    def __init__(self, options: HandlerOptions, change_prefetch: ChangePrefetch) -> None:
        self._options = options
        self._change_prefetch = change_prefetch
        self._left = 0  # messages to see through, more than 0 in quarantine
        self.is_changing = False
        self._changing: asyncio.Task[None] | None = None
        self._detached = asyncio.Event()

    async def detached(self) -> None:
        """While `is_changing`: until what goes back does not come again at once."""
        await self._detached.wait()

    def came(self, message: Message) -> None:
        """Called for each delivery."""
        if not (message.redelivered or message.headers):  # nothing says that it came before
            return
        if self._options.prefetch == 1 or not is_suspect(message, self._options):
            return
        begins = self._left == 0
        if begins and not runs_next(message, self._options):
            return
        self._left = self._options.prefetch
        if begins:
            logger.warning(
                "queue %s: a message comes for the tenth time or more, it may be what ends this process:"
                " one message at a time for now",
                self._options.queue,
            )
            self._change(1)

    def over(self) -> None:
        """Called for each delivery that has come to its end."""
        if self._left == 0 or self.is_changing:
            return
        self._left -= 1
        if self._left == 0:
            logger.info("queue %s: no suspect is left, back to the usual prefetch", self._options.queue)
            self._change(self._options.prefetch)

    async def stop(self) -> None:
        """The consumer is cancelled: nothing is changed any more."""
        if self._changing is not None:
            self._changing.cancel()
            await asyncio.gather(self._changing, return_exceptions=True)

    def _change(self, prefetch: int) -> None:
        async def change() -> None:
            try:
                await self._change_prefetch(prefetch, self._detached.set)
            finally:
                self._changing = None
                self.is_changing = False
                self._detached.set()

        self._detached.clear()
        self.is_changing = True
        self._changing = asyncio.get_running_loop().create_task(change())
