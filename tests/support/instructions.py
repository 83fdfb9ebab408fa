"""What code costs, as a number that no busy machine changes: the instructions that Python executes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import get_ident
from types import CodeType

_TOOL = 4  # of the ids that no known tool claims (debugger 0, coverage 1, profiler 2, optimizer 5)


class Counter:
    """Counts what this thread executes while its block runs; others, which other tests left, do not count.

    Attributes:
        executed: instructions so far.
    """

    def __init__(self) -> None:
        self.executed = 0
        self._thread = get_ident()

    def one(self, code: CodeType, offset: int) -> None:
        """Called by Python before each of them, whatever the thread."""
        if get_ident() == self._thread:
            self.executed += 1


@contextmanager
def counting() -> Generator[Counter]:
    """Count what the block executes; garbage is collected before and not in it, as it runs finalizers."""
    counter = Counter()
    monitoring = sys.monitoring
    monitoring.use_tool_id(_TOOL, "instructions")
    monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, counter.one)
    gc.collect()
    gc.disable()
    monitoring.set_events(_TOOL, monitoring.events.INSTRUCTION)
    try:
        yield counter
    finally:
        monitoring.set_events(_TOOL, 0)
        gc.enable()
        monitoring.free_tool_id(_TOOL)


def each(work: Callable[[int], None], *, few: int = 20, many: int = 120) -> float:
    """Instructions that one more piece of `work` takes: what is done once, before and after, cancels out.

    Args:
        work: does so many pieces.
        few: pieces of the first run that is counted.
        many: pieces of the second.
    """
    work(few)  # what is made on first use is made
    counts = []
    for pieces in (few, many):
        with counting() as counter:
            work(pieces)
        counts.append(counter.executed)
    return (counts[1] - counts[0]) / (many - few)
