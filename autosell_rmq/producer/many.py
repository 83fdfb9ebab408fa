"""Many messages at once: a window of them in flight, and for each what became of it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Unpack

from autosell_rmq.config.check import whole
from autosell_rmq.exceptions import AutosellRmqError, ConfigError, PublishUnknown
from autosell_rmq.ids import new_id
from autosell_rmq.message import SendOptions
from autosell_rmq.producer.results import (
    Confirmed,
    OnProgress,
    Refused,
    SendProgress,
    SendResult,
    Unknown,
)

WINDOW: Final = 256  # messages in flight, unless the caller says otherwise

_END: Final = object()
_BREATH: Final = 0.01  # seconds that sends which never have to wait may keep the loop for themselves


type Source[T] = Iterable[T] | AsyncIterable[T]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many are sent.

    Attributes:
        window: the most in flight.
        on_progress: called after each.
        only_failures: confirmed ones are counted, and not kept.
        first: index of the first one.
    """

    window: int = WINDOW
    on_progress: OnProgress | None = None
    only_failures: bool = False
    first: int = 0

    def __post_init__(self) -> None:
        whole("window", self.window, least=1)


class SendsMany(ABC):
    """`send_many` and `publish_many`, upon the calls that send one."""

    async def send_many(
        self,
        queue_name: str,
        messages: Source[object],
        *,
        window: int = WINDOW,
        on_progress: OnProgress | None = None,
        correlation_id_of: Callable[[Any], str] | None = None,
        only_failures: bool = False,
        **options: Unpack[SendOptions],
    ) -> list[SendResult]:
        """Send each of `messages` to a queue, without waiting for answers; returns when all have ended.

        At most `window` are taken from `messages` and not yet confirmed, so a generator of millions takes
        little memory. Those in flight may overtake each other; with ``window=1`` none does. What fails is a
        result, and the others go on. Cancelled, it takes nothing more from `messages` and leaves nothing in
        flight; what was sent stays sent.

        Args:
            queue_name: an existing queue.
            messages: the payloads, each anything that pydantic writes as JSON; an async iterable will do.
            window: the most in flight.
            on_progress: called after each message with the counts so far; it must not block.
            correlation_id_of: makes the correlation id from a payload, so that to send it all once more has
                no second effect; by default each gets a new one.
            only_failures: return the results of those only that were not confirmed.
            options: see `SendOptions`; they hold for each message.

        Returns:
            A `Confirmed`, `Refused` or `Unknown` for each message, in order.

        Raises:
            ConfigError: an option is wrong, or so is the name of the queue.
            Exception: of `messages`, `on_progress` or `correlation_id_of`, once what is in flight has ended.
        """
        pace = Pace(window=window, on_progress=on_progress, only_failures=only_failures)
        return await self.send_paced(queue_name, messages, pace, correlation_id_of, options)

    async def publish_many(
        self,
        exchange_name: str,
        events: Source[tuple[str, object]],
        exchange_type: str = "topic",
        *,
        mandatory: bool = True,
        window: int = WINDOW,
        on_progress: OnProgress | None = None,
        correlation_id_of: Callable[[Any], str] | None = None,
        only_failures: bool = False,
        **options: Unpack[SendOptions],
    ) -> list[SendResult]:
        """Publish many events, each a routing key with its payload; see `send_many`.

        The exchange is declared (durable) on first use. An event that no queue is bound for is `Refused`,
        unless `mandatory` is False.
        """
        pace = Pace(window=window, on_progress=on_progress, only_failures=only_failures)
        return await self.publish_paced(
            exchange_name, events, pace, correlation_id_of, options, exchange_type, mandatory=mandatory
        )

    async def send_paced(
        self,
        queue: str,
        messages: Source[object],
        pace: Pace,
        id_of: Callable[[Any], str] | None,
        options: SendOptions,
    ) -> list[SendResult]:
        """`send_many`, as the blocking producers call it."""

        def call(data: object, correlation_id: str) -> Awaitable[object]:
            return self.send_fire_and_forget(queue, data, correlation_id=correlation_id, **options)

        return await _Sending(call, id_of, pace).run(messages)

    async def publish_paced(
        self,
        exchange: str,
        events: Source[tuple[str, object]],
        pace: Pace,
        id_of: Callable[[Any], str] | None,
        options: SendOptions,
        exchange_type: str,
        *,
        mandatory: bool,
    ) -> list[SendResult]:
        """`publish_many`, as the blocking producers call it."""

        def call(event: tuple[str, object], correlation_id: str) -> Awaitable[object]:
            key, data = event
            return self.publish_to_exchange(
                exchange,
                key,
                data,
                exchange_type,
                correlation_id=correlation_id,
                mandatory=mandatory,
                **options,
            )

        def id_of_event(event: tuple[str, object]) -> str:
            assert id_of is not None
            return id_of(event[1])

        return await _Sending(call, id_of_event if id_of else None, pace).run(events)

    @abstractmethod
    async def send_fire_and_forget(
        self,
        queue_name: str,
        message_data: object,
        *,
        correlation_id: str | None = None,
        **options: Unpack[SendOptions],
    ) -> str:
        """Send one."""

    @abstractmethod
    async def publish_to_exchange(
        self,
        exchange_name: str,
        routing_key: str,
        message_data: object,
        exchange_type: str = "topic",
        *,
        correlation_id: str | None = None,
        mandatory: bool = True,
        **options: Unpack[SendOptions],
    ) -> str:
        """Publish one."""


