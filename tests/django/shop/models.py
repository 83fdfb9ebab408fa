"""What the handlers of the tests write."""

from django.db import models


class Effect(models.Model):
    """One row for each time that a handler's effect happened."""

    id = models.BigAutoField(primary_key=True)
    key = models.CharField(max_length=255, db_index=True)
    note = models.TextField(blank=True)

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return f"{self.key}: {self.note}"
