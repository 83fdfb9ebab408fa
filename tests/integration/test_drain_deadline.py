"""What has not finished by the drain's deadline: cancelled or left behind, and handled by another worker."""

import asyncio
import threading

import pytest

from autosell_rmq import MemoryStore, Message, PublishNacked
from autosell_rmq.testing import Faults
from tests.integration.app_fixtures import Gate, Stage
from tests.support.waiting import PATIENCE, eventually


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


async def test_what_does_not_finish_is_cancelled_at_the_deadline_and_comes_again(stage: Stage) -> None:
    queue = stage.queue()
    app, other = stage.app(), stage.app()
    gate = Gate()

    @app.handler(queue)
    async def handler(payload: int) -> None:
        await gate()

    taker = Taker()
    other.handler(queue)(taker)
    await app.start_consuming()
    sent = [await stage.ask(queue, n) for n in range(3)]
    await gate.has(3)
    await app.stop_consuming(0.05)

    assert gate.cancelled == 3
    await stage.has(queue, 3)
    await other.start_consuming()
    for identity in sent:
        assert (await stage.reply(identity))["data"].startswith("taken")
    assert sorted(taker.got) == [(0, True), (1, True), (2, True)]


async def test_a_cancelled_run_is_no_attempt(stage: Stage) -> None:
    queue = stage.queue()
    app, other = stage.app(), stage.app(max_retries=0)
    gate = Gate()

    @app.handler(queue)
    async def handler(payload: int) -> None:
        await gate()

    @other.handler(queue)
    async def attempt(payload: int, message: Message) -> int:
        return message.attempt

    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    await gate.has(1)
    await app.stop_consuming(0)
    await other.start_consuming()
    assert (await stage.reply(sent))["data"] == 1


async def test_a_stuck_thread_is_left_behind_at_the_deadline_and_its_message_comes_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    queue = stage.queue()
    app, other = stage.app(), stage.app()
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @app.handler(queue)
    def handler(payload: int) -> str:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(PATIENCE)
        return "too late"

    taker = Taker()
    other.handler(queue)(taker)
    await app.start_consuming()
    sent = await stage.ask(queue, 1)
    await begun.wait()
    try:
        async with asyncio.timeout(5):
            await app.stop_consuming(0.05)
        await other.start_consuming()
        assert (await stage.reply(sent))["data"] == "taken 1"
    finally:
        go_on.set()
    assert "1 handlers are still running at the drain deadline" in caplog.text
    assert stage.replies(sent) == 0


async def test_a_result_that_cannot_be_published_by_the_deadline_is_told_by_another_worker(
    stage: Stage,
) -> None:
    queue = stage.queue()
    store = MemoryStore()
    faults = Faults()
    app, other = await stage.faulty_app(faults, store=store), stage.app(store=store)
    ran: list[int] = []

    @app.handler(queue)
    async def handler(payload: int) -> str:
        ran.append(payload)
        return "finished"

    taker = Taker()
    other.handler(queue)(taker)
    await app.start_consuming()
    faults.on("publish", before=PublishNacked, times=-1)
    sent = await stage.ask(queue, 0)
    await eventually(lambda: "publish:before" in faults.passed)
    await app.stop_consuming(0.05)
    await other.start_consuming()

    assert (await stage.reply(sent))["data"] == "finished"
    assert (ran, taker.got) == ([0], [])
