"""Exactly-once calls of one queue that share transactions: who goes along with whom."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from autosell_rmq import Abandoned, Batching, Call, InProgress
from autosell_rmq_django.store.exactly_once import Ended
from autosell_rmq_django.store.restarting import restarting
from autosell_rmq_django.store.shared import Run, SharedTransactions

_AT_ONCE = 8  # transactions of one queue


class Sharing:
    """Hands the calls of a queue to transactions: what comes while one is at work shares the next."""

    def __init__(self, transactions: SharedTransactions, *, lock_timeout: float) -> None:
        self._transactions = transactions
        self._lock_timeout = lock_timeout
        self._queues: dict[str, Batching[Run, Ended]] = {}
        self._in_hand: dict[str, asyncio.Event] = {}

    async def run_once(self, key: str, fingerprint: str, call: Call) -> Ended:
        """See `ExactlyOnce.run`; raises `Abandoned` when it is cancelled while a thread has it in hand."""
        await self._wait_for_twins(key)
        self._in_hand[key] = over = asyncio.Event()
        try:
            return await self._share(Run(key=key, fingerprint=fingerprint, call=call))
        finally:
            del self._in_hand[key]
            over.set()

    async def _wait_for_twins(self, key: str) -> None:
        """As the database lets one wait for a transaction that holds its key, without a thread."""
        try:
            async with asyncio.timeout(self._lock_timeout):
                while (twin := self._in_hand.get(key)) is not None:
                    await twin.wait()
        except TimeoutError:
            raise InProgress("a duplicate is being handled by this process") from None

    async def _share(self, run: Run) -> Ended:
        call = run.call
        if (queue := self._queues.get(call.queue)) is None:
            queue = self._queues[call.queue] = Batching(
                self._carry_out,
                key=lambda run: run.key,
                size=lambda _: 0,
                most=call.batch,
                most_bytes=0,
                at_once=_AT_ONCE,
            )
        try:
            return await queue(run)
        except asyncio.CancelledError:
            if run.under_way.cancel():
                raise
            raise Abandoned(run.under_way) from None

    async def close(self) -> None:
        """Take no more. What a thread has in hand is not waited for: a drain has done that."""
        queues, self._queues = self._queues, {}
        for queue in queues.values():
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await queue.close()

    async def _carry_out(self, runs: Sequence[Run]) -> Sequence[Ended | BaseException]:
        in_thread = runs[0].call.in_thread
        assert in_thread is not None
        if len(runs) > 1:
            return await in_thread(partial(self._transactions.run_all, runs))
        return [await restarting(partial(in_thread, partial(self._transactions.run_alone, runs[0])))]
