"""A start that fails: one clear error, soon, and nothing left of it."""

import asyncio

import pytest

from autosell_rmq import AccessRefused, BrokerUnavailable, ConfigError, RabbitMQ, TopologyMismatch
from tests.integration.app_fixtures import Stage
from tests.integration.stage_fixtures import MemoryStage


async def double(payload: int) -> int:
    return payload * 2


async def test_an_app_without_handlers_has_nothing_to_consume(stage: Stage) -> None:
    app = stage.app()
    for start in (app.start_consuming, app.run):
        with pytest.raises(ConfigError, match="nothing to consume"):
            await start()


async def test_a_failed_start_leaves_no_consumer(stage: Stage) -> None:
    good, bad = stage.queue("good"), await stage.declared({"x-max-length": 7})
    app = stage.app()
    app.handler(good)(double)
    app.handler(bad)(double)

    with pytest.raises(TopologyMismatch, match=bad):
        await app.start_consuming()

    await stage.ask(good, 1)
    await stage.has(good, 1)


async def test_no_broker_is_told_in_one_line_within_the_startup_timeout() -> None:
    app = RabbitMQ("amqp://guest:secret@127.0.0.1:1/", startup_timeout=0.2)
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1") as raised:
        async with app:
            pass
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.rabbitmq
async def test_a_wrong_password_ends_the_start_at_once(rabbit: Stage) -> None:
    app = RabbitMQ(rabbit.url.replace("guest:guest", "guest:wrong"), startup_timeout=10)
    async with asyncio.timeout(5):
        with pytest.raises(AccessRefused, match="'guest'"):
            await app.connect()
    await app.close()


async def test_a_start_fails_while_the_server_is_stopped_and_works_afterwards(memory: MemoryStage) -> None:
    queue = memory.queue()
    app = memory.app()
    app.handler(queue)(double)
    memory.server.stop()
    with pytest.raises(BrokerUnavailable):
        await app.start_consuming()

    memory.server.start()
    await app.start_consuming()
    assert (await app.producer.send_message(queue, 1))["data"] == 2
