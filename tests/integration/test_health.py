"""The health object: what it says of a running app, on every face."""

import asyncio
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from autosell_rmq import ConsumerHealth, HealthFile, RabbitMQ
from autosell_rmq_fastapi import rmq_lifespan, rmq_router
from tests.integration.app_fixtures import Gate, Stage
from tests.integration.stage_fixtures import MemoryStage
from tests.support.waiting import eventually


def only(app: RabbitMQ) -> ConsumerHealth:
    [consumer] = app.health.consumers
    return consumer


async def test_an_app_that_is_not_connected(stage: Stage) -> None:
    health = stage.app().health
    assert (health.ready, health.connected, health.blocked) == (False, False, False)
    assert len(health.problems) == 1
    assert (health.reconnects, health.loop_lag, health.consumers) == (0, 0.0, ())


async def test_from_the_first_delivery_to_its_settlement(stage: Stage) -> None:
    queue, gate = stage.queue(), Gate()
    app = stage.app()

    @app.handler(queue)
    async def wait(payload: int) -> None:
        await gate()

    await app.start_consuming()
    idle = only(app)
    assert (idle.queue, idle.attached, idle.in_hand) == (queue, True, 0)
    assert (idle.last_delivery, idle.last_settled, idle.oldest_running) == (None, None, None)

    await stage.ask(queue, 1)
    await gate.has(1)
    running = only(app)
    assert running.in_hand == 1
    assert running.last_delivery is not None
    assert running.last_delivery.tzinfo is UTC
    assert running.oldest_running is not None
    before = running.oldest_running
    await eventually(lambda: (only(app).oldest_running or 0) > before)
    assert only(app).last_settled is None

    gate.open()
    await eventually(lambda: only(app).in_hand == 0)
    settled = only(app)
    assert settled.oldest_running is None
    assert settled.last_settled is not None
    assert settled.last_settled >= running.last_delivery
    if not isinstance(stage, MemoryStage):
        assert abs(settled.last_settled - datetime.now(UTC)) < timedelta(minutes=1)
    assert app.health.ready
    assert app.health.connected


async def test_the_oldest_of_several_counts(memory: MemoryStage) -> None:
    queue, gate = memory.queue(), Gate()
    app = memory.app()

    @app.handler(queue)
    async def wait(payload: int) -> None:
        await gate()

    await app.start_consuming()
    await memory.ask(queue, 1)
    await gate.has(1)
    first = only(app).oldest_running
    await memory.ask(queue, 2)
    await gate.has(2)
    assert first is not None
    assert (only(app).oldest_running or 0) >= first
    gate.open()


async def test_a_consumer_that_is_lost(stage: Stage) -> None:
    queue = await stage.declared()
    app = stage.app(backoff=1000, max_backoff=1000)

    @app.handler(queue, declare=False)
    async def nothing(payload: int) -> None: ...

    await app.start_consuming()
    await stage.delete_queue(queue)
    await eventually(lambda: not only(app).attached)
    assert queue in str(only(app).problem)
    assert app.health.problems == (only(app).problem,)
    assert not app.health.ready


async def test_the_lag_of_the_loop_shows(memory: MemoryStage) -> None:
    app = memory.app()

    @app.handler(memory.queue())
    async def nothing(payload: int) -> None: ...

    await app.start_consuming()
    assert app.health.loop_lag < 60
    busy_until = time.monotonic() + 0.7  # longer than one look
    while time.monotonic() < busy_until:
        pass
    assert app.health.loop_lag > 0.1
    await app.stop_consuming()
    assert app.health.loop_lag == 0.0


async def test_the_file_holds_it_as_json(memory: MemoryStage, tmp_path: Path) -> None:
    queue = memory.queue()
    app = memory.app()

    @app.handler(queue)
    async def nothing(payload: int) -> None: ...

    await app.start_consuming()
    await memory.reply(await memory.ask(queue, 1))
    await eventually(lambda: only(app).last_settled is not None)
    path = tmp_path / "health"
    file = HealthFile(path)
    assert not path.exists()

    file.write(app.health)

    read = json.loads(path.read_text())
    assert read["ready"] is True
    [consumer] = read["consumers"]
    assert consumer["queue"] == queue
    last = only(app).last_settled
    assert last is not None
    assert datetime.fromisoformat(consumer["last_settled"]) == last
    assert os.listdir(tmp_path) == ["health"]
    file.remove()
    assert not path.exists()


async def test_the_route_for_operators(memory: MemoryStage) -> None:
    queue = memory.queue()
    rmq = memory.app()

    @rmq.handler(queue)
    async def nothing(payload: int) -> None: ...

    app = FastAPI(lifespan=rmq_lifespan(rmq))
    app.include_router(rmq_router(rmq))

    def look() -> None:
        with TestClient(app) as client:
            [health] = client.get("/health/details").json()
            assert health["ready"] is True
            assert [each["queue"] for each in health["consumers"]] == [queue]

    await asyncio.to_thread(look)
