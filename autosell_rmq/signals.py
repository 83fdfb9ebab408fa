"""SIGINT and SIGTERM: the first asks for a drain, the second leaves at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signal(stop: Callable[[], None]) -> Generator[None]:
    """Call `stop` on the first signal; restore the handlers at the end.

    Off the main thread, where Python allows no signal handlers, it does nothing. On the second signal the
    process ends with 128 + the signal's number, without a drain: what is unacked is delivered again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    seen = False

    def on_signal(number: int) -> None:
        nonlocal seen
        name = signal.Signals(number).name
        if seen:
            logger.warning("%s again: leaving at once", name)
            _leave(128 + number)
        seen = True
        logger.info("%s: stopping gracefully, once more to leave at once", name)
        stop()

    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, previous[number])


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
