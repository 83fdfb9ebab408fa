"""autosell-rmq with Django's store on PostgreSQL, and the claim and completion that it is compared with.

Options: ``only`` (``store``: the store; ``alone``: two statements of its own for each message), ``threads``
and ``batch`` of exactly-once handlers. The database is named by ``BENCH_DATABASE``.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from measured import Countdown, Run, main, windowed

URL = urlsplit(os.environ.get("POSTGRES_URL") or "postgres://postgres:postgres@127.0.0.1:5432")
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": URL.hostname,
            "PORT": URL.port or "",
            "USER": URL.username or "",
            "PASSWORD": URL.password or "",
            "NAME": os.environ["BENCH_DATABASE"],
            "CONN_MAX_AGE": None,
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["autosell_rmq_django"],
    USE_TZ=True,
)
django.setup()

from autosell_rmq import Call, HandlerKwargs, RabbitMQ, ThreadPool  # noqa: E402
from autosell_rmq_django.connections import in_handler_thread  # noqa: E402
from autosell_rmq_django.store import DatabaseStore  # noqa: E402

DATA = b"null"


async def migrate(run: Run) -> None:
    """Make the tables."""

    def make() -> None:
        call_command("migrate", verbosity=0)
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE bench_effect (id bigserial PRIMARY KEY, body text NOT NULL)")
            cursor.execute("CREATE TABLE bench_claim (key text PRIMARY KEY, token text NOT NULL, data bytea)")

    run.start()
    await sync_to_async(make)()
    run.stop()


async def store(run: Run) -> None:
    """Claim and complete: by the store, or by two statements for each message alone, each in its own hop."""
    if run.options["only"] == "alone":
        await windowed(run, _alone)
        return
    database = DatabaseStore()
    await database.open()

    async def handle() -> bytes:
        return DATA

    call = Call(run=handle, queue=run.queue, correlation_id="bench")
    await windowed(run, lambda: database.run_once(secrets.token_hex(32), secrets.token_hex(32), call))
    await database.close()


async def _alone() -> None:
    key, token = secrets.token_hex(32), secrets.token_hex(16)
    if await sync_to_async(partial(_claim, key, token))():
        await sync_to_async(partial(_complete, key, token))()


def _claim(key: str, token: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO bench_claim (key, token) VALUES (%s, %s) ON CONFLICT (key) DO NOTHING RETURNING key",
            (key, token),
        )
        return cursor.fetchone() is not None


def _complete(key: str, token: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE bench_claim SET data = %s WHERE key = %s AND token = %s", (DATA, key, token))


async def consume(run: Run) -> None:
    """An async handler that does nothing, under leases."""
    rmq = RabbitMQ(run.url, prefetch=run.prefetch, store=DatabaseStore())
    count = Countdown(run)

    @rmq.handler(run.queue, declare=False, queue_type="classic")
    async def handle(data: dict[str, Any]) -> None:
        count.one()

    await _consumed(rmq, count)


async def consume_sync(run: Run) -> None:
    """A sync handler with one INSERT, in one transaction with its claim and its result."""
    batch = run.options.get("batch")
    options: dict[str, Any] = {"batch": batch} if batch else {}
    threads = ThreadPool(run.options["threads"], at_end=connection.close)
    rmq = RabbitMQ(
        run.url,
        prefetch=run.prefetch,
        store=DatabaseStore(),
        thread_context=in_handler_thread,
        thread_pool=threads,
    )
    count = Countdown(run)
    loop = asyncio.get_running_loop()
    handler_options: HandlerKwargs = {"declare": False, "queue_type": "classic", **options}  # type: ignore[typeddict-item]

    @rmq.handler(run.queue, **handler_options)
    def handle(data: dict[str, Any]) -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO bench_effect (body) VALUES (%s)", (data["text"],))
        loop.call_soon_threadsafe(count.one)

    await _consumed(rmq, count)


async def _consumed(rmq: RabbitMQ, count: Countdown) -> None:
    async with rmq:
        await count.over(rmq.start_consuming)


if __name__ == "__main__":
    main({"migrate": migrate, "store": store, "consume": consume, "consume_sync": consume_sync})
