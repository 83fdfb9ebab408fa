"""The shared producer in processes: behind gunicorn --preload, after forks, at the end of a script."""

import asyncio
import json
import re
import signal
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.acceptance.places import rabbit_place
from tests.acceptance.processes import Running, running
from tests.django.outbox_fixtures import run
from tests.support.inbox import Inbox
from tests.support.services import RABBITMQ_URL
from tests.support.waiting import eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = 60

SETUP = """
import os, sys
sys.path.insert(0, {root!r})
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.django.settings"
import django
django.setup()
from autosell_rmq_django import producer
"""


def script(code: str) -> str:
    return SETUP.format(root=str(ROOT)) + code


def setting(url: str) -> dict[str, str | None]:
    return {"RMQ_TEST_SETTINGS": json.dumps({"URL": url})}


async def port_of(gunicorn: Running) -> int:
    await gunicorn.until("Listening at")
    found = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", gunicorn.error_output)
    assert found is not None, gunicorn.transcript
    return int(found[1])


def get(url: str) -> int:
    with urlopen(url, timeout=30) as answer:
        pid: int = json.load(answer)
        return pid


@pytest.mark.rabbitmq
@pytest.mark.parametrize("threads", [1, 4])
def test_gunicorn_may_preload_an_application_that_has_sent_already(threads: int) -> None:
    async def main() -> None:
        async with rabbit_place() as place:
            queue = await place.declared("gunicorn")
            inbox = await Inbox.of(place.broker, queue, prefetch=2000)
            command: list[str | Path] = [
                Path(sys.executable).with_name("gunicorn"),
                "--preload",
                "--workers",
                "2",
            ]
            command += ["--threads", str(threads), "--bind", "127.0.0.1:0", "--graceful-timeout", "20"]
            environment = {**setting(place.url), "RMQ_TEST_QUEUE": queue}
            async with running(
                *command, "tests.django.wsgi_producer:application", cwd=ROOT, env=environment
            ) as gunicorn:
                url = f"http://127.0.0.1:{await port_of(gunicorn)}"
                pids: set[int] = set()
                sent = 0

                async def both_workers_have_served() -> bool:
                    nonlocal sent
                    numbers = range(sent, sent + 10)
                    sent += 10
                    pids.update(
                        await asyncio.gather(*(asyncio.to_thread(get, f"{url}/{n}") for n in numbers))
                    )
                    return len(pids) == 2 and sent >= REQUESTS

                await eventually(both_workers_have_served, within=60)
                gunicorn.signal(signal.SIGTERM)
                async with asyncio.timeout(
                    15
                ):  # under gunicorn's own patience: the workers leave by themselves
                    assert await gunicorn.exit_code() == 0, gunicorn.transcript

            came = [json.loads((await inbox.next()).message.body) for _ in range(sent + 1)]
            assert inbox.deliveries.empty()
            by_source = {message["source"]: message["pid"] for message in came}
            assert set(by_source) == {"preload", *(f"/{n}" for n in range(sent))}
            assert by_source["preload"] not in pids
            assert {pid for source, pid in by_source.items() if source != "preload"} == pids

    run(main())


FORK = """
def send(text):
    producer.send_fire_and_forget(sys.argv[1], text)

send("parent, before")
children = []
for n in range(3):
    pid = os.fork()
    if pid == 0:
        if n:
            send(f"child {n}")
        sys.exit(n)
    send(f"parent, after {n}")
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
send("parent, at the end")
print("children ended with", codes)
"""


@pytest.mark.rabbitmq
def test_after_a_fork_parent_and_children_have_connections_of_their_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with rabbit_place() as place:
            queue = await place.declared("fork")
            inbox = await Inbox.of(place.broker, queue, prefetch=100)
            program = tmp_path / "fork.py"
            program.write_text(script(FORK))
            async with running(
                sys.executable, "-W", "ignore", program, queue, cwd=ROOT, env=setting(place.url)
            ) as process:
                assert await process.exit_code() == 0, process.transcript
                assert "children ended with [0, 1, 2]" in process.output

            came = [json.loads((await inbox.next()).message.body) for _ in range(7)]
            assert sorted(came) == [
                "child 1",
                "child 2",
                "parent, after 0",
                "parent, after 1",
                "parent, after 2",
                "parent, at the end",
                "parent, before",
            ]
            assert inbox.deliveries.empty()

    run(main())


@pytest.mark.rabbitmq
def test_a_script_that_closes_nothing_ends_and_says_goodbye(tmp_path: Path) -> None:
    async def main() -> None:
        program = tmp_path / "script.py"
        program.write_text(
            script(
                "import logging; logging.getLogger('autosell_rmq').setLevel('INFO')\n"
                "try: producer.send_fire_and_forget('no-such-queue', 1)\n"
                "except Exception as error: print(type(error).__name__)\n"
            )
        )
        async with running(sys.executable, program, cwd=ROOT, env=setting(RABBITMQ_URL)) as process:
            assert await process.exit_code() == 0, process.transcript
            assert process.lines == ["PublishUnroutable"]
            assert "disconnected from RabbitMQ" in process.error_output

    run(main())


def test_a_script_ends_though_the_broker_does_not_answer(tmp_path: Path) -> None:
    async def main() -> None:
        program = tmp_path / "script.py"
        program.write_text(
            script(
                "try: producer.send_fire_and_forget('orders', 1)\n"
                "except Exception as error: print(type(error).__name__)\n"
            )
        )
        environment = {
            "RMQ_TEST_SETTINGS": json.dumps(
                {"URL": "amqp://guest:guest@127.0.0.1:9/", "STARTUP_TIMEOUT": 0.5}
            )
        }
        async with running(sys.executable, program, cwd=ROOT, env=environment) as process:
            assert await process.exit_code() == 0, process.transcript
            assert process.lines == ["BrokerUnavailable"]

    run(main())
