"""Ctrl-C while the app drains: servers know no second signal at that point."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_interrupt(callback: Callable[[], object]) -> Generator[None]:
    """Call back on the event loop when SIGINT comes, besides what the server does then.

    SIGINT alone, as with uvicorn itself: to its subprocesses (``--workers``, ``--reload``) uvicorn sends a
    SIGTERM after the SIGINT that they got from the terminal. Off the main thread, and where SIGINT is
    ignored, it does nothing.
    """
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)
        before(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
