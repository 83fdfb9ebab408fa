"""Whether handlers may start: held while outcomes cannot be published or the store does not answer."""

from __future__ import annotations

import asyncio


class Flow:
    """A gate in front of every handler of an app. Prefetch bounds what waits at it.

    Attributes:
        is_open: whether `wait` returns at once.
    """

    def __init__(self) -> None:
        self.is_open = True
        self._holds: dict[object, str] = {}
        self._open = asyncio.Event()
        self._open.set()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is held; empty while it is open."""
        return tuple(dict.fromkeys(self._holds.values()))

    def hold(self, holder: object, reason: str) -> None:
        """Start nothing until `holder` releases it."""
        self._holds[holder] = reason
        self.is_open = False
        self._open.clear()

    def release(self, holder: object) -> None:
        """Take the hold of `holder` back, if there is one."""
        if self._holds.pop(holder, None) is not None and not self._holds:
            self.is_open = True
            self._open.set()

    def hold_for(self, seconds: float, reason: str) -> None:
        """Hold it for a while; of several calls the last to end counts."""
        holder = object()
        self.hold(holder, reason)
        asyncio.get_running_loop().call_later(seconds, self.release, holder)

    async def wait(self) -> None:
        """Return when it is open."""
        await self._open.wait()
