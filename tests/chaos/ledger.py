"""What was sent and what came of it: nothing lost, nothing done twice, one answer per key."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

# `make chaos` has the machine for itself, and holds times against what is promised; in `make test`, where two
# lanes share it, thrice that is no failure.
SLACK = 1.0 if os.environ.get("CHAOS_REPORT") else 3.0
# What a send may end in. No `ReplyTimeout`: a request waits for longer than any fault here lasts.
TYPED = frozenset({"BrokerUnavailable", "PublishNacked", "PublishUnknown"})


@dataclass(frozen=True)
class Figures:
    """One run in numbers.

    Attributes:
        accepted: messages that the broker confirmed, or that were answered.
        answered: of those, requests that were answered and messages that had their effect.
        lost: accepted keys without an effect.
        doubled: keys with more than one.
        different: keys whose answers differ.
        failed: sends that ended in an error, by its name.
        recovery: seconds from the end of the fault to the first effect, and to the first confirm.
    """

    accepted: int
    answered: int
    lost: int
    doubled: int
    different: int
    failed: dict[str, int]
    recovery: float | None = None

    def check(self, *, recovery: float | None = None, failures: frozenset[str] = TYPED) -> None:
        """What must hold after every fault."""
        assert self.accepted > 0, "nothing was accepted: the run proves nothing"
        assert (self.lost, self.doubled, self.different) == (0, 0, 0), self
        assert self.failed.keys() <= failures, f"errors that nobody is to see: {self.failed}"
        if recovery is not None:
            assert self.recovery is not None, "no effect after the fault"
            allowed = recovery * SLACK
            assert self.recovery <= allowed, f"{self.recovery:.1f} s to recover, {allowed:.1f} s allowed"


@dataclass
class Ledger:
    """Kept by the sender of one run; times are of the machine's monotonic clock."""

    attempted: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    replies: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    failed: Counter[str] = field(default_factory=Counter)
    accepted_at: list[float] = field(default_factory=list)

    def on_reply(self, key: str, reply: dict[str, Any]) -> None:
        self.on_accepted(key)
        self.replies[key].append(json.dumps(reply, sort_keys=True))

    def on_accepted(self, key: str) -> None:
        self.accepted[key] += 1
        self.accepted_at.append(asyncio.get_running_loop().time())

    def figures(self, effects: list[tuple[str, float]], *, healed: float | None = None) -> Figures:
        """Hold the effects, each a key and a time, against what was accepted."""
        times = Counter(key for key, _ in effects)
        done = [at for _, at in effects]
        return Figures(
            accepted=self.accepted.total(),
            answered=sum(
                len(self.replies[key]) if key in self.requests else copies * (key in times)
                for key, copies in self.accepted.items()
            ),
            lost=sum(key not in times for key in self.accepted),
            doubled=sum(count > 1 for count in times.values()),
            different=sum(len(set(replies)) > 1 for replies in self.replies.values()),
            failed=dict(self.failed),
            recovery=None if healed is None else _recovery(healed, done, self.accepted_at),
        )


def _recovery(healed: float, *kinds: list[float]) -> float | None:
    """Seconds until each kind of event has happened again."""
    first = [min((at for at in times if at > healed), default=None) for times in kinds]
    return None if None in first else max(at - healed for at in first if at is not None)
