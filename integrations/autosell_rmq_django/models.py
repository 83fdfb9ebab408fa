"""What the app keeps in the database: the outcome of each message, and messages that wait to be sent."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class IdempotencyRecord(models.Model):
    """One key: being handled, done with its stored result, or no more than noted.

    An exactly-once handler's row becomes visible with its effect, in one commit. A lease's row is there
    while the handler runs. A row counts until it `expires`, on the database's clock: a claim with its lease,
    a result with its ttl. A note (accepted, failed) lies beneath a claim, which may end without a result.
    Only the store writes it, in UTC.
    """

    class State(models.TextChoices):
        ACCEPTED = "accepted", _("accepted")
        PROCESSING = "processing", _("being handled")
        FAILED = "failed", _("failed")
        DONE = "done", _("done")

    id = models.BigAutoField(primary_key=True)
    key = models.CharField(_("key"), max_length=64)  # sha256 in hex, so no collation matters
    queue = models.CharField(_("queue"), max_length=255)
    correlation_id = models.TextField(_("correlation id"), blank=True)
    fingerprint = models.CharField(_("fingerprint"), max_length=64)
    state = models.CharField(_("state"), max_length=10, choices=State)
    attempt = models.PositiveIntegerField(_("attempt"), default=1)
    reply = models.BinaryField(_("result"), null=True)  # bytes: what JSON columns refuse must come back too
    lease_token = models.CharField(_("claimed by"), max_length=64)
    has_outbox = models.BooleanField(_("has messages to send"), default=False)
    note_state = models.CharField(_("noted as"), max_length=10, choices=State, blank=True, db_default="")
    note_data = models.BinaryField(_("note"), null=True)
    note_expires = models.DateTimeField(_("note counts until"), null=True)
    created = models.DateTimeField(_("first seen"), auto_now_add=True)
    completed = models.DateTimeField(_("completed"), null=True)
    expires = models.DateTimeField(_("counts until"))

    class Meta:
        verbose_name = _("idempotency record")
        verbose_name_plural = _("idempotency records")
        ordering = ("-id",)
        # Not `unique=True` and `db_index=True`: on PostgreSQL each would be a second index, for LIKE.
        constraints = [models.UniqueConstraint(fields=["key"], name="autosell_rmq_key")]
        indexes = [
            models.Index(fields=["expires"], name="autosell_rmq_expires"),
            models.Index(fields=["queue"], name="autosell_rmq_queue"),
        ]

    def __str__(self) -> str:
        return f"{self.queue} {self.correlation_id}"


class OutboxMessage(models.Model):
    """A message that was written in the transaction of its cause, and is sent after the commit.

    Rows are sent in the order of their ids; those with one `ordering_key` never overtake each other.
    """

    id = models.BigAutoField(primary_key=True)
    record = models.ForeignKey(
        IdempotencyRecord,
        verbose_name=_("written by"),
        null=True,
        on_delete=models.SET_NULL,
        related_name="outbox",
        db_constraint=False,
    )
    exchange = models.CharField(_("exchange"), max_length=255, blank=True)
    exchange_type = models.CharField(_("exchange type"), max_length=20, blank=True)
    routing_key = models.CharField(_("routing key or queue"), max_length=255)
    body = models.BinaryField(_("body"))
    options = models.JSONField(_("options"), default=dict)  # of the sending call, as JSON
    correlation_id = models.CharField(_("correlation id"), max_length=255)
    message_id = models.CharField(_("message id"), max_length=255)
    ordering_key = models.CharField(_("ordering key"), max_length=255, blank=True)
    created = models.DateTimeField(_("written"), auto_now_add=True)
    available = models.DateTimeField(_("not to be sent before"), db_index=True)
    attempts = models.PositiveIntegerField(_("failed attempts"), default=0)
    error = models.TextField(_("last error"), blank=True)
    sent = models.DateTimeField(_("sent"), null=True)

    class Meta:
        verbose_name = _("outbox message")
        verbose_name_plural = _("outbox messages")
        ordering = ("id",)
        constraints = [models.UniqueConstraint(fields=["message_id"], name="autosell_rmq_message_id")]
        # The unsent ones (no `sent`) in their order, and those sent before some time. No partial index: not
        # every database has them.
        indexes = [models.Index(fields=["sent", "id"], name="autosell_rmq_sent")]

    def __str__(self) -> str:
        return f"{self.exchange or '(queue)'} {self.routing_key} {self.message_id}"
