"""The states of a supervised connection, with attempts that a test decides."""

import asyncio
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aio_pika import Connection

from autosell_rmq.brokers.rabbitmq.supervising import SupervisedConnection
from autosell_rmq.config import Settings, SettingsKwargs
from autosell_rmq.exceptions import AccessRefused, AutosellRmqError, BrokerUnavailable, ClosedError
from tests.support.framed import open_frames
from tests.support.waiting import PATIENCE, eventually

QUICK: SettingsKwargs = {"backoff": 0.001, "max_backoff": 0.002, "startup_timeout": PATIENCE}


class Line:
    """A connection of the client library, as far as it is looked at."""

    def __init__(self) -> None:
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._frames = open_frames(self)
        self.transport: Any = SimpleNamespace(connection=self)

    @property
    def is_closed(self) -> bool:
        return self.closing.done()

    def lose(self) -> None:
        self.closing.set_exception(ConnectionError("CONNECTION_FORCED - the node goes down"))

    def block(self) -> None:
        self._frames.writer.block("low on memory")

    def unblock(self) -> None:
        self._frames.writer.block(None)

    async def close(self) -> None:
        self.transport = None
        if not self.closing.done():
            self.closing.set_result(None)


class Attempts:
    """What comes of each attempt: an error for as long as there is one, then a connection."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.forever: AutosellRmqError | None = None
        self.lines: list[Any] = []
        self.made = 0

    async def __call__(self, settings: Settings, purpose: str) -> Connection:
        await asyncio.sleep(0)
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        if self.forever is not None:
            raise self.forever
        self.lines.append(Line())
        return cast("Connection", self.lines[-1])


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


@pytest.fixture
async def connection(attempts: Attempts) -> AsyncIterator[SupervisedConnection]:
    supervised = SupervisedConnection(Settings(**QUICK), "publish", attempts)
    yield supervised
    await supervised.close()


def problem(connection: SupervisedConnection) -> str | None:
    """At this moment: a type checker takes a property for what it was before."""
    return connection.problem


async def test_it_is_opened_once_by_all_who_ask(connection: SupervisedConnection, attempts: Attempts) -> None:
    assert "not connected" in str(problem(connection))
    await asyncio.gather(*(connection.open() for _ in range(5)))
    assert attempts.made == 1
    assert problem(connection) is None
    assert await connection.get(1) is attempts.lines[0]


async def test_the_start_tries_again_until_its_time_is_over(attempts: Attempts) -> None:
    attempts.forever = BrokerUnavailable("nobody answers")
    supervised = SupervisedConnection(Settings(backoff=0.01, startup_timeout=0.1), "publish", attempts)
    with pytest.raises(BrokerUnavailable, match="nobody answers"):
        await supervised.open()
    assert attempts.made > 1


async def test_the_start_ends_at_once_where_another_attempt_would_not_help(
    connection: SupervisedConnection, attempts: Attempts
) -> None:
    attempts.forever = AccessRefused("wrong password")
    with pytest.raises(AccessRefused):
        await connection.open()
    assert attempts.made == 1


async def test_a_lost_one_is_opened_again_and_those_who_wait_get_it(
    connection: SupervisedConnection, attempts: Attempts
) -> None:
    await connection.open()
    attempts.errors = [BrokerUnavailable("refused") for _ in range(3)]
    attempts.lines[0].lose()

    waiting = [asyncio.create_task(connection.get(PATIENCE)) for _ in range(3)]
    assert [each is attempts.lines[1] for each in await asyncio.gather(*waiting)] == [True] * 3
    assert attempts.made == 5
    assert connection.reconnects == 1
    assert problem(connection) is None


async def test_it_says_why_it_is_away(
    connection: SupervisedConnection, attempts: Attempts, caplog: pytest.LogCaptureFixture
) -> None:
    await connection.open()
    attempts.forever = BrokerUnavailable("cannot connect to RabbitMQ")
    attempts.lines[0].lose()
    await eventually(lambda: "lost: CONNECTION_FORCED - the node goes down" in caplog.text)
    await eventually(lambda: connection.problem == "cannot connect to RabbitMQ")
    with pytest.raises(BrokerUnavailable, match="cannot connect to RabbitMQ"):
        await connection.get(0.01)


async def test_an_error_that_nobody_expects_is_no_end(
    connection: SupervisedConnection, attempts: Attempts, caplog: pytest.LogCaptureFixture
) -> None:
    await connection.open()
    attempts.errors = [ValueError("odd"), Exception()]
    attempts.lines[0].lose()
    assert await connection.get(PATIENCE) is attempts.lines[1]
    assert "still without RabbitMQ (publish): odd\nTraceback" in caplog.text


async def test_each_reason_is_told_once(
    connection: SupervisedConnection, attempts: Attempts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await connection.open()
    attempts.errors += [BrokerUnavailable("refused")] * 4 + [BrokerUnavailable("no such host")] * 4
    attempts.lines[0].lose()
    await eventually(lambda: connection.reconnects == 1)

    told = [record.getMessage() for record in caplog.records]
    assert len([line for line in told if "refused" in line]) == 1
    assert len([line for line in told if "no such host" in line]) == 1
    assert len([line for line in told if "RabbitMQ is back after" in line]) == 1


async def test_a_refusal_after_the_start_is_tried_again_until_it_is_mended(
    connection: SupervisedConnection, attempts: Attempts
) -> None:
    await connection.open()
    attempts.forever = AccessRefused("the password was changed")
    attempts.lines[0].lose()

    await eventually(lambda: connection.problem == "the password was changed")
    with pytest.raises(BrokerUnavailable, match="the password was changed"):
        await connection.get(0.01)
    attempts.forever = None
    await eventually(lambda: connection.problem is None)


async def test_a_close_ends_everything(connection: SupervisedConnection, attempts: Attempts) -> None:
    await connection.open()
    attempts.forever = BrokerUnavailable("refused")
    attempts.lines[0].lose()
    waiting = asyncio.create_task(connection.get(PATIENCE))
    await eventually(lambda: attempts.made > 2)

    await connection.close()

    with pytest.raises(ClosedError):
        await waiting
    made = attempts.made
    with pytest.raises(ClosedError):
        await connection.get(PATIENCE)
    assert attempts.made == made
    await connection.close()


async def test_a_close_during_the_start_leaves_nothing_open(
    connection: SupervisedConnection, attempts: Attempts
) -> None:
    opening = asyncio.create_task(connection.open())
    await asyncio.sleep(0)
    await connection.close()
    with pytest.raises(ClosedError):
        await opening
    assert all(line.is_closed for line in attempts.lines)


async def test_a_close_between_two_attempts_of_the_start_ends_it_at_once(attempts: Attempts) -> None:
    attempts.forever = BrokerUnavailable("refused")
    patient = Settings(backoff=PATIENCE * 2, max_backoff=PATIENCE * 2, startup_timeout=PATIENCE * 9)
    connection = SupervisedConnection(patient, "test", attempts)
    opening = asyncio.create_task(connection.open())
    await eventually(lambda: attempts.made == 1)
    await connection.close()
    async with asyncio.timeout(PATIENCE / 3):
        with pytest.raises(ClosedError):
            await opening
    assert attempts.made == 1


async def test_a_blocked_one_refuses_at_once(connection: SupervisedConnection, attempts: Attempts) -> None:
    await connection.open()
    await connection.unblocked(PATIENCE)
    attempts.lines[0].block()
    assert connection.is_blocked
    assert "alarm" in str(problem(connection))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BrokerUnavailable, match="alarm; the message was not sent"):
            await connection.unblocked(2 * PATIENCE)
    attempts.lines[0].unblock()
    await connection.unblocked(PATIENCE)


async def test_or_waits_where_that_was_chosen(attempts: Attempts) -> None:
    supervised = SupervisedConnection(Settings(when_blocked="wait"), "publish", attempts)
    await supervised.open()
    attempts.lines[0].block()
    with pytest.raises(BrokerUnavailable, match="alarm"):
        await supervised.unblocked(0.01)
    waiting = asyncio.create_task(supervised.unblocked(PATIENCE))
    await asyncio.sleep(0)
    assert not waiting.done()
    attempts.lines[0].unblock()
    await waiting
    await supervised.close()
