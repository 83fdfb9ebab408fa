"""An app's life: connect, consume, stop, start again, close; nothing is left running."""

import asyncio
import threading
from contextlib import suppress

import pytest

from autosell_rmq import BrokerUnavailable, ClosedError, PublishNacked, PublishUnroutable, RabbitMQ, Router
from autosell_rmq.exceptions import QueueNotFound
from autosell_rmq.testing import Faults
from tests.integration.app_fixtures import Gate, Stage
from tests.support.footprint import Footprint
from tests.support.waiting import eventually

CYCLES = 20


async def double(payload: int) -> int:
    return payload * 2


def double_in_thread(payload: int) -> int:
    return payload * 2


async def test_async_with_connects_and_closes(stage: Stage) -> None:
    queue = stage.queue()
    app = RabbitMQ(stage.url)
    app.handler(queue)(double)

    async with app:
        await app.start_consuming()
        assert (await app.producer.send_message(queue, 2))["data"] == 4

    with pytest.raises(ClosedError):
        await app.producer.send_message(queue, 2)


async def test_handlers_of_several_queues_share_an_app(stage: Stage) -> None:
    router = Router()
    orders, returns = stage.queue("orders"), stage.queue("returns")
    router.handler(orders)(double)
    app = stage.app()
    app.handler(returns)(double_in_thread)
    app.include(router)
    await app.start_consuming()

    replies = await asyncio.gather(*(app.producer.send_message(queue, 3) for queue in (orders, returns)))
    assert [reply["data"] for reply in replies] == [6, 6]


async def test_start_and_stop_twenty_times_leaves_nothing_behind(stage: Stage) -> None:
    queue, sync_queue = stage.queue("async"), stage.queue("sync")
    app = stage.app()
    app.handler(queue)(double)
    app.handler(sync_queue)(double_in_thread)
    before = Footprint()

    for number in range(CYCLES):
        await app.connect()
        await app.start_consuming()
        replies = await asyncio.gather(
            app.producer.send_message(queue, number), app.producer.send_message(sync_queue, number)
        )
        assert [reply["data"] for reply in replies] == [number * 2] * 2
        await app.stop_consuming()
        await app.close()

    await before.is_restored()


async def test_run_and_stop_twenty_times_on_one_connection_leaves_nothing_behind(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(double_in_thread)
    outside = stage.producer()
    await outside.connect()
    await app.connect()
    await app.start_consuming()
    await outside.send_message(queue, 0)
    await app.stop_consuming()
    before = Footprint()

    for number in range(CYCLES):
        running = asyncio.create_task(app.run())
        assert (await outside.send_message(queue, number))["data"] == number * 2
        app.stop()
        await running

    await before.is_restored()


async def test_start_consuming_twice_is_once(stage: Stage) -> None:
    queue = stage.queue()
    gate = Gate()
    app = stage.app()

    @app.handler(queue, prefetch=1)
    async def slow(payload: int) -> None:
        await gate()

    await asyncio.gather(app.start_consuming(), app.start_consuming())
    await app.start_consuming()
    for number in range(3):
        await app.producer.send_fire_and_forget(queue, number)
    await gate.has(1)
    await stage.has(queue, 2)  # one consumer with a prefetch of one
    gate.open()


@pytest.mark.parametrize("repeat", [1, 2])
async def test_stop_from_another_thread(stage: Stage, repeat: int) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(double)
    running = asyncio.create_task(app.run())
    assert (await stage.reply(await _asked(stage, queue)))["data"] == 2

    def stop() -> None:
        for _ in range(repeat):
            app.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    await running
    thread.join()


async def _asked(stage: Stage, queue: str) -> str:
    """A request, as soon as somebody has declared its queue."""
    sent: list[str] = []

    async def accepted() -> bool:
        try:
            sent.append(await stage.ask(queue, 1))
        except (PublishUnroutable, PublishNacked):  # not declared yet, or its leader not elected
            return False
        return True

    await eventually(accepted)
    return sent[0]


async def test_stop_before_the_start_ends_the_run_at_once_and_only_that_one(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(double)
    app.stop()
    await app.run()

    running = asyncio.create_task(app.run())
    assert (await stage.reply(await _asked(stage, queue)))["data"] == 2
    assert not running.done()
    app.stop()
    await running


@pytest.mark.parametrize("how", ["stop", "failure"])
async def test_a_start_that_ends_early_lets_running_handlers_finish(stage: Stage, how: str) -> None:
    first, second = stage.queue("first"), stage.queue("second")
    faults, gate = Faults(), Gate()
    app = await stage.faulty_app(faults)

    @app.handler(first)
    async def slow(payload: int) -> int:
        await gate()
        return payload * 2

    app.handler(second)(double)
    held = faults.hold("consume", skip=1)
    running = asyncio.create_task(app.run())
    asked = await _asked(stage, first)
    await gate.has(1)
    await held.reached.wait()
    if how == "stop":
        app.stop()
    else:
        faults.on("consume", after=BrokerUnavailable)
        held.released.set()
    await eventually(lambda: "cancel:after" in faults.passed)
    gate.open()

    assert (await stage.reply(asked))["data"] == 2
    assert gate.cancelled == 0
    with suppress(BrokerUnavailable):
        await running
    await stage.has(first, 0)


async def test_stop_after_the_loop_has_ended_is_harmless() -> None:
    app = RabbitMQ("memory://ended")
    app.handler("ended")(double)
    await asyncio.to_thread(lambda: asyncio.run(_run_once(app)))
    app.stop()


async def _run_once(app: RabbitMQ) -> None:
    app.stop()
    await app.run()
    await app.close()


async def test_close_is_idempotent_and_before_everything_else(stage: Stage) -> None:
    app = RabbitMQ(stage.url)
    await app.close()
    await app.connect()
    for _ in range(3):
        await app.close()


async def test_a_closed_app_opens_again(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(double)
    await app.start_consuming()
    await app.close()
    await app.start_consuming()

    assert (await app.producer.send_message(queue, 4))["data"] == 8


async def test_sending_goes_on_after_stop_consuming(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(double)
    await app.start_consuming()
    await app.stop_consuming()

    await app.producer.send_fire_and_forget(queue, 1)
    await stage.has(queue, 1)


async def test_a_broker_passed_in_stays_its_owners(stage: Stage) -> None:
    broker = await stage.connection()
    queue = stage.queue()
    for _ in range(2):
        app = RabbitMQ(stage.url, broker=broker)
        app.handler(queue)(double)
        async with app:
            await app.start_consuming()
            assert (await app.producer.send_message(queue, 1))["data"] == 2


async def test_the_backlog_is_what_is_ready_or_in_hand(stage: Stage) -> None:
    queue, gate = stage.queue(), Gate()
    app = stage.app()

    @app.handler(queue, prefetch=2)
    async def wait(payload: int) -> None:
        await gate()

    await app.connect()
    with pytest.raises(QueueNotFound):
        await app.backlog()
    await app.start_consuming()
    for number in range(5):
        await app.producer.send_fire_and_forget(queue, number)

    await gate.has(2)
    assert await app.backlog() == 5

    gate.open()

    async def empty() -> bool:
        return await app.backlog() == 0

    await eventually(empty)
