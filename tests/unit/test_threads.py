"""The pool of threads: bounded, lazy, stoppable at once, with daemons that nobody waits for."""

import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial

import pytest

from autosell_rmq.pipeline import NotStarted, ThreadPool
from tests.support.waiting import PATIENCE

number: contextvars.ContextVar[int] = contextvars.ContextVar("number")


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(2)
    yield pool
    pool.stop()


def test_threads_start_when_they_are_needed_and_serve_again(pool: ThreadPool) -> None:
    used = set[int]()

    def work(number: int) -> int:
        used.add(threading.get_ident())
        return number

    for n in range(10):
        assert pool.submit(partial(work, n)).result(PATIENCE) == n
    assert 1 <= len(used) <= 2


def test_never_more_than_its_size(pool: ThreadPool) -> None:
    go_on, barrier = threading.Event(), threading.Barrier(3, timeout=PATIENCE)
    most, running, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        if not go_on.is_set():
            barrier.wait()
            go_on.wait(PATIENCE)
        with lock:
            running -= 1

    futures = [pool.submit(work) for _ in range(20)]
    barrier.wait()  # two of them, and this test
    go_on.set()
    for future in futures:
        future.result(PATIENCE)
    assert most == 2


def test_an_error_belongs_to_its_future_and_the_thread_goes_on(pool: ThreadPool) -> None:
    def fail() -> None:
        raise SystemExit(3)

    assert isinstance(pool.submit(fail).exception(PATIENCE), SystemExit)
    assert pool.submit(lambda: "ok").result(PATIENCE) == "ok"


def test_the_context_is_the_callers(pool: ThreadPool) -> None:
    number.set(5)
    assert pool.submit(number.get).result(PATIENCE) == 5
    number.set(6)
    assert pool.submit(number.get).result(PATIENCE) == 6


def held(pool: ThreadPool) -> tuple[threading.Event, list[Future[bool]], list[Future[int]]]:
    """Both threads busy until the event, and three calls that wait for one."""
    go_on = threading.Event()
    begun = threading.Barrier(3, timeout=PATIENCE)

    def hold() -> bool:
        begun.wait()
        return go_on.wait(PATIENCE)

    busy = [pool.submit(hold) for _ in range(2)]
    begun.wait()
    return go_on, busy, [pool.submit(lambda: 1) for _ in range(3)]


def test_a_stop_withdraws_what_no_thread_has_taken_up(pool: ThreadPool) -> None:
    go_on, busy, waiting = held(pool)
    pool.stop()

    for future in waiting:
        with pytest.raises(NotStarted):
            future.result(0)
    assert not any(future.done() for future in busy)
    with pytest.raises(NotStarted):
        pool.submit(lambda: 1).result(0)

    go_on.set()
    assert all(future.result(PATIENCE) for future in busy)


def test_a_cancelled_call_is_not_run(pool: ThreadPool) -> None:
    go_on, _, waiting = held(pool)
    assert waiting[0].cancel()
    go_on.set()
    assert [future.result(PATIENCE) for future in waiting[1:]] == [1, 1]
    assert waiting[0].cancelled()


def test_its_threads_never_keep_the_process(pool: ThreadPool) -> None:
    assert pool.submit(lambda: threading.current_thread().daemon).result(PATIENCE)
