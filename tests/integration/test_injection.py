"""Injected parameters: there for each attempt, and gone before its result is stored, or not stored."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from autosell_rmq import (
    Call,
    ConfigError,
    Injected,
    Injection,
    MemoryStore,
    Message,
    Next,
    Reject,
    Stored,
)
from tests.integration.app_fixtures import Gate, Stage
from tests.support.injection import Marker, RecordingInjector
from tests.support.waiting import PATIENCE, eventually

type Db = Annotated[str, Marker("db")]


class LoggingStore(MemoryStore):
    """Tells the injector's log when a result is stored."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    async def run_once(self, key: str, fingerprint: str, call: Call) -> Stored:
        stored = await super().run_once(key, fingerprint, call)
        self.log.append("duplicate" if stored.duplicate else "stored")
        return stored


class TransactionalStore(LoggingStore):
    """Runs sync handlers inside of a transaction in their thread."""

    transactional = True

    async def run_once(self, key: str, fingerprint: str, call: Call) -> Stored:
        run_sync, in_thread = call.run_sync, call.in_thread
        assert run_sync is not None
        assert in_thread is not None

        def transaction() -> bytes:
            self.log.append("begin")
            data = run_sync()
            self.log.append("commit")
            return data

        data = await in_thread(transaction)
        return Stored(data=data, fingerprint=fingerprint, duplicate=False)


@dataclass
class Play:
    """A stage, and an app on it whose handlers are served by `injector`."""

    stage: Stage
    injector: RecordingInjector

    async def consume(
        self,
        function: Callable[..., object],
        *,
        store: Callable[[list[str]], LoggingStore] = LoggingStore,
        middleware: Sequence[Callable[[Message, Next], Any]] = (),
        **options: Any,  # noqa: ANN401 - those of a handler
    ) -> str:
        queue = self.stage.queue()
        app = self.stage.app(store=store(self.injector.log), middleware=middleware)
        app.injector = self.injector
        app.handler(queue, **options)(function)
        await app.start_consuming()
        self.app = app
        return queue

    async def reply(self, queue: str, data: object = None) -> dict[str, Any]:
        return await self.stage.reply(await self.stage.ask(queue, data))


@pytest.fixture
async def play(stage: Stage) -> Play:
    return Play(stage, RecordingInjector())


async def of_async(payload: object, db: Db) -> object:
    return [payload, db]


def of_sync(payload: object, db: Db) -> object:
    return [payload, db]


def of_sync_and_awaited(payload: object, db: Db) -> object:
    return of_async(payload, db)


BOTH = pytest.mark.parametrize("function", [of_async, of_sync, of_sync_and_awaited])


@BOTH
async def test_the_value_is_there_and_is_closed_before_the_result_is_stored(
    play: Play, function: Callable[..., object]
) -> None:
    queue = await play.consume(function)
    reply = await play.reply(queue, 7)

    assert reply["data"] == [7, "db"]
    assert play.injector.log == ["open", "close", "stored"]
    assert play.injector.planned == {function.__name__: ["db"]}
    [message] = play.injector.messages  # with what the pipeline adds, though the handler does not ask for it
    assert message.idempotency_key is not None


@pytest.mark.parametrize("with_middleware", [False, True])
@pytest.mark.parametrize("function", [of_sync, of_sync_and_awaited])
async def test_it_is_closed_before_the_transaction_that_a_sync_handler_runs_in_commits(
    play: Play, function: Callable[..., object], with_middleware: bool
) -> None:
    async def around(message: Message, call_next: Next) -> object:
        play.injector.log.append("middleware")
        return await call_next(message)

    queue = await play.consume(
        function, store=TransactionalStore, middleware=[around] if with_middleware else []
    )
    reply = await play.reply(queue, 7)

    assert reply["data"] == [7, "db"]
    expected = ["begin", "middleware", "open", "close", "commit"]
    assert [entry for entry in expected if with_middleware or entry != "middleware"] == play.injector.log


