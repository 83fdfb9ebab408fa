"""A consumer that is lost is attached again, by itself; and what is said of it meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Unpack

import pytest

from autosell_rmq import BrokerUnavailable, QueueNotFound, RabbitMQ
from autosell_rmq.broker import Broker
from autosell_rmq.brokers import create_broker
from autosell_rmq.brokers.memory import MemoryBroker
from autosell_rmq.config import HandlerKwargs, Settings, SettingsKwargs
from autosell_rmq.exceptions import AccessRefused
from autosell_rmq.message import NO_HEADERS
from autosell_rmq.testing import Faults
from autosell_rmq.topology import Queue, Topology
from tests.integration.app_fixtures import Gate, Stage
from tests.integration.stage_fixtures import MemoryStage, RabbitStage
from tests.support.amqp_proxy import alarming_proxy
from tests.support.waiting import PATIENCE, eventually


async def double(payload: int) -> int:
    return payload * 2


@dataclass
class Cuttable:
    """An app over a broker whose connection a test can cut, and no other one's."""

    app: RabbitMQ
    broker: Broker
    cut: Callable[[], None]

    async def lost_and_found(self) -> None:
        before = self.broker.reconnects
        self.cut()
        await eventually(lambda: self.broker.reconnects > before and not self.app.problems)


@asynccontextmanager
async def cuttable(stage: Stage, **settings: Unpack[SettingsKwargs]) -> AsyncGenerator[Cuttable]:
    async with alarming_proxy(stage.url) as between:
        in_memory = isinstance(stage, MemoryStage)
        url = stage.url if in_memory else between.url
        broker = create_broker(Settings(url=url, backoff=0.01))
        await broker.open()
        quick: SettingsKwargs = {"backoff": 0.01, **settings}
        app = RabbitMQ(url, broker=broker, **quick)
        gone = BrokerUnavailable("the connection was cut")
        cut = partial(broker.drop, gone) if isinstance(broker, MemoryBroker) else between.cut
        yield Cuttable(app, broker, cut)
        await app.stop_consuming(0)
        await app.close()
        await broker.close()


async def asked(stage: Stage, queue: str) -> bool:
    return bool((await stage.reply(await stage.ask(queue, 21)))["data"] == 42)


async def test_a_deleted_queue_is_declared_again(stage: Stage) -> None:
    queue, other = stage.queue(), stage.queue()
    app = stage.app(backoff=0.05)
    app.handler(queue)(double)
    app.handler(other)(double)
    await app.start_consuming()
    assert await asked(stage, queue)

    await stage.delete_queue(queue)
    await eventually(lambda: bool(app.problems))
    assert queue in app.problems[0]
    assert await asked(stage, other)

    await eventually(lambda: not app.problems)
    assert await asked(stage, queue)


async def test_one_that_is_not_ours_to_declare_is_waited_for(stage: Stage) -> None:
    queue = await stage.declared()
    app = stage.app(backoff=0.05, max_backoff=0.05)
    app.handler(queue, declare=False)(double)
    await app.start_consuming()

    await stage.delete_queue(queue)
    await eventually(lambda: any("NOT_FOUND" in problem for problem in app.problems))

    await stage.outside.declare(Topology(queues=(Queue(name=queue, arguments=NO_HEADERS),)))
    await eventually(lambda: not app.problems)
    assert await asked(stage, queue)


async def test_a_lost_connection_is_no_end(stage: Stage) -> None:
    queue = stage.queue()
    async with cuttable(stage) as one:
        one.app.handler(queue)(double)
        await one.app.start_consuming()
        running = asyncio.create_task(one.app.run())
        for _ in range(3):
            assert await asked(stage, queue)
            await one.lost_and_found()
        assert await asked(stage, queue)
        one.app.stop()
        await running


async def test_handlers_run_on_while_the_consumer_is_away_and_their_effect_stays_one(stage: Stage) -> None:
    queue, gate = stage.queue(), Gate()
    runs = []
    async with cuttable(stage, busy_timeout=0.01) as one:

        @one.app.handler(queue)
        async def wait(payload: int) -> int:
            runs.append(payload)
            await gate()
            return payload

        await one.app.start_consuming()
        id_ = await stage.ask(queue, 1)
        await gate.has(1)
        await one.lost_and_found()
        gate.open()

        assert (await stage.reply(id_))["data"] == 1
        assert runs == [1]


async def test_no_more_than_prefetch_run_at_once_whatever_is_lost(stage: Stage) -> None:
    """Without claims each redelivery would start another run beside the one of the lost channel."""
    queue, gate = stage.queue(), Gate()
    running = most = 0
    async with cuttable(stage, prefetch=2) as one:

        @one.app.handler(queue, idempotency_key=None)
        async def wait(payload: int) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await gate()
            finally:
                running -= 1

        await one.app.start_consuming()
        for number in range(4):
            await stage.ask(queue, number)
        await gate.has(2)
        for _ in range(3):
            await one.lost_and_found()
        gate.open()
        await stage.has(queue, 0)
        await eventually(lambda: running == 0)
        assert most == 2


