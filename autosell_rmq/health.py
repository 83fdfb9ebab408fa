"""How an app is: what a probe, a page or an operator wants to know of it at this moment."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerHealth:
    """One queue's consumer.

    Attributes:
        queue: what it consumes.
        attached: whether messages can come.
        in_hand: deliveries that are not settled, those that wait for their start included.
        last_delivery: when the last message came; None before the first one.
        last_settled: when the last one was settled.
        oldest_running: seconds that the longest-running handler has run for; None while none runs.
        problem: why it is not attached.
    """

    queue: str
    attached: bool
    in_hand: int
    last_delivery: datetime | None
    last_settled: datetime | None
    oldest_running: float | None
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """An app at one moment; see `RabbitMQ.health`.

    Attributes:
        ready: whether it can do what it was started for.
        problems: why it cannot, in words; they name queues and hosts, and hold no secret.
        connected: whether there is a connection to publish over.
        blocked: whether the broker takes no messages (a memory or disk alarm).
        reconnects: how often a connection was lost and opened again.
        loop_lag: by how many seconds the event loop is late; 0.0 while nothing is consumed.
        consumers: of each queue, in the order of registration; empty while nothing is consumed.
    """

    ready: bool
    problems: tuple[str, ...]
    connected: bool
    blocked: bool
    reconnects: int
    loop_lag: float
    consumers: tuple[ConsumerHealth, ...]

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold: times in ISO 8601."""
        return asdict(self, dict_factory=_plain)


def _plain(items: list[tuple[str, object]]) -> dict[str, object]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in items}
