"""A PostgreSQL that crashes under load: not one message is lost or dead-lettered, no attempt is counted."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.processes import Running
from tests.django import settings
from tests.django.command_fixtures import Shop, shop
from tests.django.private_postgres import PrivatePostgres, private_postgres
from tests.support.waiting import eventually

__all__ = ["shop"]

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.postgres,
    pytest.mark.rabbitmq,
    pytest.mark.timeout(180),
    pytest.mark.skipif(settings.KIND != "postgres", reason="needs PostgreSQL: RMQ_TEST_DB=postgres"),
    pytest.mark.django_db(transaction=True),
]

HANDLERS = ("sync", "lease", "async")
EACH = 150  # messages of each handler
DATABASE = f"test_rmq_default_{os.environ['RMQ_TEST_RUN']}"


@pytest.fixture
def postgres(shop: Shop) -> Iterator[PrivatePostgres]:
    with private_postgres() as server:
        server.create_database(DATABASE)
        shop.environment["POSTGRES_URL"] = server.url
        yield server


def rows(postgres: PrivatePostgres) -> list[tuple[str, str]]:
    """Key and attempt of each effect; none while the server is down."""
    try:
        return [(key, note) for key, note in postgres.sql("SELECT key, note FROM shop_effect", DATABASE)]
    except psycopg.OperationalError:
        return []


def keys() -> set[str]:
    return {f"{name}-{number:03}" for name in HANDLERS for number in range(EACH)}


async def send(shop: Shop, part: slice) -> None:
    for number in range(EACH)[part]:
        for name in HANDLERS:
            await shop.send(name, key=f"{name}-{number:03}")


async def migrated(shop: Shop) -> None:
    async with shop.manage("migrate", "-v0") as process:
        assert await process.exit_code() == 0, process.transcript


@pytest.mark.parametrize("age", ["0", "60", "pool"])
async def test_a_crash_under_load(shop: Shop, postgres: PrivatePostgres, tmp_path: Path, age: str) -> None:
    file = tmp_path / "health"
    shop.environment["RMQ_TEST_CONNECTIONS"] = age
    await migrated(shop)
    lease = {"IDEMPOTENCY": {"LEASE": 3}}
    async with shop.consuming("--processes", "2", "--health-file", file, setting=lease) as process:
        await process.until("is ready", times=2)
        sending = asyncio.create_task(send(shop, slice(0, EACH // 2)))
        await eventually(lambda: len(rows(postgres)) > 60, within=30)
        postgres.stop()
        await sending
        await process.until("the idempotency store does not answer", times=4)
        if age != "pool":  # there each claim waits for the pool, in its thread
            await paused(file)
        await send(shop, slice(EACH // 2, EACH))
        postgres.start()

        def everything() -> bool:
            return {key for key, _ in rows(postgres)} == keys()

        await eventually(everything, within=90)
        await settled(shop)
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0, process.transcript

    await check(shop, postgres, process)


async def paused(file: Path) -> None:
    """Consuming stands still, and says so: the health file grows old."""
    stamps: list[int] = []

    def stands_still() -> bool:
        stamps.append(file.stat().st_mtime_ns if file.exists() else 0)
        return len(stamps) > 150 and len(set(stamps[-150:])) == 1  # for 1.5 seconds, more than a beat

    await eventually(stands_still, within=40)


async def settled(shop: Shop) -> None:
    """Nothing is left in the queues."""

    async def empty() -> bool:
        return not any([await shop.place.depth(shop.queue(name)) for name in HANDLERS])

    await eventually(empty, within=30)


async def check(shop: Shop, postgres: PrivatePostgres, process: Running) -> None:
    """One effect of each message, on its first attempt; only under a lease it may be one more."""
    found = rows(postgres)
    assert {attempt for _, attempt in found} == {"1"}, process.transcript
    once = [key for key, _ in found if key.startswith("sync")]
    assert len(once) == len(set(once)) == EACH
    for name in HANDLERS:
        assert await shop.place.depth(f"{shop.queue(name)}_dlq") == 0


async def test_sessions_that_are_ended_while_they_idle(shop: Shop, postgres: PrivatePostgres) -> None:
    """With persistent connections and without Django's health checks."""
    shop.environment["RMQ_TEST_CONNECTIONS"] = "unchecked"
    await migrated(shop)
    async with shop.consuming() as process:
        for number in range(3):
            for name in HANDLERS:
                await shop.send(name, key=f"{name}-{number}")
            await has_rows(postgres, 3 * (number + 1))
            postgres.sql(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                f" WHERE datname = '{DATABASE}' AND pid <> pg_backend_pid()"
            )
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0

    assert {attempt for _, attempt in rows(postgres)} == {"1"}
    for name in HANDLERS:
        assert await shop.place.depth(f"{shop.queue(name)}_dlq") == 0


async def test_a_server_with_too_few_connections(shop: Shop, postgres: PrivatePostgres) -> None:
    """What gets none waits in the delay line, and is no failure."""
    shop.environment["RMQ_TEST_CONNECTIONS"] = "60"
    await migrated(shop)
    postgres.stop()
    postgres.start(max_connections=6, superuser_reserved_connections=1, max_wal_senders=0)
    # A claim whose release found no connection either is held until its lease has run out.
    short = {"IDEMPOTENCY": {"LEASE": 3.0}}
    async with shop.consuming(setting=short) as process:
        await send(shop, slice(0, 20))
        await process.until("the idempotency store does not answer")
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0
    postgres.stop()
    postgres.start()

    async with shop.consuming() as process:
        await has_rows(postgres, 20 * len(HANDLERS))
    assert {attempt for _, attempt in rows(postgres)} == {"1"}
    for name in HANDLERS:
        assert await shop.place.depth(f"{shop.queue(name)}_dlq") == 0


async def has_rows(postgres: PrivatePostgres, count: int) -> None:
    await eventually(lambda: len(rows(postgres)) == count, within=30)
