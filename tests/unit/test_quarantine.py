"""When a consumer goes into quarantine, what keeps it there, and when it leaves."""

from collections.abc import Callable
from typing import Literal

import pytest

from autosell_rmq.config import HandlerOptions, Settings
from autosell_rmq.consumer.quarantine import Quarantine
from autosell_rmq.message import DELIVERIES, Message, Properties
from tests.support.waiting import eventually

PREFETCH = 3


def quorum(count: int | None) -> Message:
    return Message(queue="q", body=b"", redelivered=count is not None, delivery_count=count)


def classic(count: int, *, redelivered: bool = False) -> Message:
    wire = Properties(headers={DELIVERIES: count})
    return Message(queue="q", body=b"", redelivered=redelivered, properties=wire)


class Ward:
    """A quarantine, and the prefetches that it asked for."""

    def __init__(self, kind: Literal["quorum", "classic"] = "quorum", prefetch: int = PREFETCH) -> None:
        options = HandlerOptions.resolve("q", Settings(), prefetch=prefetch, queue_type=kind)
        self.prefetches: list[int] = []
        self.quarantine = Quarantine(options, self._change)

    async def _change(self, prefetch: int, detached: Callable[[], None]) -> None:
        self.prefetches.append(prefetch)
        detached()

    async def see(self, *messages: Message) -> None:
        """Each comes and comes to its end, one after the other."""
        for message in messages:
            self.quarantine.came(message)
            await eventually(lambda: not self.quarantine.is_changing)
            self.quarantine.over()
            await eventually(lambda: not self.quarantine.is_changing)


@pytest.mark.parametrize("count", [None, 0, 9, 20])
async def test_other_counts_begin_nothing(count: int | None) -> None:
    ward = Ward()
    await ward.see(*[quorum(count)] * 10)

    assert ward.prefetches == []


@pytest.mark.parametrize("count", [10, 19])
async def test_a_suspect_begins_it_and_as_many_others_as_the_prefetch_end_it(count: int) -> None:
    ward = Ward()
    await ward.see(quorum(count))
    assert ward.prefetches == [1]

    await ward.see(quorum(None))
    assert ward.prefetches == [1]

    await ward.see(quorum(3))
    assert ward.prefetches == [1, PREFETCH]


async def test_each_suspect_makes_it_longer() -> None:
    ward = Ward()
    await ward.see(quorum(10), quorum(None), quorum(12), quorum(None))
    assert ward.prefetches == [1]

    await ward.see(quorum(None))
    assert ward.prefetches == [1, PREFETCH]


async def test_on_a_classic_queue_our_count_decides_and_what_is_only_counted_begins_nothing() -> None:
    ward = Ward("classic")
    await ward.see(classic(10, redelivered=True))
    assert ward.prefetches == []

    await ward.see(classic(10), classic(11, redelivered=True), classic(0), classic(0))
    assert ward.prefetches == [1, PREFETCH]


async def test_with_a_prefetch_of_one_there_is_nothing_to_change() -> None:
    ward = Ward(prefetch=1)
    await ward.see(quorum(10), quorum(None))

    assert ward.prefetches == []