async def test_a_refusal_is_told_once_for_each_reason(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    queue, faults = stage.queue(), Faults()
    app = await stage.faulty_app(faults)
    app.handler(queue)(double)
    await app.start_consuming()
    faults.on("consume", before=AccessRefused("not permitted"), times=5)

    await stage.delete_queue(queue)
    await eventually(lambda: any("not permitted" in problem for problem in app.problems))
    await eventually(lambda: not app.problems)

    told = [record for record in caplog.records if "not permitted" in record.getMessage()]
    assert len(told) == 1
    assert await asked(stage, queue)


async def test_an_error_that_nobody_expects_is_no_end(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    queue, faults = stage.queue(), Faults()
    app = await stage.faulty_app(faults)
    app.handler(queue)(double)
    await app.start_consuming()
    faults.on("consume", before=ValueError("odd"), times=2)

    await stage.delete_queue(queue)
    await eventually(lambda: "odd" in app.problems)
    await eventually(lambda: not app.problems)
    assert await asked(stage, queue)
    assert "Traceback" in caplog.text


async def test_it_is_given_up_when_the_settings_say_so(memory: MemoryStage) -> None:
    queue = memory.queue()
    app = memory.app(backoff=0.01, max_backoff=0.01, reconnect_timeout=0.1)
    app.handler(queue)(double)
    await app.start_consuming()
    running = asyncio.create_task(app.run())

    memory.server.stop()

    with pytest.raises(BrokerUnavailable, match="stopped"):
        async with asyncio.timeout(PATIENCE):
            await running
    memory.server.start()


async def test_it_is_given_up_in_the_middle_of_an_attempt(rabbit: RabbitStage) -> None:
    """One attempt waits for the connection for as long as `connect_timeout`."""
    queue = rabbit.queue()
    async with alarming_proxy(rabbit.url) as between:
        app = RabbitMQ(between.url, backoff=0.01, connect_timeout=PATIENCE * 2, reconnect_timeout=0.2)
        app.handler(queue)(double)
        await app.start_consuming()
        running = asyncio.create_task(app.run())
        await between.stop()
        with pytest.raises(BrokerUnavailable):
            async with asyncio.timeout(PATIENCE):
                await running
        await app.close()
        await between.start()


async def test_a_queue_that_stays_away_is_given_up_too(stage: Stage) -> None:
    queue = await stage.declared()
    app = stage.app(backoff=0.01, max_backoff=0.01, reconnect_timeout=0.1)
    app.handler(queue, declare=False)(double)
    await app.start_consuming()
    running = asyncio.create_task(app.run())

    await stage.delete_queue(queue)

    with pytest.raises(QueueNotFound, match=queue):
        async with asyncio.timeout(PATIENCE):
            await running


async def test_a_drain_while_it_is_away_ends_at_once(memory: MemoryStage) -> None:
    queue = memory.queue()
    app = memory.app(backoff=1000, max_backoff=1000)
    app.handler(queue)(double)
    await app.start_consuming()
    memory.server.stop()
    await eventually(lambda: bool(app.problems))

    async with asyncio.timeout(PATIENCE):
        await app.close()
    memory.server.start()
    assert memory.server.queue(queue).consumers == []


async def test_one_that_gets_nothing_from_a_full_queue_is_attached_anew(
    memory: MemoryStage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosell_rmq.consumer.watchdog._EVERY", 0.01)
    queue = memory.queue()
    app = memory.app(backoff=0.01)
    app.handler(queue)(double)
    await app.start_consuming()
    [mute] = memory.server.queue(queue).consumers
    monkeypatch.setattr(mute, "_prefetch", 0)  # the server brings it nothing any more, and says nothing

    assert await asked(memory, queue)
    assert "nothing was delivered, while 1 messages are ready" in caplog.text


async def test_one_whose_queue_has_gone_without_a_word_is_attached_anew(
    memory: MemoryStage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosell_rmq.consumer.watchdog._EVERY", 0.01)
    queue = memory.queue()
    app = memory.app(backoff=0.01)
    app.handler(queue)(double)
    await app.start_consuming()
    del memory.server.entities.queues[queue]  # and the cancel of its consumer was lost on its way

    await eventually(lambda: "its queue is gone" in caplog.text)
    await eventually(lambda: not app.problems)
    assert await asked(memory, queue)


@pytest.mark.parametrize("options", [{"single_active_consumer": True}, {}])
async def test_one_that_is_silent_by_right_is_left_alone(
    memory: MemoryStage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    options: HandlerKwargs,
) -> None:
    """One of several with a single active consumer; and one whose queue is empty."""
    monkeypatch.setattr("autosell_rmq.consumer.watchdog._EVERY", 0.001)
    queue = memory.queue()
    app = memory.app(backoff=0.01)
    app.handler(queue, **options)(double)
    await app.start_consuming()
    [mute] = memory.server.queue(queue).consumers
    if options:
        monkeypatch.setattr(mute, "_prefetch", 0)
        await memory.ask(queue, 1)
    for _ in range(20):  # a watchdog that meant it would have acted by then
        await asyncio.sleep(0.002)
    assert "nothing was delivered" not in caplog.text
    assert memory.server.queue(queue).consumers == [mute]


@pytest.mark.parametrize("backoff", [2, 0.5])
def test_a_first_wait_over_the_longest_is_refused(backoff: float) -> None:
    if backoff > 1:
        with pytest.raises(ValueError, match="backoff=2 is over max_backoff=1"):
            RabbitMQ("memory://", backoff=backoff, max_backoff=1)
    else:
        RabbitMQ("memory://", backoff=backoff, max_backoff=1)