async def test_middleware_is_around_it_and_may_pass_another_message(play: Play) -> None:
    async def around(message: Message, call_next: Next) -> object:
        play.injector.log.append("before")
        result = await call_next(message)
        play.injector.log.append("after")
        return result

    queue = await play.consume(of_async, middleware=[around])
    await play.reply(queue)

    assert play.injector.log == ["before", "open", "close", "after", "stored"]


@pytest.mark.parametrize("store", [LoggingStore, TransactionalStore])
async def test_the_handlers_error_comes_to_it_at_each_attempt(
    play: Play, store: Callable[[list[str]], LoggingStore]
) -> None:
    def handler(payload: object, message: Message, db: Db) -> object:
        if message.attempt == 1:
            raise LookupError
        return db

    queue = await play.consume(handler, store=store)
    assert (await play.reply(queue))["data"] == "db"

    of_store = ("begin", "commit", "stored")
    log = [entry for entry in play.injector.log if entry not in of_store]
    assert log == ["open", "undo LookupError", "open", "close"]


@pytest.mark.parametrize("function", [of_async, of_sync])
async def test_a_commit_that_fails_is_a_failure_of_the_attempt(
    play: Play, function: Callable[..., object]
) -> None:
    commits = 0

    async def commit() -> None:
        nonlocal commits
        commits += 1
        if commits == 1:
            raise ConnectionError("the database is gone")

    play.injector.on_close = commit
    queue = await play.consume(function)

    assert (await play.reply(queue, 1))["data"] == [1, "db"]
    assert play.injector.log == ["open", "open", "close", "stored"]


async def test_a_commit_that_always_fails_is_in_the_dead_letter(play: Play) -> None:
    async def commit() -> None:
        raise ConnectionError("the database is gone")

    play.injector.on_close = commit
    queue = await play.consume(of_async, max_retries=0)
    reply = await play.reply(queue)

    assert reply["error"] == "ConnectionError: the database is gone"
    assert (await play.stage.letter(queue))["error_type"] == "ConnectionError"
    assert "stored" not in play.injector.log


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_result_that_cannot_be_sent_is_undone(play: Play, is_async: bool) -> None:
    async def answers(payload: object, db: Db) -> object:
        return object()

    def answers_sync(payload: object, db: Db) -> object:
        return object()

    queue = await play.consume(answers if is_async else answers_sync)
    reply = await play.reply(queue)

    assert reply["error_code"] == "unhandled_exception"
    assert play.injector.log == ["open", "undo EncodeError"]


async def test_an_error_that_is_swallowed_is_no_success(play: Play) -> None:
    async def handler(payload: object, db: Db) -> object:
        raise LookupError("no such order")

    play.injector.swallows = Exception
    queue = await play.consume(handler, max_retries=0)
    reply = await play.reply(queue)

    assert reply["error"] == (
        "RuntimeError: a dependency with yield swallowed the handler's LookupError; it has to raise it again"
    )
    assert play.injector.log == ["open", "undo LookupError"]


async def test_a_decision_of_the_handler_comes_through(play: Play) -> None:
    async def handler(payload: object, db: Db) -> object:
        raise Reject("no such order")

    queue = await play.consume(handler)
    assert (await play.reply(queue))["error_code"] == "rejected"
    assert play.injector.log == ["open", "undo Reject"]


@pytest.mark.parametrize("swallows", [None, BaseException])
async def test_the_timeout_of_an_async_handler_undoes_it(
    play: Play, swallows: type[BaseException] | None
) -> None:
    async def handler(payload: object, db: Db) -> object:
        return await asyncio.Event().wait()

    play.injector.swallows = swallows
    queue = await play.consume(handler, max_retries=0, timeout=0.05)
    reply = await play.reply(queue)

    assert reply["error"] == "HandlerTimeout: the handler ran longer than 0.05 s"
    assert play.injector.log == ["open", "undo CancelledError"]


