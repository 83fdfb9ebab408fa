"""The sync producer and the life of a process: forks, and an exit without a close."""

import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import Running, running_script

pytestmark = [pytest.mark.acceptance, pytest.mark.rabbitmq]

SERVER = """
import asyncio, os, sys
from autosell_rmq import RabbitMQ

rmq = RabbitMQ()

@rmq.handler(sys.argv[1] if len(sys.argv) > 1 else os.environ["QUEUE"])
async def double(payload: int) -> int:
    return payload * 2
"""

HEAD = """
import gc, os, sys, warnings
from autosell_rmq import SyncRabbitMQProducer

warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tried here
queue = os.environ["QUEUE"]
producer = SyncRabbitMQProducer()

def ask(n):
    return producer.send_message(queue, n, timeout=10)["data"]
"""

TAIL = """
print("parent before", ask(1), flush=True)
child = os.fork()
if child == 0:
    in_child()
_, status = os.waitpid(child, 0)
print("child ended", os.waitstatus_to_exitcode(status), flush=True)
for n in range(2, 5):
    print("parent after", ask(n), flush=True)
"""

CHILDREN = {
    "sends": """
def in_child():
    print("child", ask(10), ask(11), flush=True)
    sys.exit(0)
""",
    "sends and closes": """
def in_child():
    with producer:
        print("child", ask(10), ask(11), flush=True)
    sys.exit(0)
""",
    "only closes": """
def in_child():
    producer.close()
    gc.collect()
    print("child", 20, 22, flush=True)
    sys.exit(0)
""",
    "forgets it": """
def in_child():
    global producer
    producer = None
    gc.collect()
    print("child", 20, 22, flush=True)
    sys.exit(0)
""",
    "leaves at once": """
def in_child():
    print("child", ask(10), ask(11), flush=True)
    os._exit(0)
""",
    "has a child of its own": """
def in_child():
    grandchild = os.fork()
    if grandchild == 0:
        print("child", ask(10), ask(11), flush=True)
        sys.exit(0)
    _, status = os.waitpid(grandchild, 0)
    assert ask(12) == 24
    sys.exit(os.waitstatus_to_exitcode(status))
""",
}


def script(name: str, body: str, queue: str, url: str, folder: Path) -> AbstractAsyncContextManager[Running]:
    return running_script(folder / f"{name}.py", body, env={"RABBITMQ_URL": url, "QUEUE": queue})


SERVE = SERVER + "\nasyncio.run(rmq.run())\n"


async def ends_well(run: Running) -> list[str]:
    assert await run.exit_code() == 0, run.transcript
    assert "Traceback" not in run.error_output, run.transcript
    assert "Exception ignored" not in run.error_output, run.transcript
    return run.lines


@pytest.mark.timeout(60)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("child", CHILDREN)
async def test_after_a_fork_both_sides_go_on(rabbit: RabbitPlace, tmp_path: Path, child: str) -> None:
    queue = rabbit.queue()
    async with script("server", SERVE, queue, rabbit.url, tmp_path):
        await rabbit.is_consumed(queue)
        body = HEAD + CHILDREN[child] + TAIL
        async with script("forks", body, queue, rabbit.url, tmp_path) as run:
            lines = await ends_well(run)
    assert lines == [
        "parent before 2",
        "child 20 22",
        "child ended 0",
        "parent after 4",
        "parent after 6",
        "parent after 8",
    ]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "end",
    ["", "sys.exit(0)", "del producer", "other = SyncRabbitMQProducer(); other.connect(); producer.close()"],
    ids=["falls off", "exits", "forgets", "two of them"],
)
async def test_an_exit_without_a_close_is_clean_and_prompt(
    rabbit: RabbitPlace, tmp_path: Path, end: str
) -> None:
    queue = await rabbit.declared()
    body = f"{HEAD}\nproducer.send_fire_and_forget(queue, 1)\nprint('sent', flush=True)\n{end}\n"
    async with script("exits", body, queue, rabbit.url, tmp_path) as run:
        assert await ends_well(run) == ["sent"]
    await rabbit.has(queue, 1)
