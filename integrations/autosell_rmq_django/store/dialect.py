"""What a kind of database is asked for: clocks, lock timeouts, the meaning of its errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from django.db.backends.utils import CursorWrapper


class Dialect(ABC):
    """SQL and errors of one kind of database.

    Attributes:
        now: SQL of this very moment, in UTC, whenever the transaction began.
        later: SQL of a moment so much later; it takes one parameter, which `span` makes.
        epoch: SQL of the seconds since 1970 of the column ``{0}``.
        ignore: the end of an INSERT that leaves a present key as it is; it waits for one that is being
            inserted.
        lock: the end of a SELECT that locks its rows.
        inserts_tell: such an INSERT returns the new id, and nothing where the key was present.
    """

    now: str
    later: str
    epoch: str
    ignore: str
    lock = " FOR UPDATE"
    inserts_tell = True

    @abstractmethod
    def span(self, seconds: float) -> float | str:
        """The parameter of `later`."""

    @abstractmethod
    def lock_timeout(self, cursor: CursorWrapper, seconds: float) -> AbstractContextManager[None]:
        """Wait at most so long for a lock, inside the block and not after it."""

    @abstractmethod
    def timed_out(self, error: BaseException) -> bool:
        """Whether a lock was not given in time."""

    @abstractmethod
    def restarts(self, error: BaseException) -> bool:
        """Whether the database gave the transaction up for another's sake: it may be run again."""

    @abstractmethod
    def is_lost(self, error: BaseException) -> bool:
        """Whether there is no connection (any more)."""

    @abstractmethod
    def is_closed(self, connection: Any) -> bool:  # noqa: ANN401 - a driver's connection
        """Whether the driver knows that its connection is gone."""

    @abstractmethod
    def is_missing(self, error: BaseException) -> bool:
        """Whether the error says that the table does not exist."""

    def check_size(self, cursor: CursorWrapper, data: bytes) -> None:
        """Raise `MessageTooLarge` for what no statement can carry."""
        del cursor, data


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or during, and so on."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
