"""From an HTTP request to a message: the ``Idempotency-Key`` header, the answer 202, and the status route."""

from autosell_rmq_fastapi.requests.accepted import Accept, AcceptedRequests
from autosell_rmq_fastapi.requests.answers import Accepted, Done, Failed, Pending, Reply
from autosell_rmq_fastapi.requests.key import IdempotencyKey, idempotency_key

__all__ = [
    "Accept",
    "Accepted",
    "AcceptedRequests",
    "Done",
    "Failed",
    "IdempotencyKey",
    "Pending",
    "Reply",
    "idempotency_key",
]
