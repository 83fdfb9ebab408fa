"""The watch over the event loop: it tells who holds it up, while it is held up."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import pytest

from autosell_rmq.consumer.loop_watch import LoopWatch
from tests.support.waiting import PATIENCE, eventually


class Said(logging.Handler):
    """Collects what is logged, for a thread to wait on."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._more = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._more:
            self.lines.append(record.getMessage())
            self._more.notify_all()

    def has(self, lines: int) -> bool:
        return len(self.lines) >= lines

    def block_until(self, holds: Callable[[], bool]) -> None:
        with self._more:
            assert self._more.wait_for(holds, PATIENCE)


@pytest.fixture
def said() -> Iterator[Said]:
    handler, logger = Said(), logging.getLogger("autosell_rmq.consumer.loop_watch")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
async def watch() -> AsyncIterator[LoopWatch]:
    watch = LoopWatch()
    watch.start()
    yield watch
    watch.stop()


async def test_it_names_the_line_that_holds_the_loop_up_while_it_does(watch: LoopWatch, said: Said) -> None:
    def slow_handler() -> None:
        said.block_until(partial(said.has, 1))

    slow_handler()

    [line] = said.lines
    assert "has not turned for" in line
    assert "test_loop_watch.py:" in line
    assert "slow_handler" in line or "block_until" in line
    assert watch.lag >= 1.0


async def test_once_for_each_time_and_then_that_it_turns_again(watch: LoopWatch, said: Said) -> None:
    for blocked in (1, 2):
        lines = 2 * blocked
        said.block_until(partial(said.has, lines - 1))
        await eventually(partial(said.has, lines))

    kinds = ["again" if "turns again" in line else "held up" for line in said.lines]
    assert kinds == ["held up", "again", "held up", "again"]


async def test_a_loop_on_time_is_no_news(watch: LoopWatch, said: Said) -> None:
    await eventually(lambda: watch.lag < 0.5)
    assert said.lines == []


async def test_after_its_stop_it_watches_no_more(said: Said) -> None:
    before = threading.active_count()
    watch = LoopWatch()
    watch.start()
    watch.stop()
    watch.stop()

    await eventually(lambda: threading.active_count() <= before)
    assert watch.lag == 0.0


def test_it_ends_with_its_loop_where_nobody_stops_it() -> None:
    async def start() -> None:
        LoopWatch().start()

    before = set(threading.enumerate())
    asyncio.run(start())
    left = set(threading.enumerate()) - before
    assert len(left) <= 1
    for thread in left:
        thread.join(PATIENCE)
        assert not thread.is_alive()
