"""A store under a lease whose every step can fail, handlers for it, and virtual time to test them in."""

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, override

from autosell_rmq.exceptions import StoreUnavailable
from autosell_rmq.idempotency import Call, Claim, LeaseStore, Note, Record, Stored

LEASE = 60.0
KEY = "key"


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0
        loop = self

        class Selector(selectors.SelectSelector):
            @override
            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                assert timeout is not None, "the test waits for what never comes"
                loop.now += max(timeout, 0.0)
                return super().select(0)

        super().__init__(Selector())

    @override
    def time(self) -> float:
        return self.now


def now() -> float:
    return asyncio.get_running_loop().time()


def virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in a `VirtualLoop`, and see that it leaves no task behind."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        async def main() -> None:
            await test(*args, **kwargs)
            for _ in range(5):
                await asyncio.sleep(0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(main())

    return run


@dataclass
class Row:
    claim: Claim
    expires: float
    data: bytes | None = None


type Fault = BaseException | Callable[[], Awaitable[None]]


class FakeStore(LeaseStore):
    """The contract of the primitives in a dictionary, with `faults` before and `lost` after a step.

    Attributes:
        faults: what happens instead of the next calls of a step; the last one stays when `forever`.
        lost: steps whose next call is carried out and then fails: its answer is lost.
    """

    def __init__(self, rows: dict[str, Row] | None = None) -> None:
        super().__init__(lease=LEASE, ttl=1000.0)
        self.rows: dict[str, Row] = {} if rows is None else rows
        self.faults: dict[str, list[Fault | None]] = {}
        self.forever: dict[str, Fault] = {}
        self.lost: list[str] = []
        self.log: list[tuple[str, float]] = []

    def steps(self, name: str) -> list[float]:
        return [when for step, when in self.log if step == name]

    async def _step(self, name: str) -> None:
        self.log.append((name, now()))
        await asyncio.sleep(0)
        queue = self.faults.get(name)
        fault = queue.pop(0) if queue else self.forever.get(name)
        if isinstance(fault, BaseException):
            raise fault
        if fault is not None:
            await fault()

    def _answer(self, name: str) -> None:
        if name in self.lost:
            self.lost.remove(name)
            raise StoreUnavailable("the answer is lost")

    def _row(self, key: str) -> Row | None:
        row = self.rows.get(key)
        return row if row is not None and row.expires > now() else None

    def _take(self, claim: Claim) -> Record | None:
        row = self._row(claim.key)
        if row is None or (row.claim.token == claim.token and row.data is None):
            self.rows[claim.key] = Row(claim, now() + self.lease)
            return None
        state = "processing" if row.data is None else "done"
        return Record(state=state, fingerprint=row.claim.fingerprint, data=row.data)  # type: ignore[arg-type]

    @override
    async def open(self) -> None: ...

    @override
    async def close(self) -> None: ...

    @override
    async def lookup(self, key: str) -> Record | None:
        row = self._row(key)
        if row is None:
            return None
        state = "processing" if row.data is None else "done"
        return Record(state=state, fingerprint=row.claim.fingerprint, data=row.data)  # type: ignore[arg-type]

    @override
    async def note(self, key: str, note: Note) -> None: ...

    @override
    async def claim(self, claim: Claim) -> Record | None:
        await self._step("claim")
        found = self._take(claim)
        self._answer("claim")
        return found

    @override
    async def renew(self, claim: Claim) -> bool:
        await self._step("renew")
        found = self._take(claim)
        self._answer("renew")
        return found is None

    @override
    async def complete(self, claim: Claim, data: bytes) -> bool:
        await self._step("complete")
        row = self._row(claim.key)
        if row is not None and row.claim.token != claim.token:
            return False
        self.rows[claim.key] = Row(claim, now() + self.ttl, data)
        self._answer("complete")
        return True

    @override
    async def release(self, claim: Claim) -> None:
        await self._step("release")
        row = self._row(claim.key)
        if row is not None and row.claim.token == claim.token and row.data is None:
            del self.rows[claim.key]


DOWN = StoreUnavailable("down")


async def hang() -> None:
    await asyncio.Event().wait()


class Handler:
    """Takes `duration` seconds; a cancellation does not end a `stubborn` one."""

    def __init__(self, duration: float = 0.0, *, stubborn: bool = False, cancellable: bool = True) -> None:
        self.duration = duration
        self.stubborn = stubborn
        self.cancellable = cancellable
        self.runs = 0
        self.cancelled_at: float | None = None
        self.started = asyncio.Event()

    async def run(self) -> bytes:
        self.runs += 1
        self.started.set()
        end = now() + self.duration
        while now() < end:
            try:
                await asyncio.sleep(end - now())
            except asyncio.CancelledError:
                self.cancelled_at = now()
                if not self.stubborn:
                    raise
        return b"result"

    @property
    def call(self) -> Call:
        return Call(run=self.run, cancellable=self.cancellable)


def start(store: LeaseStore, handler: Handler, fingerprint: str = "f") -> asyncio.Task[Stored]:
    return asyncio.create_task(store.run_once(KEY, fingerprint, handler.call))


def somebody_takes_over(store: FakeStore, data: bytes | None = None) -> None:
    other = Claim(key=KEY, fingerprint="o", token="other")
    store.rows[KEY] = Row(other, now() + LEASE * 100, data)
