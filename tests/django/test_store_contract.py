"""The contract of every idempotency store, on the database: under a lease, and in a transaction."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, override

import pytest

from autosell_rmq import Call, IdempotencyStore, Note, Record, Stored
from autosell_rmq_django.store import DatabaseStore
from tests.contract import test_store as contract
from tests.django import settings
from tests.django.store_fixtures import Connect, Threads, connect, short_waits

__all__ = ["connect", "short_waits"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]

type Another = Callable[[], Any]

# In a transaction nobody else sees the claim before the commit, and a thread cannot be cancelled.
_LEASE_ONLY = {
    "test_a_cancellation_goes_on_and_releases",
    "test_a_refused_duplicate_leaves_the_claim_alone",
    "test_lookup_tells_the_states_apart",
    "test_a_note_lies_beneath_a_claim",
}


class InTransaction(IdempotencyStore):
    """The calls of the suite as sync handlers: a thread holds the transaction while the loop runs each."""

    @property
    @override
    def durable(self) -> bool:
        return True

    @property
    @override
    def transactional(self) -> bool:
        return True

    def __init__(self, store: DatabaseStore, threads: Threads, *, batch: int) -> None:
        self._store = store
        self._threads = threads
        self._batch = batch

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        await self._store.close()

    async def run_once(self, key: str, fingerprint: str, call: Call) -> Stored:
        loop = asyncio.get_running_loop()

        async def run() -> bytes:
            return await call.run()

        def run_sync() -> bytes:
            return asyncio.run_coroutine_threadsafe(run(), loop).result()

        return await self._store.run_once(
            key,
            fingerprint,
            replace(call, run_sync=run_sync, in_thread=self._threads.run, batch=self._batch),
        )

    async def lookup(self, key: str) -> Record | None:
        return await self._store.lookup(key)

    async def note(self, key: str, note: Note) -> None:
        await self._store.note(key, note)


def _needs_many_writers() -> None:
    if settings.KIND == "sqlite":
        pytest.skip("SQLite's one writer blocks every key")
    if settings.KIND == "mariadb":
        # To insert a key again that was deleted a moment ago (by the test before) locks the gap around it.
        pytest.skip("InnoDB locks gaps; test_store_exactly_once.py has this with keys that are new")


@pytest.fixture(params=["lease", "transaction", "shared transaction"])
async def another(
    request: pytest.FixtureRequest, connect: Connect, short_waits: None
) -> AsyncIterator[Another]:
    """Opens one more store on the same table, as another process would."""
    lease = request.param == "lease"
    if not lease and request.function.__name__ in _LEASE_ONLY:
        pytest.skip("only under a lease")
    if not lease and request.function.__name__ == "test_keys_are_independent":
        _needs_many_writers()
    threads = Threads(64)

    async def open_one() -> IdempotencyStore:
        store = await connect(lock_timeout=0.5)
        batch = 10 if request.param == "shared transaction" else 1
        return store if lease else InTransaction(store, threads, batch=batch)

    yield open_one
    await asyncio.to_thread(threads.end)


store = contract.store
twin = contract.twin
pytest.register_assert_rewrite(contract.__name__)
globals().update({name: test for name, test in vars(contract).items() if name.startswith("test_")})
