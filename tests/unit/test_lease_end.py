"""The lease mode, second half: cancellation, release, completion, and calls that do not end."""

import asyncio
import logging

import pytest

from autosell_rmq.exceptions import InProgress, LeaseLost, StoreUnavailable
from autosell_rmq.idempotency import Abandoned, Call, Stored
from tests.unit.lease_fixtures import (
    DOWN,
    KEY,
    LEASE,
    FakeStore,
    Fault,
    Handler,
    hang,
    now,
    somebody_takes_over,
    start,
    virtual_time,
)

# --- the caller's cancellation -------------------------------------------------------------------


@virtual_time
async def test_the_callers_cancellation_releases_and_goes_on() -> None:
    store, handler = FakeStore(), Handler(1000)
    task = start(store, handler)
    await asyncio.sleep(30)

    task.cancel("the caller's")
    with pytest.raises(asyncio.CancelledError, match="the caller's"):
        await task

    assert handler.cancelled_at == 30
    assert await store.lookup(KEY) is None


@virtual_time
async def test_the_callers_cancellation_goes_first_when_the_lease_is_lost_too() -> None:
    store = FakeStore()

    async def run() -> bytes:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(10)
            raise
        return b""

    for lost_first in (True, False):
        store.rows.clear()
        task = asyncio.create_task(store.run_once(KEY, "f", Call(run=run)))
        await asyncio.sleep(19 if lost_first else 21)
        somebody_takes_over(store)
        await asyncio.sleep(2 if lost_first else 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()


@virtual_time
async def test_a_cancellation_during_the_release_waits_for_it() -> None:
    store = FakeStore()

    async def slow() -> None:
        await asyncio.sleep(2)

    async def fails() -> bytes:
        raise ValueError("no")

    store.faults["release"] = [slow]
    task = asyncio.create_task(store.run_once(KEY, "f", Call(run=fails)))
    await asyncio.sleep(1)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert now() == 2
    assert await store.lookup(KEY) is None


@virtual_time
async def test_a_cancellation_of_the_cancellation_does_not_wait() -> None:
    store, handler = FakeStore(), Handler(1000)
    store.faults["release"] = [hang]
    task = start(store, handler)
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(1)
    assert not task.done()  # the first ended the call, the second came during the release and waits for it
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert now() == 3


# --- the release ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "takes"), [(DOWN, 0), (hang, 5), (ValueError("a bug in the store"), 0)])
@virtual_time
async def test_a_failing_release_does_not_hide_the_error(
    fault: Fault, takes: float, caplog: pytest.LogCaptureFixture
) -> None:
    store, error = FakeStore(), ValueError("the handler's")
    store.faults["release"] = [fault]

    async def fails() -> bytes:
        raise error

    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="the handler's") as caught:
        await store.run_once(KEY, "f", Call(run=fails))

    assert caught.value is error
    assert now() == takes
    assert "could not release" in caplog.text


# --- the completion ------------------------------------------------------------------------------


@virtual_time
async def test_a_result_of_a_taken_over_key_is_discarded() -> None:
    store, handler = FakeStore(), Handler(10)
    task = start(store, handler)
    await handler.started.wait()
    somebody_takes_over(store, b"theirs")

    with pytest.raises(LeaseLost):
        await task

    assert store.rows[KEY].data == b"theirs"


@virtual_time
async def test_a_result_is_stored_though_the_lease_ran_out_if_nobody_came() -> None:
    store, handler = FakeStore(), Handler(10)
    task = start(store, handler)
    await handler.started.wait()
    store.rows.clear()  # the store lost its data

    assert await task == Stored(data=b"result", fingerprint="f", duplicate=False)
    assert store.rows[KEY].data == b"result"


@virtual_time
async def test_a_result_is_stored_though_the_store_is_away_for_a_while() -> None:
    store, handler = FakeStore(), Handler(1)
    store.faults["complete"] = [DOWN, hang, TimeoutError(), DOWN]

    stored = await store.run_once(KEY, "f", handler.call)

    assert stored == Stored(data=b"result", fingerprint="f", duplicate=False)
    assert (store.rows[KEY].data, handler.runs) == (b"result", 1)
    pauses = [b - a for a, b in zip(store.steps("complete"), store.steps("complete")[1:], strict=False)]
    assert all(0 < pause <= LEASE / 3 + 5 for pause in pauses)


@virtual_time
async def test_a_completion_whose_answer_is_lost_is_ours() -> None:
    store, handler = FakeStore(), Handler(1)
    store.lost = ["complete"]

    assert (await store.run_once(KEY, "f", handler.call)).data == b"result"
    assert len(store.steps("complete")) == 2


