"""Ids that nobody can guess, cut from blocks of the system's randomness: to ask it for each takes longer."""

from __future__ import annotations

import os

_SIZE = 16  # bytes, as a UUID has
_BLOCK = 256  # ids


def new_id() -> str:
    """An unguessable id for a message, a request or a lease: 32 hex digits, from any thread."""
    try:
        return _ids.pop()  # atomic: no two threads get the same one
    except IndexError:
        block = os.urandom(_SIZE * _BLOCK).hex()
        _ids.extend(block[i : i + 2 * _SIZE] for i in range(0, len(block), 2 * _SIZE))
        return _ids.pop()


_ids: list[str] = []
# A forked child would give out the ids that its parent gives out, too.
os.register_at_fork(after_in_child=_ids.clear)
