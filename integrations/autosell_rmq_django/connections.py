"""Database connections around handlers: stale ones closed before and after, an outage told from a failure.

Django closes old connections at the start and the end of a request; a message is the request of a consumer.
The same rules count: ``CONN_MAX_AGE``, ``CONN_HEALTH_CHECKS``, pools of PostgreSQL.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager, suppress

from asgiref.sync import sync_to_async
from django.db import Error, InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from autosell_rmq import AutosellRmqError, Message, Next, StoreUnavailable

_TRUSTED = 1.0  # seconds after a check in which a connection without Django's own checks is used as it is

# What the servers say, by their codes, of a connection that is gone or cannot be had.
_POSTGRES_CLASS = "08"
_POSTGRES = {"57P01", "57P02", "57P03", "57P05", "53300"}  # shutdown, crash, start-up, idle, too many
_MYSQL = {0, 1040, 1053, 1203, 1927, 2002, 2003, 2006, 2013, 2055, 4031}


class _Thread(threading.local):
    """What is known of this thread's connections."""

    checked = -math.inf  # time.monotonic() of our own last check
    lost = -math.inf  # of the last time that one was found broken


_thread = _Thread()


@contextmanager
def in_handler_thread() -> Generator[None]:
    """Around a sync handler, in its thread: the `thread_context` of the app.

    Raises:
        StoreUnavailable: in place of the handler's own error where a database is out of reach: the message
            takes the delay line, no attempt is counted, and consuming pauses.
    """
    started = time.monotonic()
    refresh()
    try:
        yield
    except Exception as error:
        if is_outage(error, since=started):
            raise _unavailable(error) from error
        raise
    finally:
        refresh()


class AsyncConnections:
    """Middleware that does the same for async handlers.

    Their queries run in asgiref's thread-sensitive executor, so there the connections are looked after. All
    of them share that thread: what one finds broken, the next may have replaced when it is asked.

    Args:
        queues: those with an async handler; around a sync one it does nothing.
    """

    def __init__(self, queues: Collection[str]) -> None:
        self._queues = frozenset(queues)

    async def __call__(self, message: Message, call_next: Next) -> object:
        """See `Middleware`; raises `StoreUnavailable` as `in_handler_thread` does."""
        if message.queue not in self._queues:
            return await call_next(message)
        started = time.monotonic()
        await sync_to_async(refresh)()
        try:
            return await call_next(message)
        except Exception as error:
            if _database_error(error) is not None and await sync_to_async(is_outage)(error, since=started):
                raise _unavailable(error) from error
            raise
        finally:
            await sync_to_async(refresh)()


def refresh() -> None:
    """Close this thread's connections that are broken, too old, or were cut while they idled.

    A connection inside of a transaction is left alone: it is a test's, or somebody else's.
    """
    due = time.monotonic() - _thread.checked >= _TRUSTED
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            with suppress(Error):  # closing what is broken may fail too, and changes nothing for the message
                _refresh(connection, check=due)
    if due:
        _thread.checked = time.monotonic()


def _refresh(connection: BaseDatabaseWrapper, *, check: bool) -> None:
    if connection.connection is None:
        connection.errors_occurred = False  # they belong to one that was closed for them
        return
    broken = connection.errors_occurred
    connection.close_if_unusable_or_obsolete()
    if connection.connection is None:
        if broken:
            _thread.lost = time.monotonic()
    elif check and not connection.settings_dict["CONN_HEALTH_CHECKS"] and not connection.is_usable():
        connection.close()


def is_outage(error: BaseException, *, since: float) -> bool:
    """Whether `error` came of a database that is out of reach; asked in the thread of its connections.

    Args:
        error: what a handler raised; one that it decided on itself (`Reject`) is none.
        since: time.monotonic() of the handler's start.
    """
    if isinstance(error, AutosellRmqError) or (found := _database_error(error)) is None:
        return False
    return (
        _server_says_so(found)
        or _thread.lost >= since
        or any(map(_is_gone, connections.all(initialized_only=True)))
    )


def _database_error(error: BaseException) -> Error | None:
    """The first error of a connection among what led to `error`."""
    for cause in _chain(error):
        if isinstance(cause, OperationalError | InterfaceError):
            return cause
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _server_says_so(error: Error) -> bool:
    driver = error.__cause__
    if type(driver).__module__.startswith("psycopg"):
        code = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
        lost = code is None or code in _POSTGRES or code.startswith(_POSTGRES_CLASS)
        return lost and isinstance(error, OperationalError)
    return bool(error.args) and isinstance(error.args[0], int) and error.args[0] in _MYSQL


def _is_gone(connection: BaseDatabaseWrapper) -> bool:
    if not connection.errors_occurred:
        return False
    if connection.connection is None or connection.closed_in_transaction:
        return True
    return not connection.in_atomic_block and not connection.is_usable()


def _unavailable(error: BaseException) -> StoreUnavailable:
    found = _database_error(error)
    words = str(found).strip().splitlines() or [type(found).__name__]
    return StoreUnavailable(f"a database that the handler needs is out of reach: {words[0]}")
