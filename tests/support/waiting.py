"""Waiting for a condition, never for a time."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

PATIENCE = 30.0  # seconds; only a failing test uses them up
_INTERVAL = 0.01


async def eventually(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], *, within: float = PATIENCE
) -> None:
    """Return once `condition` holds.

    Raises:
        TimeoutError: it did not within so many seconds.
    """
    async with asyncio.timeout(within):
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(_INTERVAL)
