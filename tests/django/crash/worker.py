"""Consumer processes that may kill themselves, by SIGKILL, at a chosen point.

The points lie in wrappers of the broker and of the store, and in the handler here: the product has none.

``worker.py queue store`` starts one for each line of its input, ``skip point``, and says its process id and
then its exit code. Each is a fork of this process, which has loaded everything and connected to nothing: so a
new one is there in no time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sys
import traceback
import uuid
from typing import Any, override

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django.settings")
django.setup()

from autosell_rmq import Call, Claim, IdempotencyStore, Note, RabbitMQ, Record, Stored  # noqa: E402 - after it
from autosell_rmq.brokers import create_broker  # noqa: E402
from autosell_rmq.config import Settings  # noqa: E402
from autosell_rmq.testing import Crash, Faults, FaultyBroker, FaultyStore  # noqa: E402
from autosell_rmq_django.connections import in_handler_thread  # noqa: E402
from autosell_rmq_django.store import DatabaseStore  # noqa: E402
from tests.django import settings  # noqa: E402
from tests.django.shop.models import Effect  # noqa: E402

FAILURES = 0.05
# Seconds in which the mistake of `CheckThenAct` shows: duplicates side by side are sure to meet.
WINDOW = 0.1


class Kill(Crash):
    """As soon as it is made, this process is no more."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        os.kill(os.getpid(), signal.SIGKILL)


class CheckThenAct(IdempotencyStore):
    """The mistake that the harness has to catch: the claim is made outside of the transaction."""

    @property
    @override
    def durable(self) -> bool:
        return True

    @property
    @override
    def transactional(self) -> bool:
        return True

    def __init__(self, store: DatabaseStore) -> None:
        self._store = store

    @override
    async def open(self) -> None:
        await self._store.open()

    @override
    async def close(self) -> None:
        await self._store.close()

    @override
    async def note(self, key: str, note: Note) -> None:
        await self._store.note(key, note)

    @override
    async def run_once(self, key: str, fingerprint: str, call: Call) -> Stored:
        found = await self._store.lookup(key)
        if found is not None and found.data is not None:
            return Stored(data=found.data, fingerprint=found.fingerprint, duplicate=True)
        await asyncio.sleep(WINDOW)
        assert call.run_sync is not None
        assert call.in_thread is not None
        data = await call.in_thread(call.run_sync)
        claim = Claim(key=key, fingerprint=fingerprint, token=uuid.uuid4().hex)
        await self._store.complete(claim, data)
        return Stored(data=data, fingerprint=fingerprint, duplicate=False)

    @override
    async def lookup(self, key: str) -> Record | None:
        return await self._store.lookup(key)


class Handler:
    """Two rows for each run: an effect that is not whole can be seen."""

    def __init__(self, *, die_at: int | None) -> None:
        self._die_at = die_at
        self._passed = itertools.count()

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        run = uuid.uuid4().hex
        Effect.objects.create(key=data["id"], note=f"{run} begun")
        if next(self._passed) == self._die_at:
            Kill("mid handler")
        if random.random() < FAILURES:
            raise ValueError("the handler fails now and then")
        Effect.objects.create(key=data["id"], note=f"{run} ended")
        return {"run": run, "value": data["value"]}


def planned(point: str, skip: int) -> Faults:
    faults = Faults()
    match point:
        case "before the claim":
            faults.on("run_once", before=Kill, skip=skip)
        case "after the claim":
            faults.on("run_once.call", before=Kill, skip=skip)
        case "before the commit":
            faults.on("run_once.call", after=Kill, skip=skip)
        case "after the commit":
            faults.on("run_once", after=Kill, skip=skip)
        case "after the reply":
            faults.on("ack", before=Kill, skip=skip)
    return faults


async def main(queue: str, kind: str, point: str, skip: int) -> None:
    faults = planned(point, skip)
    url = str(settings.AUTOSELL_RMQ["URL"])
    broker = create_broker(Settings.build(url))
    database = DatabaseStore()
    store = CheckThenAct(database) if kind == "check then act" else database
    app = RabbitMQ(
        broker=FaultyBroker(broker, faults),
        store=FaultyStore(store, faults),
        thread_context=in_handler_thread,
        prefetch=16,
        max_retries=30,
        retry_delay=0.1,
        max_retry_delay=1.0,
    )
    app.handler(queue, batch=16 if kind == "shared" else 1)(
        Handler(die_at=skip if point == "mid handler" else None)
    )
    await broker.open()
    async with app:
        await app.run()
    await broker.close()


def start(queue: str, kind: str, point: str, skip: int) -> int:
    """Fork a worker."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        random.seed()
        asyncio.run(main(queue, kind, point, skip))
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the fork must not go on as its parent would
        traceback.print_exc()
    finally:
        os._exit(code)


def say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for line in sys.stdin:
        passages, _, where = line.strip().partition(" ")
        worker = start(sys.argv[1], sys.argv[2], where, int(passages))
        say(worker)
        say(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
