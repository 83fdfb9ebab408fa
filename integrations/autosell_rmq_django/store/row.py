"""A record as it stands in the table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from autosell_rmq import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A record as it stands in the table.

    Attributes:
        live: it has not expired, by the database's clock.
        token: of the claim that holds it, or that completed it.
        note: what is noted and counts, also beneath a claim.
    """

    id: int
    state: Literal["accepted", "processing", "failed", "done"]
    fingerprint: str
    reply: bytes | None
    token: str
    has_outbox: bool
    live: bool
    expires: float
    note: Record | None

    @property
    def stands(self) -> bool:
        """It is in the way of a claim."""
        return self.live and self.state in ("processing", "done")

    @property
    def record(self) -> Record | None:
        """What it says to the core."""
        if not self.stands:
            return self.note
        return Record(
            state=self.state,
            fingerprint=self.fingerprint,
            data=self.reply,
            expires_at=dt.datetime.fromtimestamp(self.expires, dt.UTC),
        )


def row_of(found: Sequence[Any]) -> Row:
    """Of what the statements select."""
    _, id_, state, fingerprint, reply, token, has_outbox, live, expires, *noted = found
    return Row(
        id=id_,
        state=state,
        fingerprint=fingerprint,
        reply=None if reply is None else bytes(reply),
        token=token,
        has_outbox=bool(has_outbox),
        live=bool(live),
        expires=float(expires),
        note=_noted(fingerprint, *noted),
    )


def _noted(
    fingerprint: str,
    state: Literal["accepted", "failed"],
    data: bytes | None,
    live: bool | None,
    expires: float | None,
) -> Record | None:
    if not live or expires is None:
        return None
    return Record(
        state=state,
        fingerprint=fingerprint,
        data=bytes(data or b"") or None,
        expires_at=dt.datetime.fromtimestamp(float(expires), dt.UTC),
    )
