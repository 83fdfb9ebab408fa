"""Nodes, worlds and the table of the chaos tests.

A test with the marker ``row(number, injected)`` is a row of the table. Those with the marker ``chaos`` take
long, and run by ``make chaos`` alone; the others run in ``make test`` too.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.chaos import report
from tests.chaos.nodes import Node, private_node
from tests.chaos.postgres import ChaosDatabase, chaos_database
from tests.chaos.report import Row
from tests.chaos.worlds import REDIS_URL, ExactlyOnce, Leased
from tests.support import services
from tests.support.private_cluster import PrivateCluster, private_cluster
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

ROWS = pytest.StashKey[list[Row]]()
ROW = pytest.StashKey[Row]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.addinivalue_line("markers", "row(number, injected): a row of the fault matrix")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    outcome = yield
    if (line := item.stash.get(ROW, None)) is not None and outcome.when == "call":
        line.passed = outcome.passed
        item.config.stash[ROWS].append(line)
    return outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash[ROWS]
    if rows:
        terminalreporter.section("what was broken, and what came of it")
        for line in report.plain(rows):
            terminalreporter.write_line(line)
        if folder := os.environ.get("CHAOS_REPORT"):
            report.write(rows, Path(folder))


@pytest.fixture(autouse=True)
def row(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Row | None:
    """The line of the test in the table; the library's variables are not set."""
    for name in ("RABBITMQ_URL", "QUEUE_NAME", "DLQ_NAME", "MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    marker = request.node.get_closest_marker("row")
    if marker is None:
        return None
    request.node.stash[ROW] = line = Row(*marker.args)
    return line


@pytest.fixture(scope="session")
def session_node() -> Iterator[Node]:
    with private_node() as node:
        yield node


@pytest.fixture
def node(session_node: Node) -> Node:
    """A node of RabbitMQ that is up, whatever the last test did to it."""
    session_node.restored()
    return session_node


@pytest.fixture(scope="session")
def cluster() -> Iterator[PrivateCluster]:
    with private_cluster() as cluster:
        yield cluster


@pytest.fixture
def proxy(node: Node) -> Iterator[TcpProxy]:
    """Between a client and the node."""
    with tcp_proxy("127.0.0.1", node.port) as between:
        yield between


@pytest.fixture(scope="session")
def database() -> Iterator[ChaosDatabase]:
    services.require("postgres")
    with chaos_database() as database:
        yield database


@pytest.fixture
def exactly_once(node: Node, database: ChaosDatabase, row: Row | None) -> ExactlyOnce:
    world = ExactlyOnce(node.url, database=database)
    if row is not None:
        row.mode = world.mode
    return world


@pytest.fixture
async def leased(node: Node, row: Row | None) -> AsyncIterator[Leased]:
    services.require("redis")
    redis = Redis.from_url(REDIS_URL, decode_responses=True)
    world = Leased(node.url, redis=redis)
    if row is not None:
        row.mode = world.mode
    yield world
    await world.clean()
    await redis.aclose()
