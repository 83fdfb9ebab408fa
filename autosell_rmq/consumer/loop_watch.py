"""Whether the event loop turns: how late it is, and what holds it up."""

from __future__ import annotations

import asyncio
import logging
import sys
import sysconfig
import threading
from pathlib import Path
from types import FrameType

logger = logging.getLogger(__name__)

_EVERY = 0.5  # seconds between two looks
_WARN_AFTER = 1.0
_END = 1.0
# What is blamed is the user's own code, not the driver or the library that it called.
_NOT_TO_BLAME = (
    *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")},
    str(Path(__file__).parents[1]),
)


class LoopWatch:
    """Looks twice a second whether the loop is on time, and warns while it is not.

    From a thread of its own: a loop that is held up can say nothing. Not a word is said of a loop that is
    late by less than a second.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._due = 0.0  # loop time of the next tick
        self._last_lag = 0.0
        self._stopped = threading.Event()
        self._watched = 0  # the identity of the loop's thread
        self._thread: threading.Thread | None = None

    @property
    def lag(self) -> float:
        """How many seconds the loop was late at the last look, or is late now if that is more."""
        if self._ticker is None or self._loop is None:
            return 0.0
        return max(self._last_lag, self._loop.time() - self._due)

    def start(self) -> None:
        """Watch the running loop, until `stop`. To be called once, on that loop."""
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._schedule(self._loop)
        self._thread = threading.Thread(
            target=self._watch, args=(self._loop,), name="autosell-rmq loop watch", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. Idempotent."""
        self._stopped.set()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_END)  # at once: it is woken, and nothing of it takes time

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + _EVERY
        self._ticker = loop.call_at(self._due, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._last_lag = max(loop.time() - self._due, 0.0)
        if self._last_lag >= _WARN_AFTER:
            logger.warning(
                "the event loop turns again, after %.1f s in which it served nothing", self._last_lag
            )
        self._schedule(loop)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Warn once each time that it is late."""
        warned_of = 0.0
        while not self._stopped.wait(_EVERY):
            if loop.is_closed():  # nobody has stopped the app
                return
            due = self._due
            late = loop.time() - due
            if late >= _WARN_AFTER and due != warned_of:
                warned_of = due
                logger.warning(
                    "the event loop has not turned for %.1f s, held up in %s: nothing is received, acked or"
                    " answered meanwhile; make the handler a plain `def` (it gets a thread), or await there",
                    late,
                    _place(sys._current_frames().get(self._watched)),  # pyright: ignore[reportPrivateUsage]
                )


def _place(frame: FrameType | None) -> str:
    """``shop/orders.py:42, in create_order``: the innermost line that is no library's."""
    innermost, found = frame, frame
    while found is not None and found.f_code.co_filename.startswith((*_NOT_TO_BLAME, "<frozen")):
        found = found.f_back
    blamed = found or innermost
    if blamed is None:
        return "code that has ended"
    return f"{blamed.f_code.co_filename}:{blamed.f_lineno}, in {blamed.f_code.co_qualname}"
