"""What an app says of itself: whether it can do what it was started for."""

import asyncio

import pytest

from autosell_rmq import BrokerUnavailable, ClosedError, RabbitMQ
from tests.integration.app_fixtures import Gate, Stage
from tests.integration.stage_fixtures import MemoryStage
from tests.support.amqp_proxy import alarming_proxy
from tests.support.footprint import Footprint
from tests.support.waiting import PATIENCE, eventually


async def double(payload: int) -> int:
    return payload * 2


def problems(app: RabbitMQ) -> tuple[str, ...]:
    """At this moment: a type checker takes a property for what it was before."""
    return app.problems


async def test_consuming_is_asked_of_an_app_from_its_start_until_its_drain(stage: Stage) -> None:
    queue, gate = stage.queue(), Gate()
    app = stage.app()

    @app.handler(queue)
    async def wait(payload: int) -> None:
        await gate()

    assert len(problems(app)) == 1
    await app.connect()
    assert problems(app) == ()
    await app.start_consuming()
    assert problems(app) == ()
    await stage.ask(queue, 1)
    await gate.has(1)
    stopping = asyncio.create_task(app.stop_consuming())
    await eventually(lambda: app.problems == ("not consuming",))
    gate.open()
    await stopping
    assert problems(app) == ()
    await app.close()
    assert len(problems(app)) == 1


async def test_a_start_that_failed_is_a_problem(memory: MemoryStage) -> None:
    app = memory.app()
    app.handler(memory.queue())(double)
    memory.server.stop()
    with pytest.raises(BrokerUnavailable):
        await app.start_consuming()
    assert "not consuming" in app.problems


async def test_a_deleted_queue_is_a_problem(stage: Stage) -> None:
    queue = stage.queue()
    app = stage.app()
    app.handler(queue)(double)
    await app.start_consuming()
    await stage.delete_queue(queue)
    await eventually(lambda: bool(app.problems))
    assert queue in app.problems[0]


async def test_a_drain_that_is_cancelled_cuts_handlers_short(stage: Stage) -> None:
    queue, gate = stage.queue(), Gate()
    app = stage.app(drain_timeout=1000)

    @app.handler(queue)
    async def wait(payload: int) -> None:
        await gate()

    await app.start_consuming()
    await stage.ask(queue, 1)
    await gate.has(1)
    stopping = asyncio.create_task(app.stop_consuming())
    await eventually(lambda: bool(app.problems))
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert gate.cancelled == 1
    await stage.has(queue, 1)


async def test_a_start_during_the_drain_counts(stage: Stage) -> None:
    queue, gate = stage.queue(), Gate()
    app = stage.app()

    @app.handler(queue)
    async def wait(payload: int) -> None:
        await gate()

    await app.start_consuming()
    await stage.ask(queue, 1)
    await gate.has(1)
    stopping = asyncio.create_task(app.stop_consuming())
    await eventually(lambda: bool(app.problems))
    await app.start_consuming()
    gate.open()
    await stopping
    assert app.problems == ()
    await stage.delete_queue(queue)
    await eventually(lambda: bool(app.problems))


@pytest.mark.rabbitmq
async def test_a_lost_connection_is_a_problem_until_it_is_back_and_ends_with_the_app(rabbit: Stage) -> None:
    async with alarming_proxy(rabbit.url) as between:
        app = RabbitMQ(between.url, backoff=0.1, max_backoff=0.1)
        before = Footprint()
        await app.connect()
        await between.stop()
        await eventually(lambda: bool(app.problems))
        await between.start()
        await eventually(lambda: not app.problems)  # nobody has asked for anything

        await between.stop()
        await eventually(lambda: bool(app.problems))
        await app.close()
        await before.is_restored()
        await between.start()


@pytest.mark.rabbitmq
async def test_a_send_waits_for_a_lost_connection_and_no_longer_than_its_timeout(rabbit: Stage) -> None:
    queue = await rabbit.declared()
    async with (
        alarming_proxy(rabbit.url) as between,
        RabbitMQ(between.url, outage_timeout=0.2, backoff=0.1, max_backoff=0.1) as app,
        RabbitMQ(between.url, outage_timeout=PATIENCE, backoff=0.1, max_backoff=0.1) as patient,
    ):
        await between.stop()
        await eventually(lambda: bool(app.problems and patient.problems))
        sending = asyncio.create_task(patient.producer.send_fire_and_forget(queue, 1))
        with pytest.raises(BrokerUnavailable, match="RabbitMQ at amqp://"):
            await app.producer.send_fire_and_forget(queue, 1)
        await between.start()
        await sending


async def test_an_app_belongs_to_one_event_loop_at_a_time(stage: Stage) -> None:
    app = stage.app()
    await app.connect()

    def connect_elsewhere() -> None:
        asyncio.run(app.connect())

    with pytest.raises(ClosedError, match="connected on another event loop"):
        await asyncio.to_thread(connect_elsewhere)
    assert app.problems == ()
    await app.close()

    async def live() -> None:
        async with app:
            assert app.problems == ()

    await asyncio.to_thread(lambda: asyncio.run(live()))
    await app.connect()


async def test_an_app_whose_connecting_failed_is_free_for_another_loop(memory: MemoryStage) -> None:
    app = memory.app()
    memory.server.stop()
    with pytest.raises(BrokerUnavailable):
        await app.connect()
    memory.server.start()

    async def live() -> None:
        async with app:
            assert app.problems == ()

    await asyncio.to_thread(lambda: asyncio.run(live()))
