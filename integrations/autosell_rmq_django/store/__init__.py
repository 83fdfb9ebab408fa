"""The idempotency store in Django's database: exactly-once effect for sync handlers, leases for others."""

from autosell_rmq_django.store.database import DatabaseStore

__all__ = ["DatabaseStore"]
