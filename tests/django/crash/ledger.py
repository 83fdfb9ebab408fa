"""What was asked, what was answered, what happened: nothing missing, nothing twice, one answer per id."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field

from autosell_rmq.message import Message
from tests.django.shop.models import Effect


@dataclass(frozen=True)
class Verdict:
    """How many ids have something wrong."""

    missing: int
    torn: int
    doubled: int
    different: int
    unanswered: int


CLEAN = Verdict(missing=0, torn=0, doubled=0, different=0, unanswered=0)


@dataclass
class Ledger:
    """The requests of one run, and the replies to them.

    Attributes:
        ids: one for each request.
        copies: how often each is sent.
    """

    ids: list[str]
    copies: int
    replies: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    def requests(self) -> list[tuple[str, dict[str, object]]]:
        """What to send: duplicates side by side or far apart; those of every tenth id with other data."""
        near: list[tuple[str, dict[str, object]]] = []
        far: list[tuple[str, dict[str, object]]] = []
        for number, identity in enumerate(self.ids):
            for copy in range(self.copies):
                value = copy if number % 10 == 0 else 0
                (near if number % 2 else far).append((identity, {"id": identity, "value": value}))
        random.shuffle(far)
        both = [near, far]
        return [both[n % 2].pop() for n in range(2 * min(map(len, both)))] + near + far

    def on_reply(self, message: Message) -> None:
        self.replies[str(message.correlation_id)].append(message.body)

    @property
    def answered(self) -> int:
        """Requests that have a reply."""
        return sum(min(len(self.replies[identity]), self.copies) for identity in self.ids)

    @property
    def is_complete(self) -> bool:
        return self.answered == len(self.ids) * self.copies

    def verdict(self) -> Verdict:
        """Look at the database."""
        runs: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for key, note in Effect.objects.values_list("key", "note"):
            run, half = note.split()
            runs[key][run].add(half)
        return Verdict(
            missing=sum(identity not in runs for identity in self.ids),
            torn=sum(len(halves) != 2 for each in runs.values() for halves in each.values()),
            doubled=sum(len(each) > 1 for each in runs.values()),
            different=sum(len(set(bodies)) > 1 for bodies in self.replies.values()),
            unanswered=len(self.ids) * self.copies - self.answered,
        )
