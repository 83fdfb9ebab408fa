"""A sync handler that hangs does not keep its process beyond the drain deadline; its message comes back."""

import signal
from pathlib import Path

import pytest

from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import running_script

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq, pytest.mark.timeout(60)]

SCRIPT = """
import asyncio, os, threading
from autosell_rmq import RabbitMQ

rmq = RabbitMQ(drain_timeout=0.5)

@rmq.handler(os.environ["QUEUE"])
def hang(payload: int) -> None:
    print("hangs", flush=True)
    threading.Event().wait()

async def main() -> None:
    async with rmq:
        await rmq.run()
    print("left", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_ends_and_the_message_is_back(
    rabbit: RabbitPlace, tmp_path: Path, number: signal.Signals
) -> None:
    queue = rabbit.queue()
    env = {"RABBITMQ_URL": rabbit.url, "QUEUE": queue}
    async with running_script(tmp_path / "worker.py", SCRIPT, env=env) as run:
        await rabbit.is_consumed(queue)
        await rabbit.put(queue, b"1")
        await run.until("hangs")
        run.signal(number)
        assert await run.exit_code() == 0, run.transcript
        assert run.lines == ["hangs", "left"]
        assert "Traceback" not in run.error_output, run.transcript
    await rabbit.has(queue, 1)
    assert (await rabbit.take(queue)).redelivered
    await rabbit.has(f"{queue}_dlq", 0)
