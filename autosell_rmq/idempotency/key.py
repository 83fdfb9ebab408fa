"""How a message becomes a key, and a body a fingerprint."""

from __future__ import annotations

import hashlib


def idempotency_key(vhost: str, queue: str, identity: str) -> str:
    """sha256 of (version, vhost, queue, id): 64 hex digits, whatever the id's case, length or characters.

    Each part is preceded by its length, so that no two triples share a key.
    """
    digest = hashlib.sha256(b"1")
    for part in (vhost, queue, identity):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(b"|%d|" % len(raw) + raw)
    return digest.hexdigest()


def fingerprint(body: bytes) -> str:
    """sha256 of a body, to tell a duplicate from another request under the same id."""
    return hashlib.sha256(body).hexdigest()
