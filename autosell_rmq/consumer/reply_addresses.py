"""Where a reply may go: ``reply_to`` is anybody's word."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from autosell_rmq.config import of_delay_line
from autosell_rmq.message import DIRECT_REPLY_TO


class ReplyAddresses:
    """Refuses the app's own queues, and what is not `allowed` where there is such a list.

    Either would take a reply for a message. The address of a requester that listens on its own connection
    (direct reply-to) names no queue, and is always allowed.
    """

    def __init__(self, own: Iterable[str], allowed: Iterable[str] | None) -> None:
        self._own = frozenset(own)
        self._allowed = None if allowed is None else tuple(allowed)

    def refusal(self, address: str) -> str | None:
        """Why no reply goes to this address; None if one may."""
        if address in self._own or of_delay_line(address):
            return "it is a queue of this app"
        if self._allowed is None or address.startswith(f"{DIRECT_REPLY_TO}."):
            return None
        if any(fnmatchcase(address, pattern) for pattern in self._allowed):
            return None
        return "it is not among reply_to_allowed"
