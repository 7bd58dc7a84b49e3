"""Three tables: the events, a balance for each subject, and what is held of it."""

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
    held = models.DecimalField(max_digits=24, decimal_places=6, default=0)

    def __str__(self) -> str:
        return self.subject

    def count(self, quantity: int) -> None:
        """Add usage."""
        self.used += quantity
        self.overage = max(self.used - self.included, 0)


class NaiveHold(models.Model):
    """A quantity held of a balance."""

    balance = models.ForeignKey(NaiveBalance, on_delete=models.CASCADE)
    key = models.CharField(max_length=255)
    quantity = models.DecimalField(max_digits=24, decimal_places=6)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["balance", "key"], name="naive_hold_once")]

    def __str__(self) -> str:
        return self.key
