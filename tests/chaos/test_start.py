"""What cannot work: at the start it ends the process in one line, later it is a problem that is told once."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest

from tests.acceptance.processes import Running
from tests.chaos.nodes import Node
from tests.chaos.processes import healthy, problem
from tests.chaos.report import Row
from tests.chaos.worlds import ExactlyOnce, Leased
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]

SECRET = "hush-4711"


# I4. Mutant: a mismatch taken for an outage, and waited for.
@pytest.mark.chaos
@pytest.mark.row("12", "at the start the queue exists with other arguments")
async def test_other_arguments_at_the_start(exactly_once: ExactlyOnce, leased: Leased, row: Row) -> None:
    exactly_once.prefix = leased.prefix
    async with leased.worker(queue_type="classic"):
        pass
    async with exactly_once.process(url=None, settings={}, options={}, stubborn=False) as worker:
        code = await worker.exit_code()

    row.seen.append(f"exit code {code}")
    assert code == 1
    assert "x-queue-type" in _last_words(worker)


# I4: a problem from the first attempt on; one line in the log, few attempts; over when it is mended. Mutants:
# attempts without a pause; a mismatch that ends the supervision.
@pytest.mark.row("12", "the queue comes back with other arguments during an outage")
async def test_other_arguments_later(leased: Leased, node: Node, proxy: TcpProxy, row: Row) -> None:
    async with leased.worker(url=proxy.url(node.url)) as worker:
        proxy.refuse()
        await problem(worker, since=0, within=10)
        for queue in (leased.queue, f"{leased.queue}_dlq"):
            await node.ctl("delete_queue", queue)
        async with leased.worker(queue_type="classic"):
            pass
        connections, healed = proxy.accepted, time.monotonic()
        proxy.heal()
        noticed = await problem(worker, since=healed, within=15, text="x-queue-type")
        attempts = proxy.accepted - connections
        for queue in (leased.queue, f"{leased.queue}_dlq"):
            await node.ctl("delete_queue", queue)
        await healthy(worker, within=15)
        told = sum("x-queue-type" in line for line in worker.errors)

    row.seen.append(
        f"a problem after {noticed.at - healed:.1f} s, {attempts} connections, logged {told} times"
    )
    assert attempts <= 4
    assert told == 1


# I4. Mutants: no limit for the start; a start that waits for nobody.
@pytest.mark.row("17", "the broker is down at the start, for good")
async def test_no_broker_at_the_start(
    exactly_once: ExactlyOnce, node: Node, proxy: TcpProxy, row: Row
) -> None:
    proxy.refuse()
    settings = {"startup_timeout": 3.0}
    url = proxy.url(node.url)
    async with exactly_once.process(url=url, settings=settings, options={}, stubborn=False) as worker:
        code = await worker.exit_code()

    row.seen.append(f"exit code {code}")
    assert code == 1
    assert str(proxy.port) in _last_words(worker)


@pytest.mark.row("17", "the broker is down at the start, and comes up")
async def test_a_late_broker(leased: Leased, node: Node, proxy: TcpProxy, row: Row) -> None:
    proxy.refuse()
    settings = {"startup_timeout": 60.0, "max_backoff": 2.0}
    url = proxy.url(node.url)
    async with leased.process(url=url, settings=settings, options={}, stubborn=False) as worker:
        await worker.until("WARNING", times=1)
        healed = time.monotonic()
        proxy.heal()
        await worker.until("ready")
        took = time.monotonic() - healed

    row.seen.append(f"ready {took:.1f} s after the broker")


# I4, I6. Mutants: a refusal taken for an outage; the URL in the error.
@pytest.mark.chaos
@pytest.mark.parametrize("what", ["password", "vhost", "permission"])
@pytest.mark.row("18", "a wrong password, a wrong vhost, no permission")
async def test_refused_for_good(exactly_once: ExactlyOnce, node: Node, row: Row, what: str) -> None:
    row.injected = {"password": "a wrong password", "vhost": "a wrong vhost"}.get(what, "no permission")
    if what == "permission":
        await node.ctl("add_user", "nobody", SECRET)
    host = urlsplit(node.url).netloc.rpartition("@")[2]
    login = {"password": f"guest:{SECRET}", "vhost": "guest:guest", "permission": f"nobody:{SECRET}"}[what]
    url = f"amqp://{login}@{host}/{'nowhere' if what == 'vhost' else ''}"
    try:
        begun = time.monotonic()
        async with exactly_once.process(url=url, settings={}, options={}, stubborn=False) as worker:
            code = await worker.exit_code()
        took = time.monotonic() - begun
    finally:
        if what == "permission":
            await node.ctl("delete_user", "nobody")

    row.seen.append(f"exit code {code} after {took:.1f} s")
    assert code == 1
    assert SECRET not in worker.transcript
    assert "Traceback" not in worker.transcript
    assert len(_last_words(worker)) > 0


def _last_words(worker: Running) -> str:
    return "\n".join(worker.errors[-3:])
