"""Connections around handlers: closed when they are too old or broken, an outage told from a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import (
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connection,
    connections,
    transaction,
)

from autosell_rmq import Message, Reject, RetryLater, StoreUnavailable
from autosell_rmq_django import connections as rooms
from autosell_rmq_django.connections import AsyncConnections, in_handler_thread, is_outage, refresh
from tests.django import settings
from tests.django.connection_fixtures import Run, cut, in_thread, living, needs_server, session
from tests.django.shop.models import Effect

__all__ = ["in_thread"]

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])
MESSAGE = Message(queue="orders", body=b"{}")


def is_open() -> bool:
    return connection.connection is not None


def handle(function: Callable[[], object]) -> object:
    with in_handler_thread():
        return function()


def failing(error: BaseException) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


# --- before and after ------------------------------------------------------------------------------


def test_a_connection_is_closed_after_the_handler(in_thread: Run) -> None:
    def run() -> tuple[object, bool]:
        with living(CONN_MAX_AGE=0):
            return handle(Effect.objects.count), is_open()

    assert in_thread(run) == (0, False)


def test_conn_max_age_keeps_it(in_thread: Run) -> None:
    def run() -> bool:
        with living(CONN_MAX_AGE=None):
            handle(Effect.objects.count)
            before = connection.connection
            handle(Effect.objects.count)
            return before is not None and connection.connection is before

    assert in_thread(run)


def test_one_that_grew_too_old_is_closed_before_the_handler(in_thread: Run) -> None:
    def run() -> bool:
        with living(CONN_MAX_AGE=60):
            handle(Effect.objects.count)
            before = connection.connection
            connection.close_at = time.monotonic() - 1
            return handle(lambda: connection.connection is not before and before is not None) is True

    assert in_thread(run)


def test_every_alias_is_looked_after(in_thread: Run) -> None:
    def run() -> list[bool]:
        with in_handler_thread():
            Effect.objects.count()
            Effect.objects.using("other").count()
        return [connections[alias].connection is None for alias in ("default", "other")]

    assert in_thread(run) == [True, True]


def test_a_transaction_of_somebody_else_is_left_alone() -> None:
    """As in a TestCase, where handlers run in the test's own thread."""
    with transaction.atomic():
        Effect.objects.create(key="a")
        handle(lambda: Effect.objects.create(key="b"))
        with pytest.raises(StoreUnavailable):
            handle(failing(_lost()))
        assert Effect.objects.count() == 2
        transaction.set_rollback(True)

    assert Effect.objects.count() == 0


def test_autocommit_that_a_handler_turned_off_does_not_stay_off(in_thread: Run) -> None:
    def run() -> bool:
        with living(CONN_MAX_AGE=None):
            handle(lambda: transaction.set_autocommit(False))
            return bool(handle(transaction.get_autocommit))

    assert in_thread(run)


# --- connections that were cut ----------------------------------------------------------------------


@pytest.mark.parametrize("checked", [True, False], ids=["health checks", "none"])
def test_one_that_was_cut_while_it_idled_is_replaced(
    in_thread: Run, checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_server()
    monkeypatch.setattr(rooms, "_TRUSTED", 0.0)  # it idles for longer than that

    def first() -> int:
        connection.close()
        connection.settings_dict = {
            **connection.settings_dict,
            "CONN_MAX_AGE": None,
            "CONN_HEALTH_CHECKS": checked,
        }
        handle(Effect.objects.count)
        return session()

    cut(in_thread(first))

    assert in_thread(lambda: handle(Effect.objects.count)) == 0


def test_one_that_was_cut_in_the_handler_is_an_outage(in_thread: Run) -> None:
    needs_server()

    def run() -> object:
        def handler() -> int:
            Effect.objects.count()
            number = session()
            with_own_connection(lambda: cut(number))
            return Effect.objects.count()

        return handle(handler)

    with pytest.raises(StoreUnavailable, match="a database that the handler needs is out of reach"):
        in_thread(run)
    assert in_thread(lambda: handle(Effect.objects.count)) == 0


def test_so_is_one_that_was_cut_in_its_transaction(in_thread: Run) -> None:
    needs_server()

    def run() -> object:
        def handler() -> None:
            with transaction.atomic():
                Effect.objects.create(key="a")
                number = session()
                with_own_connection(lambda: cut(number))
                Effect.objects.create(key="b")

        return handle(handler)

    with pytest.raises(StoreUnavailable):
        in_thread(run)
    assert Effect.objects.count() == 0


def test_a_database_that_nobody_serves_is_an_outage(in_thread: Run) -> None:
    def run() -> object:
        elsewhere: dict[str, Any] = {
            "sqlite": {"NAME": "/nowhere/of/this/name.sqlite3"},
            "postgres": {"HOST": "127.0.0.1", "PORT": 1},
            "mariadb": {"HOST": "127.0.0.1", "PORT": 1},
        }
        with living(**elsewhere[settings.KIND]):
            return handle(Effect.objects.count)

    with pytest.raises(StoreUnavailable):
        in_thread(run)


def test_the_error_of_another_alias_counts_too(in_thread: Run) -> None:
    needs_server()

    def run() -> object:
        other = connections["other"]
        other.settings_dict = {**other.settings_dict, "HOST": "127.0.0.1", "PORT": 1}
        return handle(Effect.objects.using("other").count)

    with pytest.raises(StoreUnavailable):
        in_thread(run)


# --- failures that are the handler's own ---------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        IntegrityError("twice"),
        DataError("too long"),
        ProgrammingError("no such table"),
        OperationalError("database is locked"),
        OperationalError(1213, "Deadlock found"),
        InterfaceError("bad parameter or other API misuse"),
        Reject("no"),
        RetryLater("later"),
    ],
    ids=repr,
)
def test_a_failure_is_a_failure(in_thread: Run, error: Exception) -> None:
    def run() -> object:
        Effect.objects.count()
        return handle(failing(error))

    with pytest.raises(type(error)) as caught:
        in_thread(run)
    assert caught.value is error


