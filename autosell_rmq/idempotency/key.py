"""How a message becomes a key, and a body a fingerprint."""

from __future__ import annotations

import hashlib


def idempotency_key(vhost: str, queue: str, identity: str) -> str:
    """sha256 of (version, vhost, queue, id): 64 hex digits, whatever the id's case, length or characters.

    Each part is preceded by its length, so that no two triples share a key.
    """
    return Keys(vhost, queue).of(identity)


class Keys:
    """`idempotency_key` for many ids of one queue."""

    def __init__(self, vhost: str, queue: str) -> None:
        self._digest = hashlib.sha256(b"1")
        for part in (vhost, queue):
            self._digest.update(_counted(part))

    def of(self, identity: str) -> str:
        """The key of an id."""
        digest = self._digest.copy()
        digest.update(_counted(identity))
        return digest.hexdigest()


def _counted(part: str) -> bytes:
    raw = part.encode("utf-8", "surrogatepass")
    return b"|%d|%b" % (len(raw), raw)


def fingerprint(body: bytes) -> str:
    """sha256 of a body, to tell a duplicate from another request under the same id."""
    return hashlib.sha256(body).hexdigest()
