"""The transaction that an exactly-once handler runs in, for what wants to join it: the outbox."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class CurrentTransaction:
    """The open transaction of the handler that runs in this thread.

    Attributes:
        alias: of its database.
        record_id: the primary key of the handler's `IdempotencyRecord`, which is not committed yet.
        has_outbox: rows of the outbox were written in it; see `mark_outbox`.
    """

    alias: str
    record_id: int
    has_outbox: bool = False


class _Here(threading.local):
    """Per thread, as Django's connections are: another thread has another transaction."""

    transaction: CurrentTransaction | None = None


_here = _Here()


def current_transaction() -> CurrentTransaction | None:
    """The transaction of the exactly-once handler that runs in this thread; None outside of one."""
    return _here.transaction


def mark_outbox() -> None:
    """Say that the current transaction writes rows of the outbox: they are sent before its reply.

    Raises:
        RuntimeError: no exactly-once handler runs in this thread.
    """
    if _here.transaction is None:
        raise RuntimeError("no exactly-once handler runs in this thread")
    _here.transaction.has_outbox = True


@contextmanager
def entered(transaction: CurrentTransaction) -> Generator[CurrentTransaction]:
    """Make it the current one of this thread; the store does, around the handler."""
    before, _here.transaction = _here.transaction, transaction
    try:
        yield transaction
    finally:
        _here.transaction = before
