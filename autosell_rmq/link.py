"""An app's connection: opened once by whoever comes first, on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from autosell_rmq import forks
from autosell_rmq.broker import Broker
from autosell_rmq.exceptions import ClosedError
from autosell_rmq.idempotency import IdempotencyStore, MemoryStore
from autosell_rmq.pipeline import Observer
from autosell_rmq.producer import Acceptance, RabbitMQProducer
from autosell_rmq.waiting import OpeningTurn


class Link:
    """Opens and closes a broker with its producer, and a store when it is needed.

    Args:
        store: None is one in memory.
        observers: of the app.
        owned: the broker is opened and closed here; otherwise by its owner.
        limit: bytes that the body of an accepted message may take.
    """

    def __init__(
        self,
        broker: Broker,
        producer: RabbitMQProducer,
        store: IdempotencyStore | None,
        observers: Sequence[Observer],
        *,
        owned: bool,
        limit: int,
    ) -> None:
        self._producer = producer
        self._limit = limit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: OpeningTurn | None = None
        self._is_open = False
        self._set(broker, store if store is not None else MemoryStore(), tuple(observers), owned=owned)
        forks.watch(self)

    async def open(self) -> None:
        """Connect; see `RabbitMQ.connect`."""
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise ClosedError(
                "this RabbitMQ object is connected on another event loop: close it there first, or make one"
                " for each loop"
            )
        if self._is_open:
            return
        turn = self._opening = self._opening or OpeningTurn()
        async with turn.take():
            if turn is not self._opening:
                raise ClosedError("the app was closed while it connected")
            self._loop = loop
            try:
                if self._owned:
                    await self.broker.open()
                await self._producer.connect()
            except BaseException:
                self._loop = None
                raise
            self._is_open = True

    async def open_store(self) -> None:
        """Open the store: an app that does not consume has had no use for it yet. Idempotent.

        Raises:
            ClosedError: the app is not connected.
        """
        if self._opening is None:
            raise ClosedError("the app is not connected: connect() first, or use `async with`")
        async with self._opening.take():
            await self.store.open()

    async def close(self) -> None:
        """Give up pending requests, disconnect. Idempotent; `open` opens everything again."""
        await self._producer.close()
        if self._owned:
            await self.broker.close()
        await self.store.close()
        self._is_open = False
        self._opening = self._loop = None

    def after_fork(self) -> None:
        """In a forked child: not open."""
        forks.leave(self._loop, self._opening)
        self._loop = self._opening = None
        self._is_open = False

    @contextmanager
    def rewired(self, broker: Broker, store: IdempotencyStore, observer: Observer) -> Generator[None]:
        """Work over another broker, with another store, and tell one observer more, from start to stop.

        Raises:
            ClosedError: the app is connected, when this begins or ends.
        """
        before, owned = (self.broker, self.store, self.observers), self._owned
        self._set(broker, store, (*self.observers, observer), owned=True)
        try:
            yield
        finally:
            self._set(*before, owned=owned)

    def _set(
        self, broker: Broker, store: IdempotencyStore, observers: tuple[Observer, ...], *, owned: bool
    ) -> None:
        if self._loop is not None:
            raise ClosedError(
                "this RabbitMQ object is connected: a RabbitMQTester begins before the app starts, and ends"
                " after it has stopped"
            )
        self._producer.use(broker)
        self.broker, self.store, self.observers, self._owned = broker, store, observers, owned
        self.acceptance = Acceptance(broker, self._producer, store, limit=self._limit)
