"""Borrowed threads: calls run where somebody waits, also for each other, and nowhere else."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from autosell_rmq import Message, Next, RabbitMQ, SyncRabbitMQProducer
from autosell_rmq.pipeline import NotStarted, waiting
from autosell_rmq.testing import BorrowedThreads, MemoryServer, memory_server
from tests.support.waiting import PATIENCE

number: contextvars.ContextVar[int] = contextvars.ContextVar("number")

# Runs a coroutine on an event loop in another thread.
type Beside = Callable[[Coroutine[Any, Any, Any]], Future[Any]]


@pytest.fixture
def threads() -> Iterator[BorrowedThreads]:
    with BorrowedThreads() as threads:
        yield threads
    assert waiting.serve is None


@pytest.fixture
def beside() -> Iterator[Beside]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda call: asyncio.run_coroutine_threadsafe(call, loop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    with memory_server() as server:
        yield server


def test_a_call_runs_in_the_thread_that_waits(threads: BorrowedThreads) -> None:
    done: Future[None] = Future()
    number.set(7)

    def call() -> tuple[int, int]:
        done.set_result(None)
        return threading.get_ident(), number.get()

    with ThreadPoolExecutor(1) as other:
        context = contextvars.copy_context()
        called = other.submit(context.run, threads.submit, call).result(PATIENCE)
        assert not called.done()
        threads.wait(done)

    assert called.result(0) == (threading.get_ident(), 7)


def test_its_error_is_its_callers(threads: BorrowedThreads) -> None:
    failing = threads.submit(lambda: 1 // 0)
    threads.wait(threads.submit(int))

    with pytest.raises(ZeroDivisionError):
        failing.result(0)


def test_an_interrupt_is_for_the_thread_too(threads: BorrowedThreads) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    interrupted = threads.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        threads.wait(Future())

    assert isinstance(interrupted.exception(0), KeyboardInterrupt)


def test_what_was_cancelled_does_not_run(threads: BorrowedThreads) -> None:
    assert threads.submit(partial(pytest.fail, "it runs")).cancel()
    threads.wait(threads.submit(int))


def test_a_call_may_wait_for_another(threads: BorrowedThreads) -> None:
    def outer() -> str:
        return threads.wait(threads.submit(lambda: "inner"))

    assert threads.wait(threads.submit(outer)) == "inner"


def test_the_end_of_one_wait_wakes_its_own_thread(threads: BorrowedThreads) -> None:
    first: Future[str] = Future()
    second: Future[str] = Future()
    with ThreadPoolExecutor(2) as others:
        waits = [others.submit(threads.wait, each) for each in (first, second)]
        second.set_result("second")
        assert waits[1].result(PATIENCE) == "second"
        first.set_result("first")
        assert waits[0].result(PATIENCE) == "first"


def test_after_the_stop_nothing_starts(threads: BorrowedThreads) -> None:
    waited = threads.submit(int)
    threads.stop()

    for future in (waited, threads.submit(int)):
        with pytest.raises(NotStarted):
            future.result(0)


def test_only_one_at_a_time(threads: BorrowedThreads) -> None:
    with pytest.raises(RuntimeError, match="one BorrowedThreads at a time"), BorrowedThreads():
        pass
    assert waiting.serve is not None


async def pass_on(message: Message, call_next: Next) -> object:
    """A middleware whose way leads through the event loop."""
    await asyncio.sleep(0)
    return await call_next(message)


@pytest.mark.parametrize("middleware", [[], [pass_on]])
def test_handlers_run_in_the_tests_thread_and_ask_each_other(
    server: MemoryServer, threads: BorrowedThreads, beside: Beside, middleware: list[Any]
) -> None:
    app = RabbitMQ(server.url, thread_pool=threads, middleware=middleware)
    ran: list[tuple[str, int]] = []

    @app.handler("orders")
    def order(data: int, message: Message) -> int:
        ran.append(("orders", threading.get_ident()))
        reply = message.sync_producer.send_message("prices", data, timeout=PATIENCE)
        return int(reply["data"])

    @app.handler("prices")
    def price(data: int) -> int:
        ran.append(("prices", threading.get_ident()))
        return data * 2

    threads.wait(beside(app.start_consuming()))
    with SyncRabbitMQProducer(server.url) as producer:
        reply = producer.send_message("orders", 21, timeout=PATIENCE)
    threads.wait(beside(app.close()))

    assert reply["data"] == 42
    assert ran == [("orders", threading.get_ident()), ("prices", threading.get_ident())]


def test_a_middleware_may_use_the_thread_around_a_handler(
    server: MemoryServer, threads: BorrowedThreads, beside: Beside
) -> None:
    """As asgiref's sync_to_async does: the thread waits for the middleware, and serves it."""
    seen: list[int] = []

    async def looks(message: Message, call_next: Next) -> object:
        seen.append(await asyncio.wrap_future(threads.submit(threading.get_ident)))
        result = await call_next(message)
        seen.append(await asyncio.wrap_future(threads.submit(threading.get_ident)))
        return result

    app = RabbitMQ(server.url, thread_pool=threads, middleware=[looks])
    app.handler("orders", effect="lease")(lambda data: data)
    threads.wait(beside(app.start_consuming()))
    with SyncRabbitMQProducer(server.url) as producer:
        assert producer.send_message("orders", 1, timeout=PATIENCE)["data"] == 1
    threads.wait(beside(app.close()))

    assert seen == [threading.get_ident()] * 2