class _Sending[T]:
    """One call of either: as many workers as the window is wide; each sees its message to the end."""

    def __init__(
        self, call: Callable[[T, str], Awaitable[object]], id_of: Callable[[T], str] | None, pace: Pace
    ) -> None:
        self._call = call
        self._id_of = id_of
        self._pace = pace
        self._progress = SendProgress()
        self._results: list[SendResult] = []
        self._next = pace.first
        self._idle: set[asyncio.Task[None] | None] = set()  # workers that wait for their next message
        self._failed = False
        self._breathed = 0.0

    async def run(self, source: Source[T]) -> list[SendResult]:
        take = _taking(source)
        size = len(source) if isinstance(source, list | tuple) else self._pace.window
        workers = [asyncio.create_task(self._work(take)) for _ in range(min(size, self._pace.window))]
        try:
            if workers:
                await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
                for worker in workers:
                    if worker in self._idle:  # one has failed, and the next message may be long in coming
                        worker.cancel()
                await asyncio.wait(workers)
        finally:
            for worker in workers:
                worker.cancel()
            ends = await asyncio.gather(*workers, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        self._results.sort(key=lambda result: result.index)
        return self._results

    async def _work(self, take: Callable[[], Awaitable[T | object]]) -> None:
        try:
            await self._send_all(take)
        except BaseException:
            self._failed = True  # the others finish what they have in hand
            raise

    async def _send_all(self, take: Callable[[], Awaitable[T | object]]) -> None:
        pace, me, clock = self._pace, asyncio.current_task(), asyncio.get_running_loop().time
        while not self._failed:
            self._idle.add(me)
            message: Any = await take()
            self._idle.discard(me)
            if message is _END:
                return
            index, self._next = self._next, self._next + 1
            result = await self._sent(message, index)
            self._progress.count(result)
            if not (pace.only_failures and isinstance(result, Confirmed)):
                self._results.append(result)
            if pace.on_progress is not None:
                pace.on_progress(self._progress)
            if clock() - self._breathed > _BREATH:
                await asyncio.sleep(0)
                self._breathed = clock()

    async def _sent(self, message: T, index: int) -> SendResult:
        correlation_id = self._id_of(message) if self._id_of is not None else new_id()
        try:
            await self._call(message, correlation_id)
        except PublishUnknown as error:
            return Unknown(index, correlation_id, error)
        except ConfigError:
            raise  # it is about the call, not about one of its messages
        except AutosellRmqError as error:
            return Refused(index, correlation_id, error)
        return Confirmed(index, correlation_id)


def _taking[T](source: Source[T]) -> Callable[[], Awaitable[T | object]]:
    """How the next message is had; an async generator must not be asked twice at once."""
    if isinstance(source, AsyncIterable):
        coming, turn = aiter(source), asyncio.Lock()

        async def take() -> T | object:
            async with turn:
                return await anext(coming, _END)
    else:
        there = iter(source)

        async def take() -> T | object:
            return next(there, _END)

    return take
