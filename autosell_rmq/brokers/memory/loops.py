"""Event loops: one server serves connections on several of them, each in its own thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress


def call_on[*Args](
    loop: asyncio.AbstractEventLoop, callback: Callable[[*Args], object], *args: *Args
) -> None:
    """Call back on the next turn of `loop`, from whatever thread; not at all where it is closed."""
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        loop.call_soon(callback, *args)
    else:
        with suppress(RuntimeError):  # it was closed, and its consumers with it
            loop.call_soon_threadsafe(callback, *args)
