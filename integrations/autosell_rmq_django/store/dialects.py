"""What PostgreSQL, MariaDB (MySQL) and SQLite do each in its own way: clocks, lock timeouts, error codes."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, override

from django.db import InterfaceError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from autosell_rmq import ConfigError, MessageTooLarge
from autosell_rmq_django.store.dialect import Dialect


class PostgreSQL(Dialect):
    """PostgreSQL: SQLSTATEs; a lock timeout of the transaction."""

    now = "clock_timestamp()"
    later = "clock_timestamp() + %s * interval '1 second'"
    epoch = "EXTRACT(EPOCH FROM {0})"
    ignore = " ON CONFLICT ({key}) DO NOTHING RETURNING {id}"

    @override
    def span(self, seconds: float) -> float | str:
        return seconds

    @override
    @contextmanager
    def lock_timeout(self, cursor: CursorWrapper, seconds: float) -> Generator[None]:
        # SET LOCAL lasts until the end of the transaction, and would fail the handler's own statements.
        cursor.execute(
            "SELECT before, set_config('lock_timeout', %s, true)"
            " FROM (SELECT current_setting('lock_timeout') AS before OFFSET 0) AS settings",
            [f"{math.ceil(seconds * 1000)}ms"],
        )
        [before, _] = cursor.fetchone()
        yield
        # After an error there is nothing to do: the rollback restores it.
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [before])

    @override
    def timed_out(self, error: BaseException) -> bool:
        return _sqlstate(error) in (
            "55P03",
            "57014",
        )  # lock_timeout; statement_timeout, if it is the shorter one

    @override
    def restarts(self, error: BaseException) -> bool:
        return _sqlstate(error) in ("40001", "40P01")  # serialization failure, deadlock

    @override
    def is_lost(self, error: BaseException) -> bool:
        if not isinstance(error, OperationalError | InterfaceError):
            return False
        code = _sqlstate(error)
        # None: it never came to a server's answer. 57P: shutdown; 25P03, 57P05: idle for too long; 53300:
        # too many connections.
        return code is None or code.startswith(("08", "57P")) or code in ("25P03", "53300")

    @override
    def is_missing(self, error: BaseException) -> bool:
        return _sqlstate(error) == "42P01"

    @override
    def is_closed(self, connection: Any) -> bool:
        return bool(connection.closed)


class MySQL(Dialect):
    """MariaDB and MySQL (InnoDB): error numbers; a lock timeout of the session, in whole seconds."""

    now = "UTC_TIMESTAMP(6)"
    later = "UTC_TIMESTAMP(6) + INTERVAL %s MICROSECOND"
    epoch = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {0}) / 1000000"
    # A plain INSERT takes a shared lock on the present row, and those who wait for it deadlock later. Either
    # locks the gap behind a key that was deleted a moment ago (READ COMMITTED or not): a claim of another key
    # that falls into it waits for this transaction, and takes the delay line when that lasts.
    ignore = " ON DUPLICATE KEY UPDATE {id} = {id}"
    inserts_tell = False

    _LOST = frozenset(
        {0, 1040, 1053, 1152, 1158, 1159, 1160, 1161, 1203, 1226, 1927, 2002, 2003, 2006, 2013, 2055, 4031}
    )
    # Deadlock, lock wait timeout, "savepoint does not exist" (the deadlock took the whole transaction with
    # it), "record has changed since last read".
    _RESTARTS = frozenset({1213, 1205, 1305, 1020})

    @override
    def span(self, seconds: float) -> float | str:
        return round(seconds * 1_000_000)

    @override
    @contextmanager
    def lock_timeout(self, cursor: CursorWrapper, seconds: float) -> Generator[None]:
        variable = "innodb_lock_wait_timeout"
        cursor.execute(
            f"SET @autosell_rmq_before = @@{variable}, SESSION {variable} = %s", [math.ceil(seconds)]
        )
        try:
            yield
        except BaseException as error:
            if not self.is_lost(error):
                cursor.execute(f"SET SESSION {variable} = @autosell_rmq_before")
            raise
        cursor.execute(f"SET SESSION {variable} = @autosell_rmq_before")

    @override
    def timed_out(self, error: BaseException) -> bool:
        return _errno(error) in (1205, 1969, 3024, 1317)  # the lock wait; a statement's own time limit

    @override
    def restarts(self, error: BaseException) -> bool:
        return _errno(error) in self._RESTARTS

    @override
    def is_lost(self, error: BaseException) -> bool:
        return isinstance(error, OperationalError | InterfaceError) and _errno(error) in self._LOST

    @override
    def is_missing(self, error: BaseException) -> bool:
        return _errno(error) == 1146

    @override
    def is_closed(self, connection: Any) -> bool:
        return not connection.open

    @override
    def check_size(self, cursor: CursorWrapper, data: bytes) -> None:
        # The server answers a statement over its limit by closing the connection, as if it were down.
        if len(data) < _CERTAINLY_FITS:
            return
        cursor.execute("SELECT @@max_allowed_packet")
        [limit] = cursor.fetchone()
        # As the driver writes it. Both have literal(), which PyMySQL is about to drop for escape().
        driver = cursor.db.connection
        quote = driver.escape if type(driver).__module__.startswith("pymysql") else driver.literal
        size = len(quote(data)) + _STATEMENT
        if size > limit:
            raise MessageTooLarge(
                f"the result makes a statement of {size} bytes; the database's max_allowed_packet is {limit}"
            )


class SQLite(Dialect):
    """SQLite: one writer at a time, whatever the key; the lock timeout is the connection's ``timeout``."""

    now = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')"
    later = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', %s)"
    epoch = "(julianday({0}) - 2440587.5) * 86400"
    ignore = " ON CONFLICT ({key}) DO NOTHING"
    lock = ""

    @override
    def span(self, seconds: float) -> float | str:
        return f"{seconds:+.3f} seconds"

    @override
    @contextmanager
    def lock_timeout(self, cursor: CursorWrapper, seconds: float) -> Generator[None]:
        del cursor, seconds
        yield

    @override
    def timed_out(self, error: BaseException) -> bool:
        return self.restarts(error)

    @override
    def restarts(self, error: BaseException) -> bool:
        code = getattr(error.__cause__, "sqlite_errorcode", 0)
        return code & 0xFF in (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED

    @override
    def is_lost(self, error: BaseException) -> bool:
        return False

    @override
    def is_missing(self, error: BaseException) -> bool:
        return "no such table" in str(error)

    @override
    def is_closed(self, connection: Any) -> bool:
        return False


_CERTAINLY_FITS = 256 * 1024  # bytes; max_allowed_packet is 1 MiB or more unless somebody made it less
_STATEMENT = 4096  # bytes of the rest of the statement

_DIALECTS: dict[str, Dialect] = {"postgresql": PostgreSQL(), "mysql": MySQL(), "sqlite": SQLite()}


def dialect_of(connection: BaseDatabaseWrapper) -> Dialect:
    """The dialect of a database.

    Raises:
        ConfigError: there is none for it.
    """
    try:
        return _DIALECTS[connection.vendor]
    except KeyError:
        raise ConfigError(
            f"the database {connection.alias!r} is {connection.display_name}: idempotency records are kept in"
            " PostgreSQL, MariaDB, MySQL or SQLite"
        ) from None


def _sqlstate(error: BaseException) -> str | None:
    """PostgreSQL's code, of the driver's error that Django's came from."""
    driver = error.__cause__
    return getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)


def _errno(error: BaseException) -> int | None:
    """MySQL's number."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else None
