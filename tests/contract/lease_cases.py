"""What every store with leases does with a claim: one suite, run by each store's own tests.

A test module imports the cases; its fixture `connect` opens a store.
"""

from collections.abc import Awaitable, Callable

import pytest

from autosell_rmq import Call, Claim, InProgress, LeaseStore, Stored

KEY = "k" * 64

type Connect = Callable[..., Awaitable[LeaseStore]]


def a_claim(token: str) -> Claim:
    return Claim(key=KEY, fingerprint=f"fingerprint of {token}", token=token)


async def never() -> bytes:
    raise AssertionError("it was not to run")


async def test_only_the_holder_may_do_anything(connect: Connect) -> None:
    store = await connect(lease=60.0)
    mine, other = a_claim("mine"), a_claim("other")
    await store.claim(mine)

    found = await store.claim(other)
    assert found is not None
    assert (found.state, found.fingerprint) == ("processing", "fingerprint of mine")
    assert not await store.renew(other)
    assert not await store.complete(other, b"theirs")
    await store.release(other)

    found = await store.lookup(KEY)
    assert found is not None
    assert (found.state, found.fingerprint) == ("processing", "fingerprint of mine")
    await store.complete(mine, b"data")
    assert not await store.complete(other, b"theirs")
    found = await store.lookup(KEY)
    assert found is not None
    assert found.data == b"data"


async def test_a_key_that_nobody_holds_may_be_renewed_and_completed(connect: Connect) -> None:
    store = await connect(lease=60.0)
    mine = a_claim("mine")

    assert await store.renew(mine)
    with pytest.raises(InProgress):
        await store.run_once(KEY, "f", Call(run=never))
    await store.release(mine)
    assert await store.complete(mine, b"data")

    assert await store.run_once(KEY, "f", Call(run=never)) == Stored(
        data=b"data", fingerprint="fingerprint of mine", duplicate=True
    )
