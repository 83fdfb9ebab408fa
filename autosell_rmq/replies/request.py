"""One request on its way: what is known of it, and how long it may wait."""

from __future__ import annotations

import asyncio
from typing import Any

from autosell_rmq.deadlines import Deadlines
from autosell_rmq.exceptions import (
    AutosellRmqError,
    BrokerError,
    BrokerUnavailable,
    PublishNacked,
    PublishUnknown,
)
from autosell_rmq.message import Publication


class Request:
    """A request and what is known of it.

    Attributes:
        within: bounds the wait for its reply; shorter while it was never sent.
        problem: the last thing that went wrong.
        is_due: it is to be sent, for the first time or again.
        is_accepted: an attempt was confirmed.
        is_over: nobody waits for it any more.
    """

    def __init__(
        self,
        publication: Publication,
        problem: str | None,
        deadlines: Deadlines,
        *,
        timeout: float,
        patience: float,
        refusals: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.publication = publication
        self.reply: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.problem: BrokerError | None = BrokerUnavailable(problem) if problem is not None else None
        self._ends = now + timeout
        self._patience_ends = min(now + patience, self._ends)
        self._refusals_end = min(now + refusals, self._ends)
        self.within = deadlines.at(self._ends if problem is None else self._patience_ends)
        self.is_due = True
        self.is_accepted = False
        self.is_over = False
        self._unconfirmed = 0  # attempts of which nobody knows the outcome, or not yet

    @property
    def may_be_stored(self) -> bool:
        return self.is_accepted or self._unconfirmed > 0

    @property
    def verdict(self) -> BrokerError | None:
        """What is true of it now that its time is over; None where only the reply is missing."""
        if self.is_accepted:
            return None
        if self._unconfirmed and not isinstance(self.problem, PublishUnknown):
            return PublishUnknown("no confirm came for a request, which may be handled")
        return self.problem or BrokerUnavailable("no reply address could be opened in time")

    def sends(self) -> None:
        """An attempt begins."""
        self.is_due = False
        self._unconfirmed += 1
        self._limit(self._ends)

    def confirmed(self) -> None:
        """An attempt was accepted."""
        self._unconfirmed -= 1
        self.is_accepted = True
        self.problem = None

    def failed(self, error: BrokerError) -> None:
        """An attempt ended without success, which may be different the next time."""
        self._unconfirmed -= not isinstance(error, PublishUnknown)
        self.waits(error)

    def refused(self, error: AutosellRmqError) -> None:
        """An attempt ended for good."""
        self._unconfirmed -= 1
        self.end(error)

    def waits(self, error: BrokerError) -> None:
        """It has to wait because of an error."""
        self.problem = error
        if not self.may_be_stored:
            self._limit(self._refusals_end if isinstance(error, PublishNacked) else self._patience_ends)

    def end(self, error: Exception) -> None:
        """End the wait by an error, unless a reply has come."""
        if self.reply.done():
            return
        if self.may_be_stored and isinstance(error, BrokerError):
            unknown = PublishUnknown(f"a request may be handled, but could not be sent again: {error}")
            unknown.__cause__ = error
            error = unknown
        self.reply.set_exception(error)

    def _limit(self, when: float) -> None:
        if when != self.within.when and not (self.is_over or self.within.expired):
            self.within.reschedule(when)
