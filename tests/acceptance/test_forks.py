"""Forks of a connected process: the child connects anew, the parent goes on as if nothing had been."""

import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.acceptance.places import RabbitPlace
from tests.acceptance.processes import Running, running_script
from tests.contract.store_fixtures import REDIS_URL, redis_prefix

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.rabbitmq,
    pytest.mark.timeout(60),
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
]

SERVER = """
import asyncio, os
from autosell_rmq import RabbitMQ

rmq = RabbitMQ()

@rmq.handler(os.environ["QUEUE"])
async def double(payload: int) -> int:
    return payload * 2
"""

SERVE = SERVER + "\nasyncio.run(rmq.run())\n"

HEAD = """
import asyncio, gc, logging, multiprocessing, os, signal, sys, warnings
from autosell_rmq import AutosellRmqError, RabbitMQ, RabbitMQProducer

warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
queue = os.environ["QUEUE"]
connections = []

class Connections(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("connected to"):
            connections.append(record.getMessage())

logging.getLogger("autosell_rmq").addHandler(Connections())
logging.getLogger("autosell_rmq").setLevel(logging.INFO)
producer = RabbitMQProducer(heartbeat=1)
app = RabbitMQ(heartbeat=1)

async def ask(n, by=None):
    return (await (by or producer).send_message(queue, n, timeout=10))["data"]
"""

# Between runs of its loop; then the child's own loop is the only one that runs there.
BETWEEN = """
loop = asyncio.Runner()
async def connect():
    await app.connect()
    print("parent before", await ask(1), await ask(1, app.producer), flush=True)
loop.run(connect())
child = os.fork()
if child == 0:
    connections.clear()
    in_child()
    os._exit(0)
_, status = os.waitpid(child, 0)
print("child ended", os.waitstatus_to_exitcode(status), flush=True)

async def go_on():
    for n in range(2, 5):
        print("parent after", await ask(n), await ask(n, app.producer), flush=True)
    await asyncio.sleep(3.5)  # more than three heartbeats of a connection that nobody hears any more
    print("parent later", await ask(5), await ask(5, app.producer), len(connections), flush=True)
    await app.close()
    await producer.close()
loop.run(go_on())
loop.close()
"""

CHILDREN = {
    "sends": """
def in_child():
    async def main():
        print("child", await ask(10), len(connections), flush=True)
        await producer.close()
    asyncio.run(main())
""",
    "opens the app": """
def in_child():
    async def main():
        async with app:
            print("child", await ask(10, app.producer), len(connections), flush=True)
    asyncio.run(main())
""",
    "closes what it has inherited": """
def in_child():
    async def main():
        await producer.close()
        await app.close()
    asyncio.run(main())
    print("child", 20, 1, flush=True)
""",
    "forgets what it has inherited": """
def in_child():
    global producer, app
    producer = app = None
    gc.collect()
    print("child", 20, 1, flush=True)
    sys.exit(0)
""",
    "runs the inherited loop on": """
def in_child():
    async def main():
        await asyncio.sleep(2)  # heartbeats are due
        print("child", 20, 1, flush=True)
    loop.run(main())
""",
    "closes the inherited loop": """
def in_child():
    loop.close()
    print("child", 20, 1, flush=True)
""",
    "has a child of its own": """
def in_child():
    grandchild = os.fork()
    if grandchild == 0:
        send()
        os._exit(0)
    _, status = os.waitpid(grandchild, 0)
    assert status == 0

def send():
    async def main():
        print("child", await ask(10), len(connections), flush=True)
    asyncio.run(main())
""",
}


def script(name: str, body: str, queue: str, url: str, folder: Path) -> AbstractAsyncContextManager[Running]:
    return running_script(folder / f"{name}.py", body, env={"RABBITMQ_URL": url, "QUEUE": queue})


async def ends_well(run: Running) -> list[str]:
    assert await run.exit_code() == 0, run.transcript
    return run.lines


