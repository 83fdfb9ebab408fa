"""An app under test: its own handlers, wherever it runs, on a broker in memory instead of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, override

from anyio.from_thread import BlockingPortal, start_blocking_portal

from autosell_rmq.app import RabbitMQ
from autosell_rmq.brokers.memory import MemoryBroker
from autosell_rmq.exceptions import ClosedError, ConfigError
from autosell_rmq.idempotency import MemoryStore
from autosell_rmq.testing.base_tester import BaseTester
from autosell_rmq.testing.memory import memory_server


class RabbitMQTester(BaseTester):
    """Puts a broker in memory in the place of an app's own, for one test, and shows what its code sends.

    ::

        with RabbitMQTester(rmq) as broker, TestClient(app) as client:
            client.post("/orders", json={"item": "lamp"})
            assert broker.sent[0].data == {"item": "lamp"}
            assert broker.deliver("orders", {"item": "lamp"})["success"]

    The app itself is started and stopped in between, as it always is, on whatever event loop. Its handlers
    run for real: validation, idempotency, dependencies, retries, dead letters. Delays pass at once. What the
    code under test sends goes no further until the test says `run`, but for requests (``send_message`` waits
    for its reply): those are handled at once, by a handler that is here or by what the test has given to
    `answer`.

    `deliver`, `deliver_event` and `run` block their thread; where an event loop runs, await their twins
    `adeliver`, `adeliver_event` and `arun`.

    Args:
        rmqs: one app; or several that share a broker, and then an idempotency store, too. What their
            arguments name instead is not touched.
    """

    _none = "none now: start the app first, as in `with TestClient(app)` or `async with rmq`"

    def __init__(self, *rmqs: RabbitMQ) -> None:
        super().__init__()
        if not rmqs:
            raise ConfigError("RabbitMQTester() wants the app's RabbitMQ object, or several")
        self._rmqs = rmqs
        self._open = ExitStack()
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        """Raises `ClosedError` where an app is connected already."""
        store = MemoryStore()
        with ExitStack() as opened:
            opened.enter_context(memory_server(server=self._server))
            self._portal = opened.enter_context(start_blocking_portal(name="autosell-rmq-test"))
            self._portal.call(self._begin)
            opened.callback(self._portal.call, self._end)
            for rmq in self._rmqs:
                broker = MemoryBroker(rmq.settings, server=self._server)
                opened.enter_context(rmq.rewired(broker, store, self._observe))
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises `ClosedError` where an app is still connected; it stays on the broker in memory then."""
        self._open.close()
        self._portal = None

    @property
    @override
    def _apps(self) -> Sequence[RabbitMQ]:
        return self._rmqs

    @override
    def _call[T](self, coroutine: Coroutine[Any, Any, T]) -> T:
        if _in_event_loop():
            coroutine.close()
            raise ClosedError(
                "this call would block the event loop, and the app with it: await its twin,"
                " as in `await broker.adeliver(…)`"
            )
        return self._submit(coroutine).result()

    @override
    async def _acall[T](self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(self._submit(coroutine))

    def _submit[T](self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        if self._portal is None:
            coroutine.close()
            raise ClosedError("the tester is not open: use it inside of its `with`")
        return self._portal.start_task_soon(_awaited, coroutine)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _awaited[T](coroutine: Coroutine[Any, Any, T]) -> T:
    return await coroutine
