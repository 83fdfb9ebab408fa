"""The seed's graceful shutdown: the first signal drains, the second leaves at once; nothing is lost."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from autosell_rmq import RabbitMQProducer
from tests.acceptance.markdown import rewritten, seed_snippet
from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import Running, running_script

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq, pytest.mark.timeout(90)]

# The seed's own script; its handler waits for a line on standard input.
CONSUMER = seed_snippet("async def message_handler")
BUSINESS = "    # Ваша бизнес-логика здесь\n"
WAITING = """\
    import sys
    print("started", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print("finished", flush=True)
"""
LOGGING = "import logging\nlogging.basicConfig(level='INFO')\n"
SIGNALS = [signal.SIGINT, signal.SIGTERM]


@asynccontextmanager
async def consumer(rabbit: RabbitPlace, folder: Path, queue: str) -> AsyncGenerator[Running]:
    code = rewritten(
        CONSUMER,
        {
            '"amqp://guest:guest@localhost/"': repr(rabbit.url),
            '"my_queue"': repr(queue),
            '"my_queue_dlq"': f"'{queue}_dlq', prefetch=1",
            BUSINESS: WAITING,
        },
    )
    async with running_script(folder / "consumer.py", LOGGING + code) as run:
        await rabbit.is_consumed(queue)
        yield run


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
async def test_first_signal_lets_the_running_handler_finish(
    number: signal.Signals, rabbit: RabbitPlace, tmp_path: Path
) -> None:
    queue = rabbit.queue("drain")
    async with consumer(rabbit, tmp_path, queue) as run, RabbitMQProducer(rabbit.url) as producer:
        reply = asyncio.create_task(producer.send_message(queue, {"n": 1}))
        await run.until("started")
        for n in (2, 3):
            await producer.send_fire_and_forget(queue, {"n": n})
        run.signal(number)
        await run.until(f"{number.name}: stopping gracefully")
        await run.say()
        assert await run.exit_code() == 0, run.transcript
        assert (await reply)["data"] == {"processed": True, "data": {"n": 1}}

    assert run.lines == ["Получено: {'n': 1}", "started", "finished"]
    await rabbit.has(queue, 2)  # what was not started is still there


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
async def test_second_signal_leaves_at_once(
    number: signal.Signals, code: int, rabbit: RabbitPlace, tmp_path: Path
) -> None:
    queue = rabbit.queue("leave")
    async with consumer(rabbit, tmp_path, queue) as run, RabbitMQProducer(rabbit.url) as producer:
        await producer.send_fire_and_forget(queue, {"n": 1})
        await run.until("started")
        run.signal(number)
        await run.until(f"{number.name}: stopping gracefully")
        run.signal(number)
        assert await run.exit_code() == code, run.transcript

    assert "finished" not in run.lines
    await rabbit.has(queue, 1)  # it was not acked: another consumer gets it


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
async def test_signal_while_idle_ends_the_process(
    number: signal.Signals, rabbit: RabbitPlace, tmp_path: Path
) -> None:
    async with consumer(rabbit, tmp_path, rabbit.queue("idle")) as run:
        run.signal(number)
        assert await run.exit_code() == 0, run.transcript
    assert "Traceback" not in run.error_output
