"""Messages of one key in one process: one at a time, and the next as soon as that has ended."""

import asyncio

import pytest

from autosell_rmq import InProgress
from autosell_rmq.pipeline.twins import Twins
from tests.support.waiting import PATIENCE


async def test_the_next_begins_as_soon_as_one_has_ended() -> None:
    twins = Twins(2 * PATIENCE)
    at_work = most = 0

    async def one() -> None:
        nonlocal at_work, most
        if not twins.begins("key"):
            await twins.turn("key")
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1
        twins.end("key")

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(one() for _ in range(20)))
    assert most == 1


async def test_patience_ends() -> None:
    twins = Twins(0.01)
    assert twins.begins("key")
    assert twins.begins("another")
    with pytest.raises(InProgress):
        await twins.turn("key")
    twins.end("key")
    assert twins.begins("key")


async def test_one_that_gives_up_takes_nothing_with_it() -> None:
    twins = Twins(PATIENCE)
    assert twins.begins("key")
    waiting = asyncio.create_task(twins.turn("key"))
    other = asyncio.create_task(twins.turn("key"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    twins.end("key")
    async with asyncio.timeout(PATIENCE):
        await other
    twins.end("key")
