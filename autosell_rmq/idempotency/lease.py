"""The lease mode: claim, renew while the handler runs, complete by the token that holds the claim."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass, field

from autosell_rmq.config.check import seconds
from autosell_rmq.exceptions import InProgress, LeaseLost, StoreUnavailable
from autosell_rmq.idempotency.store import Abandoned, Call, Note, Record, Stored

logger = logging.getLogger(__name__)

_GRACE = 5.0  # seconds that a release may take, and a completion after its caller was cancelled
_FIRST_PAUSE = 0.1  # seconds; between attempts to complete, doubled each time
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One worker's right to handle a key.

    Attributes:
        token: says whose claim it is: random, and new for each run.
    """

    key: str
    fingerprint: str
    token: str = field(repr=False)


class LeaseStore(ABC):
    """A store that other processes share: `run_once` upon five primitives, each one atomic step.

    A lease is measured on the store's clock. It outlives its worker by at most its own length: then another
    may take the key over. A worker that was only slow (stopped, cut off) finds that out when it renews or
    completes, and its result is discarded: one result is stored. Its *effect* has happened by then, so the
    effect of a handler under a lease is at least once; the key is there to hand on to what it calls.

    The primitives raise `StoreUnavailable` when the store does not answer in time. An answer can be lost
    after the step was taken, so each may be repeated with the same `Claim` and then says the same again.

    Args:
        lease: seconds that a claim lives without renewal; it is renewed at a third.
        ttl: seconds that a result or a note is remembered.
    """

    durable = True
    transactional = False

    def __init__(self, *, lease: float, ttl: float) -> None:
        seconds("lease", lease)
        seconds("ttl", ttl)
        self.lease = lease
        self.ttl = ttl

    @abstractmethod
    async def open(self) -> None:
        """See `IdempotencyStore.open`."""

    @abstractmethod
    async def close(self) -> None:
        """See `IdempotencyStore.close`."""

    @abstractmethod
    async def lookup(self, key: str) -> Record | None:
        """See `IdempotencyStore.lookup`."""

    @abstractmethod
    async def note(self, key: str, note: Note) -> None:
        """See `IdempotencyStore.note`."""

    @abstractmethod
    async def claim(self, claim: Claim) -> Record | None:
        """Take the key for one lease; None when it is ours now, else the record that stands in the way.

        It is ours when nobody holds it, when the holder's lease has run out, or when the holder is `claim`
        itself, whose lease then starts anew.
        """

    @abstractmethod
    async def complete(self, claim: Claim, data: bytes) -> bool:
        """Remember the result for `ttl`; False, and nothing changed, when another holds or completed the key.

        A key that nobody holds any more (the lease ran out, the store lost its data) is completed too: its
        effect has happened, and no other result exists.
        """

    @abstractmethod
    async def release(self, claim: Claim) -> None:
        """Forget the claim, if it is this one that holds the key; a result stays."""

    async def renew(self, claim: Claim) -> bool:
        """Start the lease anew; False when the key is another's or done."""
        return await self.claim(claim) is None

    async def run_once(self, key: str, fingerprint: str, call: Call) -> Stored:
        """Run `call` under a lease unless `key` is done already; see `IdempotencyStore.run_once`.

        When the store cannot be reached:

        - at the claim, `StoreUnavailable` is raised and nothing has run;
        - while `call` runs, renewals are tried again until the lease has run out by our own clock. Then
          another may hold the key, so `call` is cancelled and `LeaseLost` raised. One that is not
          cancellable (a thread) goes on, and so do the renewals;
        - after `call` returned, the effect has happened and only the result is missing: to store it is tried
          again for the length of a lease, also past our own lease, for the token decides. Then
          `StoreUnavailable` is raised. The next delivery finds the stored result (only the answer was lost)
          or runs again.

        The caller's cancellation releases the key and goes on, unless the call was `Abandoned`. Once `call`
        has returned it comes too late to undo anything: the result is stored first (within a few seconds),
        then the cancellation goes on.
        """
        claim = Claim(key=key, fingerprint=fingerprint, token=secrets.token_hex(16))
        asked = asyncio.get_running_loop().time()
        try:
            found = await self.claim(claim)
        except BaseException:
            await _outlast_cancellation(self._give_up(claim))  # the claim may stand, only its answer lost
            raise
        match found:
            case None:
                pass
            case Record(state="done", data=bytes() as data, fingerprint=first):
                return Stored(data=data, fingerprint=first, duplicate=True)
            case _:
                raise InProgress(f"{key} is being handled by another worker")
        try:
            data = await self._run(claim, call, asked + self.lease)
        except (Abandoned, LeaseLost):
            raise  # a thread may still be at work; the lease runs out by itself, or is not ours any more
        except BaseException:
            await _outlast_cancellation(self._give_up(claim))
            raise
        # No await since the call returned: a cancellation cannot come between effect and memory.
        try:
            await self._remember(claim, data)
        except asyncio.CancelledError:
            await _in_time(asyncio.create_task(self._remember(claim, data)))  # again: it may be repeated
            raise
        return Stored(data=data, fingerprint=fingerprint, duplicate=False)

    async def _run(self, claim: Claim, call: Call, expires: float) -> bytes:
        """Run `call` while the lease is renewed. Its result counts though that failed: `complete` decides."""
        # The timeout has no end of its own. The renewals give it one when the lease is lost, and asyncio
        # then tells our cancellation from the caller's.
        held = asyncio.timeout(None)
        renewals: asyncio.Task[None] | None = None

        def renew() -> None:
            nonlocal renewals
            keep = self._keep(claim, expires, held if call.cancellable else None)
            renewals = asyncio.create_task(keep, name=f"renew {claim.key}")

        # A task only for those that run so long.
        due = asyncio.get_running_loop().call_later(self.lease / 3, renew)
        try:
            async with held:
                try:
                    return await call.run()
                finally:
                    due.cancel()
                    if renewals is not None:
                        renewals.cancel()
        except Exception as error:
            if held.expired():
                raise LeaseLost(f"the claim on {claim.key} was lost while its handler ran") from error
            raise

    async def _keep(self, claim: Claim, expires: float, held: asyncio.Timeout | None) -> None:
        """Renew until cancelled: even after the lease ran out, for a call that goes on."""
        clock = asyncio.get_running_loop().time
        interval = self.lease / 3
        while True:
            asked = clock()
            try:
                async with asyncio.timeout(interval):
                    ours = await self.renew(claim)
            except Exception as error:  # noqa: BLE001 - whatever it is, the lease was not renewed
                logger.warning("could not renew the claim on %s, trying again: %r", claim.key, error)
                _end(held, expires)
                await asyncio.sleep(interval / 4)
                continue
            if not ours:
                logger.warning("the claim on %s was lost to another worker", claim.key)
                _end(held, asked)
                return
            # `expires` may be past (the process was stopped, the loop blocked): if nobody came, go on.
            _end(held, None)
            expires = asked + self.lease
            await asyncio.sleep(interval)

    async def _remember(self, claim: Claim, data: bytes) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + self.lease
        pause = _FIRST_PAUSE
        while True:
            try:
                async with asyncio.timeout(self.lease / 3):
                    ours = await self.complete(claim, data)
            except (StoreUnavailable, TimeoutError) as error:
                if clock() + pause >= until:
                    raise StoreUnavailable(
                        f"{claim.key} was handled, but its result could not be stored: {error}"
                    ) from error
                logger.warning("could not store the result of %s, trying again: %r", claim.key, error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                if ours:
                    return
                raise LeaseLost(f"{claim.key} was taken over while its handler ran; the result is discarded")

    async def _give_up(self, claim: Claim) -> None:
        """Release; its own failure is only logged, for the lease runs out by itself."""
        try:
            async with asyncio.timeout(_GRACE):
                await self.release(claim)
        except Exception as error:  # noqa: BLE001 - it must not hide the error that led here
            logger.warning(
                "could not release %s, it stays claimed until its lease ends: %r", claim.key, error
            )


def _end(held: asyncio.Timeout | None, when: float | None) -> None:
    if held is not None and not held.expired():
        held.reschedule(when)


async def _outlast_cancellation(work: Coroutine[object, object, None]) -> None:
    """Await `work`; a cancellation waits for it, within a limit, and goes on. A second one does not wait."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await _in_time(task)
        raise


async def _in_time(task: asyncio.Task[None]) -> None:
    """Wait within the limit for what goes on after a cancellation; another one ends it."""
    try:
        await asyncio.wait([task], timeout=_GRACE)
    finally:
        task.cancel()
    if task.done() and not task.cancelled() and (error := task.exception()):
        logger.warning("after a cancellation: %s", error)