@pytest.mark.parametrize("child", CHILDREN)
async def test_after_a_fork_both_sides_go_on(rabbit: RabbitPlace, tmp_path: Path, child: str) -> None:
    queue = rabbit.queue()
    async with script("server", SERVE, queue, rabbit.url, tmp_path):
        await rabbit.is_consumed(queue)
        async with script("forks", HEAD + CHILDREN[child] + BETWEEN, queue, rabbit.url, tmp_path) as run:
            lines = await ends_well(run)
            if child != "closes the inherited loop":  # which ends the client's tasks over there
                assert "Traceback" not in run.error_output, run.transcript
    assert lines == [
        "parent before 2 2",
        "child 20 1",
        "child ended 0",
        "parent after 4 4",
        "parent after 6 6",
        "parent after 8 8",
        "parent later 10 10 2",
    ]


MULTIPROCESSING = """
def work(n):
    async def main():
        return await ask(n)
    print("child", asyncio.run(main()), flush=True)

async def main():
    print("parent before", await ask(1), flush=True)
    child = multiprocessing.get_context("fork").Process(target=work, args=(10,))
    child.start()
    await asyncio.to_thread(child.join)
    print("parent after", await ask(2), len(connections), child.exitcode, flush=True)
    await producer.close()
asyncio.run(main())
"""


async def test_a_worker_of_multiprocessing_forked_off_a_running_loop(
    rabbit: RabbitPlace, tmp_path: Path
) -> None:
    queue = rabbit.queue()
    async with script("server", SERVE, queue, rabbit.url, tmp_path):
        await rabbit.is_consumed(queue)
        async with script("forks", HEAD + MULTIPROCESSING, queue, rabbit.url, tmp_path) as run:
            assert await ends_well(run) == ["parent before 2", "child 20", "parent after 4 1 0"]


FORKING_SERVICE = """
import asyncio, os, signal, warnings
from autosell_rmq import RabbitMQ

warnings.simplefilter("ignore", DeprecationWarning)
rmq = RabbitMQ(heartbeat=600)

@rmq.handler(os.environ["QUEUE"])
async def stuck(payload: int) -> int:
    if os.fork() == 0:
        os.read(0, 1)  # lives on until the test lets it go
        os._exit(0)
    print("forked", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(rmq.run())
"""


async def test_a_connection_ends_with_its_process_and_not_with_the_children_of_it(
    rabbit: RabbitPlace, tmp_path: Path
) -> None:
    """Or RabbitMQ would keep the message until it misses heartbeats, here for twenty minutes."""
    queue = rabbit.queue()
    async with script("dies", FORKING_SERVICE, queue, rabbit.url, tmp_path) as dies:
        await rabbit.is_consumed(queue)
        await rabbit.put(queue, b"1")
        await dies.until("forked")
        await rabbit.has(queue, 1)
        assert dies.process.stdin is not None
        dies.process.stdin.close()


REDIS = """
import asyncio, os
from autosell_rmq import RedisStore

store = RedisStore(os.environ["REDIS_URL"], prefix=os.environ["PREFIX"])

async def look():
    await store.open()
    return await store.lookup("nothing")

loop = asyncio.Runner()
loop.run(look())
child = os.fork()
if child == 0:
    print("child", asyncio.run(look()), flush=True)
    os._exit(0)
print("child ended", os.waitpid(child, 0)[1], flush=True)

async def look_again():
    found = await store.lookup("nothing")
    await store.close()
    return found
print("parent", loop.run(look_again()), flush=True)
"""


@pytest.mark.redis
async def test_a_store_in_redis_is_opened_anew_by_the_child(tmp_path: Path) -> None:
    with redis_prefix() as prefix:
        env = {"REDIS_URL": REDIS_URL, "PREFIX": prefix}
        async with running_script(tmp_path / "stores.py", REDIS, env=env) as run:
            assert await ends_well(run) == ["child None", "child ended 0", "parent None"]
            assert "Traceback" not in run.error_output, run.transcript
