"""Counters of what was handled, and the line that the log shows of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Statistics:
    """Counts since the start; read them at any time.

    Attributes:
        handled: runs of a handler that ended in a stored result.
        duplicates: answered from the store without a run.
        conflicts: duplicates whose body was another one.
        without_id: handled without a claim since they carried no id.
        busy: sent to the delay line because their twin was being handled.
        retried: sent to the delay line after a failure.
        dead_lettered: put into the DLQ.
        replies: sent and confirmed.
        replies_refused: not sent, since `reply_to` named a queue of this app or none of ``reply_to_allowed``.
        replies_lost: nobody was left to take the reply.
    """

    handled: int = 0
    duplicates: int = 0
    conflicts: int = 0
    without_id: int = 0
    busy: int = 0
    retried: int = 0
    dead_lettered: int = 0
    replies: int = 0
    replies_refused: int = 0
    replies_lost: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counters by name."""
        return asdict(self)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.as_dict().items())
