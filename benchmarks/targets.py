"""The numbers to reach, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.report import Found

CPU, SERVER, RATE, P50, WALL, RSS = "cpu_us", "server_cpu_us", "rate", "p50_us", "wall_us", "rss_mb"
OURS, AIO_PIKA, FASTSTREAM, C = "autosell-rmq", "aio-pika", "FastStream", "C, librabbitmq"
RPC_PATTERN = "aio-pika, its JSON RPC"
LEASE = "autosell-rmq, Django, lease mode"
ALONE = "autosell-rmq, Django, a claim and a completion each by itself"
BATCH = "autosell-rmq, Django, batch=50"
ONE_THREAD = "autosell-rmq, Django, batch=1, one thread"

type Value = float | None
type Verdict = Literal["reached", "missed", "not measured"]


@dataclass(frozen=True, slots=True)
class Target:
    """One number: what is measured against what, and the bound.

    Attributes:
        form: of the numbers, such as ``{:.1f} µs``.
        least: the bound is the least that will do; otherwise the most.
    """

    work: str
    what: str
    form: str
    bound: float
    least: bool
    measured: Callable[[Found], Value]

    def verdict(self, found: Found) -> tuple[str, Verdict]:
        """What was measured, in words, and whether that will do."""
        value = self.measured(found)
        if value is None:
            return "–", "not measured"
        reached = value >= self.bound if self.least else value <= self.bound
        return self.form.format(value), "reached" if reached else "missed"

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"{'≥' if self.least else '≤'} {self.form.format(self.bound)}"


def _value(work: str, row: str, field: str) -> Callable[[Found], Value]:
    return lambda found: found.get(work, row, field)


def _ratio(work: str, over: tuple[str, str], under: tuple[str, str]) -> Callable[[Found], Value]:
    def measured(found: Found) -> Value:
        a, b = found.get(work, *over), found.get(work, *under)
        return a / b if a is not None and b else None

    return measured


def _most(work: str, what: str, form: str, bound: float, row: str, field: str) -> Target:
    return Target(work, what, form, bound, False, _value(work, row, field))


def _times(
    work: str, what: str, bound: float, over: tuple[str, str], under: tuple[str, str], *, least: bool = True
) -> Target:
    return Target(work, what, "{:.2f}x", bound, least, _ratio(work, over, under))


TARGETS = (
    _most("consume", "CPU of a message consumed", "{:.1f} µs", 15, OURS, CPU),
    _times("consume", "less CPU than FastStream", 10, (FASTSTREAM, CPU), (OURS, CPU)),
    _times("consume", "less CPU than aio-pika", 6, (AIO_PIKA, CPU), (OURS, CPU)),
    _times("consume", "rate beside FastStream", 6, (OURS, RATE), (FASTSTREAM, RATE)),
    _most("publish", "CPU of a message published", "{:.1f} µs", 10, OURS, CPU),
    _times("publish", "less CPU than FastStream", 12, (FASTSTREAM, CPU), (OURS, CPU)),
    _times("publish", "rate beside FastStream", 3, (OURS, RATE), (FASTSTREAM, RATE)),
    _most("rpc", "CPU of a request, client", "{:.1f} µs", 40, OURS, CPU),
    _most("rpc", "CPU of a request, server", "{:.1f} µs", 40, OURS, SERVER),
    _times("rpc", "less CPU than FastStream, client", 20, (FASTSTREAM, CPU), (OURS, CPU)),
    _times("rpc", "less CPU than FastStream, server", 20, (FASTSTREAM, SERVER), (OURS, SERVER)),
    _times("rpc", "rate beside FastStream", 18, (OURS, RATE), (FASTSTREAM, RATE)),
    _times("rpc", "rate beside a C client that confirms and persists", 0.4, (OURS, RATE), (C, RATE)),
    _times(
        "rpc_sequential", "p50 beside aio-pika's pattern", 0.6, (OURS, P50), (RPC_PATTERN, P50), least=False
    ),
    _most("django_store", "wall of a message, 50 in flight", "{:.0f} µs", 80, LEASE, WALL),
    _times("django_store", "less wall than each by itself", 10, (ALONE, WALL), (LEASE, WALL)),
    _times("exactly_once", "batch=50 beside batch=1, one thread", 3.5, (BATCH, RATE), (ONE_THREAD, RATE)),
    _most("memory", "resident memory of a noop worker", "{:.0f} MB", 45, OURS, RSS),
)
