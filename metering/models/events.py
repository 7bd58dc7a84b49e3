"""Usage events: their identity, what was reported, and what a replay or a reversal counted of them."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from billing_site.database import UnboundedDecimalField
from subscriptions.models.fields import QuantityField, one_of


class UsageEvent(models.Model):
    """
    One reported fact, never edited. Partitioned by month of `recorded_at`.

    The table's real key is (subject, id, recorded_at), made in the migration; ids are UUIDv7, so that a subject's events lie
    together in the order of arrival.
    """

    id = models.UUIDField(primary_key=True)
    # The tenant's code as it was sent; kept when no such tenant exists yet.
    subject = models.CharField(max_length=100)
    source = models.CharField(max_length=255)
    event_id = models.CharField(max_length=255)
    type = models.CharField(max_length=200)
    # When it counts, in the tenant's time: as sent, or the moment of receipt.
    occurred_at = models.DateTimeField()
    # Whether the time was sent (then it is content) or is the moment of receipt.
    time_was_sent = models.BooleanField()
    # When we learned of it, by the database's clock.
    recorded_at = models.DateTimeField(db_default=Now())
    data = models.JSONField()
    # What it was counted as: [[balance, dimension key, quantity], …], in a unique count with the value's digest as a fourth. Its own
    # quantity, also where a value of all events moved by less. Empty for an unmatched event; a later replay or reversal stands in EventCount.
    counts = models.JSONField(default=list)
    posting_id = models.UUIDField(null=True)
    # Why nothing was counted; empty where something was.
    unmatched_code = models.CharField(max_length=40, blank=True, default="")

    class Meta:
        indexes = [
            models.Index(fields=["subject", "-occurred_at", "-id"], name="usage_event_by_time"),
            models.Index(
                fields=["unmatched_code", "id"], name="usage_event_unmatched", condition=~Q(unmatched_code="")
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subject}/{self.source}/{self.event_id}"


class EventKey(models.Model):
    """The identity of an event, for ever: a key is never counted twice, whatever its time. Never pruned."""

    pk = models.CompositePrimaryKey("subject", "digest")
    subject = models.CharField(max_length=100)
    # 16 bytes of source and event id.
    digest = models.BinaryField(max_length=16)
    # 16 bytes of the content, by which a repeat is told from a conflict.
    fingerprint = models.BinaryField(max_length=16)
    event_id = models.UUIDField()
    # What the writing transaction had chosen before it began: tells own writes from others' after an ambiguous COMMIT.
    posting_id = models.UUIDField()

    def __str__(self) -> str:
        return f"{self.subject} {bytes(self.digest).hex()}"


class EventCount(models.Model):
    """What a replay counted, or a reversal took back: the event itself stays as it is."""

    class Kind(models.TextChoices):
        REPLAY = "replay"
        REVERSAL = "reversal"

    event_id = models.UUIDField()
    kind = models.CharField(max_length=10, choices=Kind)
    balance = models.ForeignKey("MeterBalance", on_delete=models.PROTECT, db_constraint=False, related_name="+")
    # The dimension set as canonical JSON.
    dimension_key = models.TextField()
    # Negative in a reversal.
    quantity = QuantityField()
    # In a unique count, the digest of the value, in hexadecimal; else empty.
    seen = models.TextField(blank=True, default="")
    # The clamped price of the event where its charge clamps per event; negative in a reversal.
    clamped = UnboundedDecimalField(default=0)
    posting_id = models.UUIDField()
    reason = models.TextField(blank=True, default="")
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["event_id", "kind", "balance"], name="event_count_once"),
            one_of("kind", ["replay", "reversal"], name="event_count_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.event_id}"
