"""Deliveries in hand: begun at once, in slices, and waited for."""

import asyncio
import time
from typing import cast

import pytest

from autosell_rmq.broker import Delivery
from autosell_rmq.consumer import hand as hand_module
from autosell_rmq.consumer.hand import Hand
from tests.support.waiting import PATIENCE


class Story:
    """What was begun and ended, in order; each delivery is a number here."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.may_end = asyncio.Event()
        self.hand = Hand(self.take)

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.hand.put(cast("Delivery", number))

    async def take(self, delivery: Delivery) -> None:
        self.begun.append(cast("int", delivery))
        await self.act()
        self.ended.append(cast("int", delivery))

    async def act(self) -> None:
        await self.may_end.wait()


async def test_what_has_come_is_begun_in_its_order_at_the_next_turn() -> None:
    story = Story()
    story.put(1, 2, 3)
    assert (story.begun, len(story.hand)) == ([], 3)
    await asyncio.sleep(0)
    assert (story.begun, len(story.hand)) == ([1, 2, 3], 3)

    story.may_end.set()
    assert await story.hand.settled()
    assert (story.ended, len(story.hand)) == ([1, 2, 3], 0)


async def test_what_waits_for_nothing_needs_no_further_turn() -> None:
    story = Story()
    story.may_end.set()
    story.put(1, 2)
    await asyncio.sleep(0)
    assert (story.ended, len(story.hand)) == ([1, 2], 0)


async def test_handlers_that_compute_let_the_loop_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_module, "_SLICE", 0.0)  # each is longer than that

    class Computing(Story):
        async def act(self) -> None:
            turns.append(len(self.begun))

    turns: list[int] = []
    story = Computing()
    story.put(1, 2, 3)
    seen = []
    while len(turns) < 3:
        await asyncio.sleep(0)
        seen.append(len(turns))
    assert seen == [1, 2, 3]


async def test_one_slice_is_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_module, "_SLICE", 0.02)

    class Computing(Story):
        async def act(self) -> None:
            time.sleep(0.005)  # noqa: ASYNC251 - it computes

    story = Computing()
    story.put(*range(40))
    await asyncio.sleep(0)
    assert 1 <= len(story.begun) <= 5
    await story.hand.settled()
    assert len(story.ended) == 40


async def test_one_that_ends_the_program_leaves_the_others_to_be_begun() -> None:
    class Ending(Story):
        async def act(self) -> None:
            counted.append(len(self.hand))
            if self.begun == [1]:
                raise SystemExit

    counted: list[int] = []
    story = Ending()
    loop = asyncio.get_running_loop()
    callbacks = loop._ready  # type: ignore[attr-defined]
    story.put(1, 2)
    begin = callbacks.pop()  # as the loop does it
    with pytest.raises(SystemExit):
        begin._callback()
    await story.hand.settled()
    assert (story.begun, story.ended, counted, len(story.hand)) == ([1, 2], [2], [2, 1], 0)


async def test_the_end_is_waited_for_no_longer_than_asked() -> None:
    story = Story()
    story.put(1)
    assert not await story.hand.settled(0.01)
    story.hand.cancel()
    assert await story.hand.settled(PATIENCE)
    assert (story.begun, story.ended, len(story.hand)) == ([1], [], 0)


async def test_what_comes_while_the_end_is_waited_for_is_waited_for_too() -> None:
    story = Story()
    story.put(1)
    waiting = asyncio.create_task(story.hand.settled())
    await asyncio.sleep(0)
    story.put(2)
    story.may_end.set()
    assert await waiting
    assert sorted(story.ended) == [1, 2]
