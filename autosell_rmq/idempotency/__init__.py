"""Effects once: a key per request, and stores that remember what each key ended in."""

from autosell_rmq.idempotency.batching import Apart, Batching
from autosell_rmq.idempotency.key import Keys, fingerprint, idempotency_key
from autosell_rmq.idempotency.lease import Claim, LeaseStore
from autosell_rmq.idempotency.memory import MemoryStore
from autosell_rmq.idempotency.redis import RedisStore
from autosell_rmq.idempotency.store import Abandoned, Call, IdempotencyStore, Note, Record, Stored

__all__ = [
    "Abandoned",
    "Apart",
    "Batching",
    "Call",
    "Claim",
    "IdempotencyStore",
    "Keys",
    "LeaseStore",
    "MemoryStore",
    "Note",
    "Record",
    "RedisStore",
    "Stored",
    "fingerprint",
    "idempotency_key",
]
