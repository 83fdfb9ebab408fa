"""The admin: idempotency records and the outbox, to look at, to purge, and to send again."""

from autosell_rmq_django.admin.outbox import OutboxMessageAdmin
from autosell_rmq_django.admin.records import IdempotencyRecordAdmin

__all__ = ["IdempotencyRecordAdmin", "OutboxMessageAdmin"]
