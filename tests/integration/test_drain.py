"""The end of consuming, in order: what is unstarted goes back, what runs may finish, the rest is requeued."""

import asyncio
import threading

import pytest

from autosell_rmq import ClosedError, MemoryStore, Message, PublishNacked
from autosell_rmq.testing import Faults
from tests.integration.app_fixtures import Gate, Stage
from tests.integration.stage_fixtures import MemoryStage
from tests.support.waiting import PATIENCE


class Taker:
    """A second worker's handler: knows what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[int, bool]] = []

    async def __call__(self, payload: int, message: Message) -> str:
        self.got.append((payload, message.redelivered))
        return f"taken {payload}"

    @property
    def payloads(self) -> list[int]:
        return sorted(payload for payload, _ in self.got)


async def test_a_running_handler_finishes_and_its_reply_arrives(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    gate = Gate()

    @app.handler(queue)
    async def handler(payload: int) -> str:
        await gate()
        return "finished"

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    await gate.has(1)
    draining = asyncio.create_task(app.stop_consuming())
    later = await stage.ask(queue, 2)
    await stage.has(queue, 1)  # it takes nothing new
    assert not draining.done()
    gate.open()
    await draining

    assert (await stage.reply(sent))["data"] == "finished"
    assert gate.cancelled == 0
    assert stage.replies(later) == 0
    assert await stage.depth(queue) == 1


async def test_a_running_sync_handler_finishes_and_its_reply_arrives(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @app.handler(queue)
    def handler(payload: int) -> str:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(PATIENCE)
        return "finished"

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    await begun.wait()
    draining = asyncio.create_task(app.stop_consuming())
    await asyncio.sleep(0)
    go_on.set()
    await draining
    assert (await stage.reply(sent))["data"] == "finished"


async def test_what_waits_behind_busy_threads_goes_back_at_once(stage: Stage) -> None:
    queue = stage.queue()
    app, other = stage.app(threads=1), stage.app()
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    ran: list[int] = []

    @app.handler(queue, prefetch=4)
    def handler(payload: int) -> str:
        ran.append(payload)
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(PATIENCE)
        return "finished"

    taker = Taker()
    other.handler(queue)(taker)
    await app.start_consuming()
    sent = [await stage.ask(queue, n) for n in range(4)]
    await begun.wait()
    await stage.has(queue, 0)

    draining = asyncio.create_task(app.stop_consuming())
    try:
        await other.start_consuming()
        for identity in sent[1:]:
            assert (await stage.reply(identity))["data"].startswith("taken")
        assert not draining.done()
    finally:
        go_on.set()
    await draining
    assert (await stage.reply(sent[0]))["data"] == "finished"
    assert (ran, taker.payloads) == ([0], [1, 2, 3])


async def test_what_waits_behind_a_held_flow_goes_back_at_once(stage: Stage) -> None:
    queue = stage.queue()
    store = MemoryStore()
    faults = Faults()
    app, other = await stage.faulty_app(faults, store=store), stage.app(store=store)
    ran: list[int] = []

    @app.handler(queue, prefetch=4)
    async def handler(payload: int) -> str:
        ran.append(payload)
        return "finished"

    taker = Taker()
    other.handler(queue)(taker)
    await app.start_consuming()
    faults.on("publish", before=PublishNacked)
    second_try = faults.hold("publish")
    first = await stage.ask(queue, 0)
    await second_try.reached.wait()
    rest = [await stage.ask(queue, n) for n in range(1, 4)]
    await stage.has(queue, 0)

    draining = asyncio.create_task(app.stop_consuming())
    await other.start_consuming()
    for identity in rest:
        assert (await stage.reply(identity))["data"].startswith("taken")
    assert not draining.done()
    second_try.released.set()
    await draining
    assert (await stage.reply(first))["data"] == "finished"
    assert (ran, taker.payloads) == ([0], [1, 2, 3])


async def test_a_delivery_that_comes_during_the_drain_goes_back(memory: MemoryStage) -> None:
    queue = memory.queue()
    faults = Faults()
    app = await memory.faulty_app(faults)
    taker = Taker()
    app.handler(queue)(taker)
    await app.start_consuming()
    cancelling = faults.hold("cancel")
    giving_back = faults.hold("requeue")
    draining = asyncio.create_task(app.stop_consuming())
    await cancelling.reached.wait()

    await memory.ask(queue, 1)  # it is still subscribed
    await giving_back.reached.wait()
    cancelling.released.set()
    giving_back.released.set()
    await draining

    assert taker.got == []
    assert await memory.depth(queue) == 1


async def test_the_consumers_of_all_queues_stop_before_any_handler_is_waited_for(memory: MemoryStage) -> None:
    slow, quick = memory.queue("slow"), memory.queue("quick")
    app = memory.app()
    gate = Gate()

    @app.handler(slow)
    async def handler(payload: int) -> None:
        await gate()

    taker = Taker()
    app.handler(quick)(taker)
    await app.start_consuming()
    await memory.ask(slow, 1)
    await gate.has(1)
    draining = asyncio.create_task(app.stop_consuming())
    await memory.pass_time(0)
    await memory.ask(quick, 1)
    await memory.pass_time(0)

    assert not draining.done()
    assert taker.got == []
    gate.open()
    await draining


async def test_a_pending_reply_is_given_up_after_the_handlers_have_finished(stage: Stage) -> None:
    nobody = await stage.declared()
    queue = stage.queue()
    app = stage.app()
    gate = Gate()

    @app.handler(queue)
    async def handler(payload: int, message: Message) -> str:
        await gate()
        assert message.producer is not None
        await message.producer.send_fire_and_forget(nobody, payload)
        return "finished"

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    pending = asyncio.create_task(app.producer.send_message(nobody, 1))
    await gate.has(1)
    await stage.has(nobody, 1)
    closing = asyncio.create_task(app.close())
    gate.open()
    await closing

    with pytest.raises(ClosedError):
        await pending
    assert (await stage.reply(sent))["data"] == "finished"
    await stage.has(nobody, 2)


async def test_a_drain_with_nothing_in_hand_is_immediate(stage: Stage) -> None:
    app = stage.app(drain_timeout=60)
    app.handler(stage.queue())(Taker())
    await app.start_consuming()
    async with asyncio.timeout(5):
        await app.stop_consuming()
        await app.stop_consuming()
