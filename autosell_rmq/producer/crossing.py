"""Many messages on their way to another thread's event loop: in chunks, two of them under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from itertools import batched
from typing import Any, Final

from autosell_rmq.exceptions import ClosedError
from autosell_rmq.pipeline import result_of
from autosell_rmq.producer.many import Pace, Source
from autosell_rmq.producer.results import Confirmed, SendProgress, SendResult

type Submit = Callable[[Coroutine[Any, Any, list[SendResult]]], Future[list[SendResult]]]
type SendChunk[T] = Callable[[Sequence[T], Pace], Coroutine[Any, Any, list[SendResult]]]

_UNDER_WAY: Final = 2  # chunks


def check_thread() -> None:
    """Raise `ClosedError` where a blocking call would stop an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ClosedError("a blocking call from inside an event loop would stop it: use the async producer there")


class Crossing[T]:
    """Two chunks, of half a window each, are under way: one is in flight while the other is awaited."""

    def __init__(self, send: SendChunk[T], pace: Pace, submit: Submit) -> None:
        self._send = send
        self._pace = pace
        self._submit = submit
        self._size = max(pace.window // 2, 1)
        self._first = 0
        self._progress = SendProgress()
        self._results: list[SendResult] = []
        self._under_way: deque[Future[list[SendResult]]] = deque()

    def run(self, messages: Iterable[T]) -> list[SendResult]:
        """Send them, waiting in this thread; an interrupted wait cancels what is in flight."""
        with self._cancelled_if_interrupted():
            try:
                for chunk in batched(messages, self._size, strict=False):
                    if self._start(chunk):
                        self._ended(result_of(self._under_way[0]))
                while self._under_way:
                    self._ended(result_of(self._under_way[0]))
            except Exception:
                for future in self._under_way:
                    with suppress(Exception):  # the first error is the one to raise
                        result_of(future)
                raise
        return self._results

    async def arun(self, messages: Source[T]) -> list[SendResult]:
        """The same for async code on any loop; a cancellation reaches what is in flight."""
        with self._cancelled_if_interrupted():
            try:
                async for chunk in _chunks(messages, self._size):
                    if self._start(chunk):
                        self._ended(await asyncio.wrap_future(self._under_way[0]))
                while self._under_way:
                    self._ended(await asyncio.wrap_future(self._under_way[0]))
            except Exception:
                await asyncio.gather(*map(asyncio.wrap_future, self._under_way), return_exceptions=True)
                raise
        return self._results

    @contextmanager
    def _cancelled_if_interrupted(self) -> Generator[None]:
        try:
            yield
        except BaseException:
            for future in self._under_way:
                future.cancel()
            raise

    def _start(self, chunk: Sequence[T]) -> bool:
        """Send a chunk; whether the oldest one is to be awaited before the next."""
        pace = Pace(window=self._size, first=self._first)
        self._first += len(chunk)
        self._under_way.append(self._submit(self._send(chunk, pace)))
        return len(self._under_way) == _UNDER_WAY

    def _ended(self, results: list[SendResult]) -> None:
        self._under_way.popleft()
        for result in results:
            self._progress.count(result)
            if not (self._pace.only_failures and isinstance(result, Confirmed)):
                self._results.append(result)
            if self._pace.on_progress is not None:
                self._pace.on_progress(self._progress)


async def _chunks[T](messages: Source[T], size: int) -> AsyncGenerator[Sequence[T]]:
    if not isinstance(messages, AsyncIterable):
        for chunk in batched(messages, size, strict=False):
            yield chunk
        return
    collected: list[T] = []
    async for message in messages:
        collected.append(message)
        if len(collected) == size:
            yield collected
            collected = []
    if collected:
        yield collected