@pytest.mark.parametrize("fault", [DOWN, hang])
@virtual_time
async def test_a_result_that_cannot_be_stored_for_a_lease_is_an_error(fault: Fault) -> None:
    store, handler = FakeStore(), Handler(1)
    store.forever["complete"] = fault

    with pytest.raises(StoreUnavailable, match="was handled"):
        await store.run_once(KEY, "f", handler.call)

    assert 1 + LEASE - 5 <= now() <= 1 + LEASE + LEASE / 3
    assert handler.runs == 1
    assert not store.steps("release")


@virtual_time
async def test_a_cancellation_after_the_call_comes_after_its_result_is_stored() -> None:
    store, handler = FakeStore(), Handler(1)

    async def slow() -> None:
        await asyncio.sleep(2)

    store.faults["complete"] = [slow, slow]  # cut short at 2, and begun again
    task = start(store, handler)
    await asyncio.sleep(2)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert now() == 4
    assert store.rows[KEY].data == b"result"
    assert not store.steps("release")


@virtual_time
async def test_a_cancellation_after_the_call_hides_that_the_lease_was_lost_but_logs_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, handler = FakeStore(), Handler(1)

    async def overtaken() -> None:
        await asyncio.sleep(2)
        somebody_takes_over(store, b"theirs")

    store.faults["complete"] = [hang, overtaken]
    task = start(store, handler)
    await asyncio.sleep(2)
    task.cancel()

    with caplog.at_level(logging.WARNING), pytest.raises(asyncio.CancelledError):
        await task

    assert store.rows[KEY].data == b"theirs"
    assert "taken over" in caplog.text


@virtual_time
async def test_a_cancellation_after_the_call_waits_seconds_for_a_store_that_is_away() -> None:
    store, handler = FakeStore(), Handler(1)
    store.forever["complete"] = DOWN
    task = start(store, handler)
    await asyncio.sleep(2)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert now() == 2 + 5


# --- a call that does not end when cancelled, a thread for one ----------------------------------


@virtual_time
async def test_a_call_keeps_its_claim_until_it_ends() -> None:
    store, handler = FakeStore(), Handler(200, stubborn=True)
    task = start(store, handler)
    await asyncio.sleep(10)
    task.cancel()
    await asyncio.sleep(150)

    with pytest.raises(InProgress):
        await FakeStore(store.rows).run_once(KEY, "f", Handler().call)

    assert (await task).data == b"result"
    assert store.rows[KEY].data == b"result"


@pytest.mark.parametrize("cancellable", [True, False])
@virtual_time
async def test_a_result_that_outlived_its_lease_counts_if_nobody_came(cancellable: bool) -> None:
    store, handler = FakeStore(), Handler(200, stubborn=True, cancellable=cancellable)
    store.faults["renew"] = [DOWN] * 15  # from 20 s on, for 75 s
    task = start(store, handler)

    assert (await task).data == b"result"

    assert handler.cancelled_at == (LEASE if cancellable else None)
    assert store.steps("renew")[-1] > 180  # and was claimed again for the rest of its time


@pytest.mark.parametrize("cancellable", [True, False])
@virtual_time
async def test_a_result_that_was_overtaken_is_discarded(cancellable: bool) -> None:
    store, handler = FakeStore(), Handler(200, stubborn=True, cancellable=cancellable)
    task = start(store, handler)
    await asyncio.sleep(10)
    somebody_takes_over(store, b"theirs")

    with pytest.raises(LeaseLost):
        await task

    assert now() == 200
    assert handler.cancelled_at == (20 if cancellable else None)
    assert store.rows[KEY].data == b"theirs"


async def abandoned_when_cancelled() -> bytes:
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        raise Abandoned from None
    return b""


@virtual_time
async def test_an_abandoned_call_stays_claimed_until_its_lease_ends() -> None:
    store = FakeStore()
    task = asyncio.create_task(store.run_once(KEY, "f", Call(run=abandoned_when_cancelled)))
    await asyncio.sleep(30)

    task.cancel()
    with pytest.raises(Abandoned):
        await task

    await asyncio.sleep(49)
    assert await store.lookup(KEY) is not None
    await asyncio.sleep(2)
    assert await store.lookup(KEY) is None
    assert store.steps("renew") == [20]


@virtual_time
async def test_a_call_abandoned_for_a_lost_lease_is_a_lost_lease() -> None:
    store = FakeStore()
    task = asyncio.create_task(store.run_once(KEY, "f", Call(run=abandoned_when_cancelled)))
    await asyncio.sleep(1)
    somebody_takes_over(store)

    with pytest.raises(LeaseLost):
        await task

    assert not store.steps("release")