def test_an_error_in_sql_is_a_failure(in_thread: Run) -> None:
    def wrong() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")

    with pytest.raises((OperationalError, ProgrammingError)):
        in_thread(lambda: handle(wrong))


def test_an_error_after_an_outage_that_is_over_is_a_failure(in_thread: Run) -> None:
    """The connection of another alias that was closed for its errors has nothing to do with it."""

    def run() -> object:
        Effect.objects.using("other").count()
        connections["other"].errors_occurred = True
        connections["other"].close()
        return handle(failing(OperationalError("database is locked")))

    with pytest.raises(OperationalError):
        in_thread(run)


def _lost() -> Error:
    error = OperationalError(2006, "Server has gone away")
    error.__cause__ = Exception("the driver's")
    return error


def test_an_outage_behind_the_handlers_own_error_is_an_outage(in_thread: Run) -> None:
    def handler() -> None:
        try:
            raise _lost()
        except Error as error:
            raise RuntimeError("the order could not be stored") from error

    with pytest.raises(StoreUnavailable) as caught:
        in_thread(lambda: handle(handler))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_handlers_decision_upon_an_outage_is_its_decision(in_thread: Run) -> None:
    def handler() -> None:
        try:
            raise _lost()
        except Error as error:
            raise Reject("without the database") from error

    with pytest.raises(Reject):
        in_thread(lambda: handle(handler))


class FromPostgres(Exception):
    __module__ = "psycopg.errors"

    def __init__(self, sqlstate: str | None) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("cause", "outage"),
    [
        (FromPostgres(None), True),
        (FromPostgres("57P01"), True),
        (FromPostgres("57P03"), True),
        (FromPostgres("08006"), True),
        (FromPostgres("53300"), True),
        (FromPostgres("40P01"), False),
        (FromPostgres("55P03"), False),
        (FromPostgres("57014"), False),
    ],
)
def test_what_postgresql_says(in_thread: Run, cause: Exception, outage: bool) -> None:
    error = OperationalError("of the server")
    error.__cause__ = cause

    assert in_thread(lambda: is_outage(error, since=time.monotonic())) is outage


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (OperationalError(2006, "gone away"), True),
        (OperationalError(2013, "lost during query"), True),
        (OperationalError(2003, "cannot connect"), True),
        (OperationalError(1040, "too many connections"), True),
        (InterfaceError(0, ""), True),
        (OperationalError(1205, "lock wait timeout"), False),
        (OperationalError(), False),
    ],
    ids=repr,
)
def test_what_mariadb_says(in_thread: Run, error: Error, outage: bool) -> None:
    assert in_thread(lambda: is_outage(error, since=time.monotonic())) is outage


def test_an_error_that_causes_itself(in_thread: Run) -> None:
    error, other = ValueError(), ValueError()
    error.__context__, other.__context__ = other, error

    assert in_thread(lambda: is_outage(error, since=0.0)) is False


# --- async handlers ------------------------------------------------------------------------------------


async def in_orm_thread[T](function: Callable[[], T]) -> T:
    return await sync_to_async(function)()


async def test_an_async_handlers_connection_is_closed_where_it_was_opened() -> None:
    async def handler(message: Message) -> int:
        return await Effect.objects.acount()

    assert await AsyncConnections({"orders"})(MESSAGE, handler) == 0
    assert not await in_orm_thread(is_open)


async def test_an_async_handler_s_outage() -> None:
    needs_server()

    async def handler(message: Message) -> int:
        await Effect.objects.acount()
        number = await in_orm_thread(session)
        await asyncio.to_thread(with_own_connection, lambda: cut(number))
        return await Effect.objects.acount()

    with pytest.raises(StoreUnavailable):
        await AsyncConnections({"orders"})(MESSAGE, handler)
    assert await AsyncConnections({"orders"})(MESSAGE, lambda _: Effect.objects.acount()) == 0


async def test_an_outage_that_another_handler_has_cleared_up_meanwhile() -> None:
    """All async handlers share a connection: this one's is whole again when it is asked."""

    async def handler(message: Message) -> int:
        def breaks_and_is_replaced() -> None:
            connection.errors_occurred = True
            vars(connection)["is_usable"] = lambda: False
            refresh()
            del vars(connection)["is_usable"]

        await Effect.objects.acount()
        await in_orm_thread(breaks_and_is_replaced)
        await Effect.objects.acount()
        raise OperationalError("what the break led to")

    with pytest.raises(StoreUnavailable):
        await AsyncConnections({"orders"})(MESSAGE, handler)


async def test_an_async_handler_s_failure() -> None:
    async def handler(message: Message) -> int:
        await Effect.objects.acount()
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        await AsyncConnections({"orders"})(MESSAGE, handler)
    assert not await in_orm_thread(is_open)


async def test_a_sync_handler_is_left_to_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "refresh", failing(AssertionError("in the wrong thread")))

    async def handler(message: Message) -> str:
        return "done"

    assert await AsyncConnections({"others"})(MESSAGE, handler) == "done"


def with_own_connection(function: Callable[[], object]) -> None:
    """In a thread of its own, whose connection is closed."""

    def run() -> None:
        try:
            function()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result(timeout=30)
