"""Which event loop a command runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from autosell_rmq.exceptions import MissingExtra


def loop_factory(*, uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What `asyncio.run` takes as its ``loop_factory``: None for asyncio's own loop.

    Raises:
        MissingExtra: uvloop is wanted and not installed.
    """
    if not uvloop:
        return None
    try:
        from uvloop import new_event_loop
    except ImportError:
        raise MissingExtra("uvloop is not installed: pip install 'autosell-rmq[uvloop]'") from None
    return new_event_loop
