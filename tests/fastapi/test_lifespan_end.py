"""How it ends, well or not: drained, cut short, failed at the start; and nothing is left behind."""

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import FrameType

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from autosell_rmq import AccessRefused, BrokerUnavailable, RabbitMQ, TopologyMismatch
from autosell_rmq.exceptions import AutosellRmqError
from autosell_rmq.testing import Faults
from autosell_rmq_fastapi import Producer, SyncProducer, rmq_lifespan
from tests.fastapi.serving import serving
from tests.integration.app_fixtures import Gate, Stage
from tests.support.footprint import Footprint
from tests.support.waiting import eventually

CYCLES = 20


async def double(payload: int) -> int:
    return payload * 2


def double_in_thread(payload: int) -> int:
    return payload * 2


class Own:
    """An app's own lifespan, and how it was left."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.left = False

    @asynccontextmanager
    async def __call__(self, app: FastAPI) -> AsyncGenerator[None]:
        try:
            yield
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.left = True


# --- the end --------------------------------------------------------------------------------------------


async def test_the_drain_ends_with_its_timeout(stage: Stage) -> None:
    queue, gate = stage.queue(), Gate()
    rmq = stage.app(drain_timeout=0.1)

    @rmq.handler(queue)
    async def wait(payload: int) -> None:
        await gate()

    async with serving(FastAPI(lifespan=rmq_lifespan(rmq))):
        await stage.ask(queue, 1)
        await gate.has(1)
    assert gate.cancelled == 1
    await stage.has(queue, 1)


async def test_a_cancelled_lifespan_waits_for_no_handler(stage: Stage) -> None:
    """As when uvicorn gets a second Ctrl-C while requests are still running."""
    queue, gate, started, own = stage.queue(), Gate(), asyncio.Event(), Own()
    rmq = stage.app(drain_timeout=1000)

    @rmq.handler(queue)
    async def wait(payload: int) -> None:
        await gate()

    async def live() -> None:
        async with rmq_lifespan(rmq, own)(FastAPI()):
            started.set()
            await asyncio.Event().wait()

    living = asyncio.create_task(live())
    await started.wait()
    await stage.ask(queue, 1)
    await gate.has(1)
    living.cancel()
    with pytest.raises(asyncio.CancelledError):
        await living

    assert gate.cancelled == 1
    assert isinstance(own.error, asyncio.CancelledError)
    await stage.has(queue, 1)


async def test_a_lifespan_that_is_cancelled_during_its_drain_cuts_it_short(stage: Stage) -> None:
    queue, gate, started, stop = stage.queue(), Gate(), asyncio.Event(), asyncio.Event()
    rmq = stage.app(drain_timeout=1000)

    @rmq.handler(queue)
    async def wait(payload: int) -> None:
        await gate()

    async def live() -> None:
        async with rmq_lifespan(rmq)(FastAPI()):
            started.set()
            await stop.wait()

    living = asyncio.create_task(live())
    await started.wait()
    await stage.ask(queue, 1)
    await gate.has(1)
    stop.set()
    await draining(rmq)
    living.cancel()
    with pytest.raises(asyncio.CancelledError):
        await living

    assert gate.cancelled == 1
    await stage.has(queue, 1)


async def draining(rmq: RabbitMQ) -> None:
    """Wait until the drain has begun."""
    await eventually(lambda: rmq.problems == ("not consuming",))


async def test_sigint_during_the_drain_cuts_it_short_and_reaches_the_server(stage: Stage) -> None:
    queue, gate, own, seen = stage.queue(), Gate(), Own(), list[int]()
    rmq = stage.app(drain_timeout=1000)

    @rmq.handler(queue)
    async def wait(payload: int) -> None:
        await gate()

    def servers(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    async def interrupt() -> None:
        await draining(rmq)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, servers)
    try:
        async with serving(FastAPI(lifespan=rmq_lifespan(rmq, own))):
            await stage.ask(queue, 1)
            await gate.has(1)
            interrupting = asyncio.create_task(interrupt())
        await interrupting
        assert signal.getsignal(signal.SIGINT) is servers
    finally:
        signal.signal(signal.SIGINT, before)

    assert seen == [signal.SIGINT]
    assert gate.cancelled == 1
    assert own.left
    assert own.error is None
    await stage.has(queue, 1)


async def test_start_and_stop_twenty_times_leaves_nothing_behind(stage: Stage) -> None:
    queue, sync_queue = stage.queue("async"), stage.queue("sync")
    rmq = stage.app()
    rmq.handler(queue)(double)
    rmq.handler(sync_queue)(double_in_thread)
    app = FastAPI(lifespan=rmq_lifespan(rmq))

    @app.get("/async/{number}")
    async def ask(number: int, producer: Producer) -> int:
        data: int = (await producer.send_message(queue, number))["data"]
        return data

    @app.get("/sync/{number}")
    def ask_blocking(number: int, producer: SyncProducer) -> int:
        data: int = producer.send_message(sync_queue, number)["data"]
        return data

    def cycle(number: int) -> None:
        with TestClient(app) as client:
            for way in ("async", "sync"):
                assert client.get(f"/{way}/{number}").json() == number * 2

    with ThreadPoolExecutor(1) as thread:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(thread, cycle, 0)
        before = Footprint()
        for number in range(CYCLES):
            await loop.run_in_executor(thread, cycle, number)
        await before.is_restored()


# --- a start that fails ---------------------------------------------------------------------------------


async def failing(rmq: RabbitMQ, own: Own, caplog: pytest.LogCaptureFixture) -> AutosellRmqError:
    """Start, see that it failed as it has to, and return the error."""
    caplog.set_level(logging.INFO, logger="autosell_rmq_fastapi")
    with pytest.raises(AutosellRmqError) as raised:
        async with serving(FastAPI(lifespan=rmq_lifespan(rmq, own))):
            pass
    error = raised.value
    assert own.error is error
    assert (error.__cause__, error.__suppress_context__) == (None, True)
    [record] = [r for r in caplog.records if r.name == "autosell_rmq_fastapi"]
    assert record.levelname == "ERROR"
    assert record.getMessage() == f"RabbitMQ was not started: {type(error).__name__}: {error}"
    assert "\n" not in record.getMessage()
    assert record.exc_info is None
    return error


async def test_no_broker_ends_the_start_within_the_startup_timeout(caplog: pytest.LogCaptureFixture) -> None:
    rmq = RabbitMQ("amqp://guest:secret@127.0.0.1:1/", startup_timeout=0.2)
    before = Footprint()

    error = await failing(rmq, Own(), caplog)

    assert isinstance(error, BrokerUnavailable)
    assert "127.0.0.1:1" in str(error)
    assert "secret" not in caplog.text
    await before.is_restored()


@pytest.mark.rabbitmq
async def test_a_wrong_password_ends_the_start(rabbit: Stage, caplog: pytest.LogCaptureFixture) -> None:
    rmq = RabbitMQ(rabbit.url.replace("guest:guest", "guest:wrong"))
    assert isinstance(await failing(rmq, Own(), caplog), AccessRefused)


async def test_a_queue_with_other_arguments_ends_the_start(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = stage.queue("good"), await stage.declared({"x-max-length": 7})
    rmq = stage.app()
    for name in (good, bad):
        rmq.handler(name)(double)
    before = Footprint()

    error = await failing(rmq, Own(), caplog)

    assert isinstance(error, TopologyMismatch)
    assert bad in str(error)
    await before.is_restored()
    await stage.ask(good, 1)
    await stage.has(good, 1)  # nobody consumes it

    for name in (bad, f"{bad}_dlq"):
        await stage.delete_queue(name)  # mended, it starts
    async with serving(FastAPI(lifespan=rmq_lifespan(rmq))):
        assert (await rmq.producer.send_message(bad, 2))["data"] == 4


async def test_the_second_object_fails_and_the_first_is_closed(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    queue, own = stage.queue(), Own()
    orders = stage.app()
    orders.handler(queue)(double)
    billing = RabbitMQ("amqp://127.0.0.1:1/", startup_timeout=0.2)
    app = FastAPI(lifespan=rmq_lifespan(billing, rmq_lifespan(orders, own)))

    with pytest.raises(BrokerUnavailable):
        async with serving(app):
            pass

    assert isinstance(own.error, BrokerUnavailable)
    await stage.ask(queue, 1)
    await stage.has(queue, 1)
    assert [r.levelname for r in caplog.records if r.name == "autosell_rmq_fastapi"] == ["ERROR"]
    async with serving(FastAPI(lifespan=rmq_lifespan(orders))):
        pass


async def test_a_lifespan_that_is_cancelled_while_it_starts_closes_everything(stage: Stage) -> None:
    queue, faults, own = stage.queue(), Faults(), Own()
    held = faults.hold("consume")
    rmq = await stage.faulty_app(faults)
    rmq.handler(queue)(double)

    async def start() -> None:
        async with rmq_lifespan(rmq, own)(FastAPI()):
            pass

    starting = asyncio.create_task(start())
    await held.reached.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    held.released.set()

    assert isinstance(own.error, asyncio.CancelledError)
    async with serving(FastAPI(lifespan=rmq_lifespan(rmq))):
        assert (await rmq.producer.send_message(queue, 2))["data"] == 4
