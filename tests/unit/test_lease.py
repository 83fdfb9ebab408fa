"""The lease mode, first half: the claim, and its renewal while the handler runs."""

import asyncio

import pytest

from autosell_rmq.exceptions import ConfigError, InProgress, LeaseLost, StoreUnavailable
from autosell_rmq.idempotency import Call, LeaseStore
from tests.unit.lease_fixtures import (
    DOWN,
    KEY,
    LEASE,
    FakeStore,
    Fault,
    Handler,
    VirtualLoop,
    hang,
    now,
    somebody_takes_over,
    start,
    virtual_time,
)


@pytest.mark.parametrize(
    ("lease", "ttl", "name"), [(0, 1, "lease"), (1, 0, "ttl"), (float("nan"), 1, "lease")]
)
def test_wrong_times_are_refused(lease: float, ttl: float, name: str) -> None:
    class Store(FakeStore):
        def __init__(self) -> None:
            LeaseStore.__init__(self, lease=lease, ttl=ttl)

    with pytest.raises(ConfigError, match=name):
        Store()


@virtual_time
async def test_each_run_has_a_token_of_its_own_that_is_not_shown() -> None:
    tokens = set()
    for _ in range(5):
        store = FakeStore()
        await store.run_once(KEY, "f", Handler().call)
        claim = store.rows[KEY].claim
        tokens.add(claim.token)
        assert claim.token not in repr(claim)
    assert len(tokens) == 5
    assert all(len(token) == 32 for token in tokens)


# --- the claim -----------------------------------------------------------------------------------


@virtual_time
async def test_a_store_that_is_down_at_the_claim_runs_nothing() -> None:
    store, handler = FakeStore(), Handler()
    store.faults["claim"] = [DOWN]

    with pytest.raises(StoreUnavailable) as caught:
        await store.run_once(KEY, "f", handler.call)

    assert caught.value is DOWN
    assert handler.runs == 0


@virtual_time
async def test_a_claim_whose_answer_is_lost_does_not_block_the_key() -> None:
    store, handler = FakeStore(), Handler()
    store.lost = ["claim"]

    with pytest.raises(StoreUnavailable):
        await store.run_once(KEY, "f", handler.call)

    assert await store.lookup(KEY) is None


@virtual_time
async def test_a_cancelled_claim_does_not_block_the_key() -> None:
    store, handler = FakeStore(), Handler()

    async def claimed_and_then_slow() -> None:
        await asyncio.sleep(3)

    store.faults["claim"] = [claimed_and_then_slow]
    task = start(store, handler)
    await asyncio.sleep(1)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert store.steps("release") == [1]
    assert handler.runs == 0


# --- renewal -------------------------------------------------------------------------------------


@virtual_time
async def test_the_lease_is_renewed_at_a_third_and_no_more_after_the_end() -> None:
    store = FakeStore()

    await store.run_once(KEY, "f", Handler(130).call)
    await asyncio.sleep(1000)

    assert store.steps("renew") == [20, 40, 60, 80, 100, 120]


@virtual_time
async def test_a_call_of_many_leases_keeps_its_key() -> None:
    store, handler = FakeStore(), Handler(LEASE * 5)
    task = start(store, handler)
    await handler.started.wait()

    for _ in range(29):
        await asyncio.sleep(10)
        with pytest.raises(InProgress):
            await FakeStore(store.rows).run_once(KEY, "f", Handler().call)

    assert (await task).data == b"result"


@virtual_time
async def test_a_lost_lease_cancels_the_call_at_the_next_renewal() -> None:
    store, handler = FakeStore(), Handler(1000)
    task = start(store, handler)
    await handler.started.wait()
    somebody_takes_over(store)

    with pytest.raises(LeaseLost):
        await task

    assert handler.cancelled_at == 20
    assert task.cancelling() == 0
    assert store.rows[KEY].claim.token == "other"
    assert not store.steps("complete")


@virtual_time
async def test_losing_the_lease_leaves_no_cancellation_in_the_calling_task() -> None:
    store, handler = FakeStore(), Handler(1000)

    async def caller() -> int:
        somebody = asyncio.get_running_loop().call_later(5, somebody_takes_over, store)
        with pytest.raises(LeaseLost):
            await store.run_once(KEY, "f", handler.call)
        somebody.cancel()
        await asyncio.sleep(1)  # would raise if a cancellation were still pending
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert await asyncio.create_task(caller()) == 0


@pytest.mark.parametrize("fault", [DOWN, hang, OSError("odd"), ValueError("a bug in the store")])
@virtual_time
async def test_without_the_store_the_call_is_cancelled_when_the_lease_has_run_out(fault: Fault) -> None:
    store, handler = FakeStore(), Handler(1000)
    store.forever["renew"] = fault

    with pytest.raises(LeaseLost) as caught:
        await store.run_once(KEY, "f", handler.call)

    assert handler.cancelled_at == LEASE
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert now() == LEASE
    assert not store.steps("release")


@virtual_time
async def test_a_lease_counts_from_the_last_renewal_that_was_asked_for_in_time() -> None:
    store, handler = FakeStore(), Handler(1000)

    async def slow() -> None:
        await asyncio.sleep(8)

    store.faults["renew"] = [None, slow]
    store.forever["renew"] = DOWN

    with pytest.raises(LeaseLost):
        await store.run_once(KEY, "f", handler.call)

    assert handler.cancelled_at == 40 + LEASE  # not 48: the store's clock may have started at once


@virtual_time
async def test_a_short_outage_during_the_call_is_survived() -> None:
    store, handler = FakeStore(), Handler(150)
    store.faults["renew"] = [DOWN, DOWN, hang, None, DOWN, None]

    stored = await store.run_once(KEY, "f", handler.call)

    assert stored.data == b"result"
    assert handler.cancelled_at is None


@virtual_time
async def test_after_a_late_wake_up_the_store_decides() -> None:
    for taken in (False, True):
        store, handler = FakeStore(), Handler(100)
        task = start(store, handler)
        await handler.started.wait()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.now += 3 * LEASE / 2  # the process stood still: SIGSTOP, a handler that blocks the loop
        if taken:
            somebody_takes_over(store)
            with pytest.raises(LeaseLost):
                await task
        else:
            assert (await task).data == b"result"


@virtual_time
async def test_the_error_of_a_call_cancelled_by_us_is_the_cause() -> None:
    store = FakeStore()
    raised = ValueError("cannot clean up")

    async def run() -> bytes:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            raise raised from None
        return b""

    task = asyncio.create_task(store.run_once(KEY, "f", Call(run=run)))
    await asyncio.sleep(1)
    somebody_takes_over(store)

    with pytest.raises(LeaseLost) as caught:
        await task
    assert caught.value.__cause__ is raised
