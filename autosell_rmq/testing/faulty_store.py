"""An idempotency store whose calls go wrong as a test has planned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import override

from autosell_rmq.idempotency.store import Call, IdempotencyStore, Note, Record, Stored
from autosell_rmq.testing.faults import Faults


class FaultyStore(IdempotencyStore):
    """Wraps any store.

    ``run_once`` is passed around the whole call, ``run_once.call`` around the handler's run inside it:
    after that the effect is there and its result not yet remembered.
    """

    def __init__(self, store: IdempotencyStore, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    @property
    @override
    def durable(self) -> bool:
        return self._store.durable

    @property
    @override
    def transactional(self) -> bool:
        return self._store.transactional

    @override
    async def open(self) -> None:
        await self._store.open()

    @override
    async def close(self) -> None:
        await self._store.close()

    @override
    async def run_once(self, key: str, fingerprint: str, call: Call) -> Stored:
        async with self._faults.around("run_once"):
            return await self._store.run_once(key, fingerprint, self._faulty(call))

    @override
    async def note(self, key: str, note: Note) -> None:
        async with self._faults.around("note"):
            await self._store.note(key, note)

    @override
    async def lookup(self, key: str) -> Record | None:
        async with self._faults.around("lookup"):
            return await self._store.lookup(key)

    def _faulty(self, call: Call) -> Call:
        async def run() -> bytes:
            async with self._faults.around("run_once.call"):
                return await call.run()

        return replace(call, run=run, run_sync=self._faulty_sync(call.run_sync) if call.run_sync else None)

    def _faulty_sync(self, run_sync: Callable[[], bytes]) -> Callable[[], bytes]:
        def run() -> bytes:
            with self._faults.around_sync("run_once.call"):
                return run_sync()

        return run
