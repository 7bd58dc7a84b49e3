"""Two tables: the events, and a balance for each subject and meter."""

from django.db import models


class NaiveEvent(models.Model):
    """One event."""

    subject = models.CharField(max_length=100)
    source = models.CharField(max_length=255)
    event_id = models.CharField(max_length=255)
    type = models.CharField(max_length=200)
    time = models.DateTimeField()
    data = models.JSONField()
    recorded_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["subject", "source", "event_id"], name="naive_event_once")]

    def __str__(self) -> str:
        return self.event_id


class NaiveBalance(models.Model):
    """What a subject has used, and how much of it is beyond what is included."""

    subject = models.CharField(max_length=100, unique=True)
    included = models.DecimalField(max_digits=24, decimal_places=6)
    used = models.DecimalField(max_digits=24, decimal_places=6, default=0)
    overage = models.DecimalField(max_digits=24, decimal_places=6, default=0)

    def __str__(self) -> str:
        return self.subject

    def count(self, quantity: int) -> None:
        """Add usage."""
        self.used += quantity
        self.overage = max(self.used - self.included, 0)
