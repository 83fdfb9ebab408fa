"""Several workers with one store between them, and a store that does not answer."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from autosell_rmq import IdempotencyStore, MemoryStore, Message, RedisStore, StoreUnavailable
from autosell_rmq.testing import Faults, FaultyStore
from tests.contract.store_fixtures import REDIS_URL, redis_prefix
from tests.integration.app_fixtures import Gate, Stage
from tests.integration.redis_fixtures import proxying
from tests.support.waiting import PATIENCE, eventually

type Stores = Callable[[], IdempotencyStore]


@pytest.fixture(params=["memory_store", pytest.param("redis_store", marks=pytest.mark.redis)])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    """Gives each worker its store, on shared ground."""
    if request.param == "memory_store":
        shared = MemoryStore()
        yield lambda: shared
        return
    async with AsyncExitStack() as stack:
        prefix = stack.enter_context(redis_prefix())
        yield lambda: RedisStore(REDIS_URL, prefix=prefix)


@pytest.mark.parametrize("is_async", [True, False])
async def test_duplicates_at_two_workers_are_one_run_with_equal_replies(
    stage: Stage, stores: Stores, is_async: bool
) -> None:
    queue = stage.queue()
    runs: list[str] = []
    apps = [stage.app(store=stores(), busy_timeout=0.1) for _ in range(2)]
    gate, held = Gate(), threading.Event()
    for name, app in zip("ab", apps, strict=True):

        async def handler(payload: int, name: str = name) -> str:
            runs.append(name)
            await gate()
            return f"{name} {len(runs)}"

        def sync_handler(payload: int, name: str = name) -> str:
            runs.append(name)
            assert held.wait(PATIENCE)
            return f"{name} {len(runs)}"

        app.handler(queue, prefetch=3)(handler if is_async else sync_handler)
        await app.start_consuming()
    for _ in range(6):
        await stage.ask(queue, 1, correlation_id="same")
    await eventually(lambda: bool(runs))
    await stage.until(lambda: all(app.statistics.busy for app in apps))
    gate.open()
    held.set()

    answers = {(await stage.reply_message("same")).body for _ in range(6)}
    assert len(answers) == 1
    assert len(runs) == 1
    assert sum(app.statistics.handled for app in apps) == 1


async def test_a_worker_that_comes_later_answers_from_the_store(stage: Stage, stores: Stores) -> None:
    queue = stage.queue()
    for name in "ab":
        app = stage.app(store=stores())

        @app.handler(queue)
        async def handler(payload: int, name: str = name) -> str:
            return name

        await app.start_consuming()
        sent = await stage.ask(queue, 1, correlation_id="same")
        assert (await stage.reply(sent))["data"] == "a"
        await app.close()


async def test_a_failure_at_one_worker_lets_the_other_run(stage: Stage, stores: Stores) -> None:
    queue = stage.queue()
    failing, working = stage.app(store=stores(), max_retries=0), stage.app(store=stores())

    @failing.handler(queue)
    async def fails(payload: int) -> None:
        raise ValueError(payload)

    @working.handler(queue)
    async def works(payload: int, message: Message) -> int:
        return message.attempt

    await failing.start_consuming()
    assert not (await stage.reply(await stage.ask(queue, 1, correlation_id="same")))["success"]
    await failing.stop_consuming()
    await working.start_consuming()
    assert (await stage.reply(await stage.ask(queue, 1, correlation_id="same")))["data"] == 1


async def test_while_the_store_does_not_answer_messages_wait_uncounted(stage: Stage) -> None:
    queue = stage.queue()
    faults = Faults()
    app = stage.app(store=FaultyStore(MemoryStore(), faults), max_retries=0)
    attempts: list[tuple[int, int]] = []

    @app.handler(queue, prefetch=1)
    async def handler(payload: int, message: Message) -> int:
        attempts.append((payload, message.attempt))
        return payload

    await app.start_consuming()
    faults.on("run_once", before=StoreUnavailable, times=2)
    sent = [await stage.ask(queue, n) for n in range(2)]
    for n, identity in enumerate(sent):
        assert (await stage.reply(identity))["data"] == n
    assert sorted(attempts) == [(0, 1), (1, 1)]
    assert faults.passed.count("run_once:before") == 4
    assert (app.statistics.busy, app.statistics.retried, app.statistics.dead_lettered) == (0, 0, 0)


async def test_no_handler_starts_while_the_store_does_not_answer(stage: Stage) -> None:
    queue = stage.queue()
    faults = Faults()
    app = stage.app(store=FaultyStore(MemoryStore(), faults))
    runs: list[int] = []

    @app.handler(queue, prefetch=5)
    async def handler(payload: int) -> None:
        runs.append(payload)

    await app.start_consuming()
    faults.on("run_once", before=StoreUnavailable)
    clock = asyncio.get_running_loop().time
    await stage.ask(queue, 0)
    await eventually(lambda: "run_once:before" in faults.passed)
    began = clock()
    for n in range(1, 4):
        await stage.ask(queue, n)
    await eventually(lambda: len(runs) >= 3)
    assert clock() - began > 0.8  # a pause of a second, for all
    await stage.until(lambda: sorted(runs) == [0, 1, 2, 3])


async def test_an_effect_whose_result_was_not_stored_is_repeated_under_the_same_key(stage: Stage) -> None:
    """A lease promises at least once: the store was lost between the effect and its memory."""
    queue = stage.queue()
    faults = Faults()
    app = stage.app(store=FaultyStore(MemoryStore(), faults))
    keys: list[str | None] = []

    @app.handler(queue)
    async def handler(payload: int, message: Message) -> int:
        keys.append(message.idempotency_key)
        return message.attempt

    await app.start_consuming()
    faults.on("run_once.call", after=StoreUnavailable)
    sent = await stage.ask(queue, 1)
    assert (await stage.reply(sent))["data"] == 1
    assert len(keys) == 2
    assert len(set(keys)) == 1


@pytest.mark.redis
async def test_redis_down_then_up_again(stage: Stage) -> None:
    queue = stage.queue()
    attempts: list[int] = []
    async with proxying() as proxy:
        with redis_prefix() as prefix:
            app = stage.app(store=RedisStore(proxy.url, prefix=prefix, timeout=0.5), max_retries=0)

            @app.handler(queue, prefetch=2)
            async def handler(payload: int, message: Message) -> int:
                attempts.append(message.attempt)
                return payload

            await app.start_consuming()
            assert (await stage.reply(await stage.ask(queue, 0)))["data"] == 0
            await proxy.stop()
            sent = [await stage.ask(queue, n) for n in range(1, 4)]
            await eventually(lambda: app.statistics.handled == 1)
            await proxy.start()
            for n, identity in enumerate(sent, start=1):
                assert (await stage.reply(identity))["data"] == n
            await app.close()
    assert attempts == [1, 1, 1, 1]
    assert app.statistics.dead_lettered == 0


async def test_a_store_that_cannot_be_opened_ends_the_start(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app(store=RedisStore("redis://127.0.0.1:1/0", timeout=0.5))

    @app.handler(queue)
    async def handler(payload: int) -> None: ...

    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
        await app.start_consuming()


async def test_a_store_in_memory_is_told_at_the_start(
    stage: Stage, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    queue = stage.queue()
    store = stores()
    app = stage.app(store=store)

    @app.handler(queue)
    async def handler(payload: int) -> None: ...

    await app.start_consuming()
    warned = any("in this process's memory" in record.message for record in caplog.records)
    assert warned is not store.durable
