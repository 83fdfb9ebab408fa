"""Consuming under Django's autoreloader: a changed file drains the process before it leaves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from django.utils import autoreload

_LEAVE_AFTER = 5.0  # seconds over the drain timeout


def run_reloading(consume: Callable[[], int], stop: Callable[[], None], *, drain_timeout: float) -> int:
    """Run `consume` in a thread while the main thread watches the files; returns the exit code.

    The exit code is 3 after a change, which asks whoever started the process to start it again.

    Args:
        consume: returns its own exit code, as soon as it can after `stop`.
        stop: may be called from any thread and signal handler.
        drain_timeout: seconds that `consume` may take to return.
    """
    reloader = autoreload.get_reloader()
    codes: list[int] = []
    ended = threading.Event()

    def main() -> None:
        try:
            codes.append(consume())
        finally:
            ended.set()
            reloader.stop()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if reloader.should_stop:
            os._exit(128 + number)  # the second one
        stop()
        reloader.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        autoreload.start_django(reloader, main)
    except SystemExit as change:
        codes.insert(0, change.code if isinstance(change.code, int) else 3)
    reloader.stop()
    stop()
    ended.wait(drain_timeout + _LEAVE_AFTER)
    return codes[0] if codes else 1
