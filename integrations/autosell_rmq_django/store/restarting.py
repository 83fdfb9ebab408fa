"""Transactions that the database gave up for another's sake are run again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from autosell_rmq import InProgress
from autosell_rmq_django.store.table import Restart

logger = logging.getLogger(__name__)

_RESTARTS = 5
_FIRST_PAUSE = 0.05  # seconds before the first restart; doubled with each


async def restarting[T](run: Callable[[], Awaitable[T]]) -> T:
    """Run it until the database lets it through, a few times, without a thread in between."""
    pause = _FIRST_PAUSE
    for _ in range(_RESTARTS):
        try:
            return await run()
        except Restart as error:
            logger.info("running a transaction again: %s", error)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause *= 2
    try:
        return await run()
    except Restart as error:
        raise InProgress(f"the database gave the transaction up {_RESTARTS + 1} times: {error}") from error