@pytest.mark.parametrize("function", [of_async, of_sync])
@pytest.mark.parametrize("end", ["on_open", "on_close"])
async def test_what_is_injected_has_to_come_and_go_in_time(
    play: Play, function: Callable[..., object], end: str
) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    setattr(play.injector, end, hangs)
    queue = await play.consume(function, max_retries=0, timeout=0.05)
    reply = await play.reply(queue)

    assert reply["error"] == "HandlerTimeout: the handler ran longer than 0.05 s"


async def test_the_time_of_a_thread_does_not_count(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Event()

    def handler(payload: object, db: Db) -> object:
        assert go_on.wait(PATIENCE)
        return db

    queue = await play.consume(handler, timeout=0.01)
    asked = await play.stage.ask(queue)
    await eventually(lambda: "runs for over 0.01 s" in caplog.text)
    go_on.set()

    assert (await play.stage.reply(asked))["data"] == "db"


async def test_a_handler_that_is_cancelled_at_the_drain_is_undone(play: Play) -> None:
    gate = Gate()

    async def handler(payload: object, db: Db) -> object:
        await gate()
        return db

    queue = await play.consume(handler)
    await play.stage.ask(queue)
    await gate.has(1)
    await play.app.stop_consuming(0)

    assert play.injector.log == ["open", "undo CancelledError"]
    await play.stage.has(queue, 1)


async def test_a_thread_keeps_what_is_injected_until_it_returns(play: Play) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def handler(payload: object, db: Db) -> object:
        entered.set()
        assert go_on.wait(PATIENCE)
        return db

    queue = await play.consume(handler)
    await play.stage.ask(queue)
    await eventually(entered.is_set)
    await play.app.stop_consuming(0)
    assert play.injector.log == ["open"]

    go_on.set()
    await eventually(lambda: len(play.injector.log) == 2)
    assert play.injector.log == ["open", "undo Abandoned"]


async def test_a_duplicate_needs_nothing(play: Play) -> None:
    queue = await play.consume(of_async)
    for _ in range(2):
        await play.stage.ask(queue, 1, correlation_id="order-1")
    for _ in range(2):
        await play.stage.reply("order-1")

    assert play.injector.log == ["open", "close", "stored", "duplicate"]


async def test_a_handler_that_asks_for_nothing_is_served_without(play: Play) -> None:
    async def handler(payload: object) -> object:
        return payload

    queue = await play.consume(handler)
    assert (await play.reply(queue, 3))["data"] == 3
    assert play.injector.log == ["stored"]
    assert play.injector.planned == {"handler": []}


async def test_nothing_is_consumed_where_nobody_injects(stage: Stage) -> None:
    plain, injected = await stage.declared(), await stage.declared()
    app = stage.app()

    @app.handler(plain)
    async def ok(payload: object) -> None: ...

    app.handler(injected)(of_async)
    await stage.ask(plain)

    with pytest.raises(ConfigError, match=r"handler .*of_async: nothing serves its parameter 'db'.*Marker"):
        await app.start_consuming()
    await stage.has(plain, 1)
    assert app.problems == ("not consuming",)


async def test_nothing_is_consumed_where_a_plan_is_refused(stage: Stage) -> None:
    class Refuses(RecordingInjector):
        def plan(
            self, name: str, function: Callable[..., object], parameters: Sequence[Injected]
        ) -> Injection | None:
            if parameters:
                raise ConfigError("no")
            return None

    plain, injected = await stage.declared(), await stage.declared()
    app = stage.app()
    app.injector = Refuses()

    @app.handler(plain)
    async def ok(payload: object) -> None: ...

    app.handler(injected)(of_async)
    await stage.ask(plain)

    with pytest.raises(ConfigError, match="no"):
        await app.start_consuming()
    await stage.has(plain, 1)
