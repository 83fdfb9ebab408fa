"""Sync handlers: in a bounded number of threads, beside an event loop that goes on."""

import asyncio
import contextvars
import threading
from collections import Counter

import pytest

from autosell_rmq import Message
from autosell_rmq.middleware import Next
from tests.integration.app_fixtures import Stage
from tests.support.waiting import PATIENCE, eventually

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")


class Threads:
    """A sync handler that counts how many of it run at once, and holds them until `go_on`."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.most = 0
        self.started = 0
        self.names: Counter[str] = Counter()
        self._running = 0
        self._lock = threading.Lock()

    def __call__(self, payload: int) -> int:
        with self._lock:
            self._running += 1
            self.started += 1
            self.names[threading.current_thread().name] += 1
            self.most = max(self.most, self._running)
        assert self.go_on.wait(PATIENCE)
        with self._lock:
            self._running -= 1
        return payload


@pytest.mark.parametrize(("threads", "prefetch", "most"), [(3, 20, 3), (None, 2, 2), (None, 50, 8)])
async def test_never_more_run_at_once_than_there_are_threads(
    stage: Stage, threads: int | None, prefetch: int, most: int
) -> None:
    queue = stage.queue()
    app = stage.app(threads=threads)
    handler = Threads()
    app.handler(queue, prefetch=prefetch)(handler)
    await app.start_consuming()
    calls = [asyncio.create_task(app.producer.send_message(queue, n)) for n in range(2 * most + 3)]
    await eventually(lambda: handler.started == most)
    handler.go_on.set()

    replies = await asyncio.gather(*calls)
    assert [reply["data"] for reply in replies] == list(range(2 * most + 3))
    assert handler.most == most
    assert len(handler.names) <= most
    assert all(name.startswith("autosell-rmq-handler") for name in handler.names)


async def test_all_handlers_of_an_app_share_the_threads(stage: Stage) -> None:
    queues = [stage.queue() for _ in range(3)]
    app = stage.app(threads=2)
    handler = Threads()
    for queue in queues:
        app.handler(queue)(handler)
    await app.start_consuming()
    calls = [asyncio.create_task(app.producer.send_message(queue, 1)) for queue in queues * 2]
    await eventually(lambda: handler.started == 2)
    handler.go_on.set()
    await asyncio.gather(*calls)
    assert handler.most == 2


async def test_the_event_loop_goes_on_while_threads_are_busy(stage: Stage) -> None:
    busy, free = stage.queue("busy"), stage.queue("free")
    app = stage.app(threads=1)
    handler = Threads()
    app.handler(busy)(handler)

    @app.handler(free)
    async def quick(payload: int) -> int:
        return payload

    await app.start_consuming()
    waiting = [asyncio.create_task(app.producer.send_message(busy, n)) for n in range(3)]
    await eventually(lambda: handler.started == 1)
    assert [(await app.producer.send_message(free, n))["data"] for n in range(10)] == list(range(10))
    assert handler.started == 1
    handler.go_on.set()
    await asyncio.gather(*waiting)


async def test_one_queue_with_busy_threads_takes_no_more_than_its_prefetch(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(threads=1)
    handler = Threads()
    app.handler(queue, prefetch=3)(handler)
    await app.start_consuming()
    calls = [asyncio.create_task(app.producer.send_message(queue, n)) for n in range(10)]
    await eventually(lambda: handler.started == 1)
    await stage.has(queue, 7)
    handler.go_on.set()
    await asyncio.gather(*calls)


async def test_context_variables_reach_the_thread(stage: Stage) -> None:
    queue = stage.queue()

    async def bind(message: Message, call_next: Next) -> object:
        request_id.set(message.correlation_id or "")
        return await call_next(message)

    app = stage.app(middleware=[bind], threads=2)

    @app.handler(queue)
    def handler(payload: object) -> str:
        return request_id.get()

    await app.start_consuming()
    ids = [f"request-{n}" for n in range(10)]
    replies = await asyncio.gather(*(app.producer.send_message(queue, 1, correlation_id=i) for i in ids))
    assert [reply["data"] for reply in replies] == ids
    assert request_id.get() == "none"


async def test_the_middleware_sees_the_results_and_the_errors_of_threads(stage: Stage) -> None:
    queue = stage.queue()
    seen: list[object] = []

    async def outer(message: Message, call_next: Next) -> object:
        try:
            result = await call_next(message)
        except ValueError as error:
            seen.append(str(error))
            raise
        seen.append(result)
        return {"around": result}

    app = stage.app(middleware=[outer], max_retries=0)

    @app.handler(queue)
    def handler(payload: int) -> int:
        if payload < 0:
            raise ValueError("negative")
        return payload

    await app.start_consuming()
    assert (await app.producer.send_message(queue, 5))["data"] == {"around": 5}
    assert (await app.producer.send_message(queue, -5))["error"] == "ValueError: negative"
    assert seen == [5, "negative"]


async def test_a_failing_thread_serves_the_next_message(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(threads=1, max_retries=0)

    @app.handler(queue)
    def handler(payload: int) -> int:
        if payload % 2:
            raise RuntimeError(payload)
        return payload

    await app.start_consuming()
    replies = await asyncio.gather(*(app.producer.send_message(queue, n) for n in range(20)))
    assert [reply["success"] for reply in replies] == [True, False] * 10


async def test_the_threads_end_with_the_consuming(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    handler = Threads()
    handler.go_on.set()
    app.handler(queue)(handler)
    await app.start_consuming()
    await asyncio.gather(*(app.producer.send_message(queue, n) for n in range(20)))
    await app.stop_consuming()

    await eventually(
        lambda: not any(t.name.startswith("autosell-rmq-handler") for t in threading.enumerate())
    )
