"""Records that serve every app: repeated requests, who did what, and what the world is to be told."""

from django.db import models
from django.db.models.functions import Now

from billing_site.database import uuid7
from subscriptions.models.tenants import Tenant


class IdempotencyKey(models.Model):
    """The answer to a POST that moved money, kept 30 days so that a repeat gets the same one."""

    key = models.CharField(max_length=255, unique=True)
    # SHA-256 of method, path and body: the same key for anything else is a conflict.
    digest = models.BinaryField(max_length=32)
    status = models.PositiveSmallIntegerField()
    answer = models.JSONField()
    # Wall time (the database's).
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["recorded_at"], name="idempotency_key_by_age")]

    def __str__(self) -> str:
        return self.key


class AuditEntry(models.Model):
    """Who changed what, from what to what, and why. Append-only by trigger."""

    # "staff:<user name>", "key:<prefix>", "shell:<name>" or "system".
    actor = models.CharField(max_length=200)
    action = models.CharField(max_length=100)
    object_type = models.CharField(max_length=100)
    object_id = models.CharField(max_length=200)
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    reason = models.TextField(blank=True, default="")
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "audit entries"
        indexes = [models.Index(fields=["object_type", "object_id"], name="audit_entry_by_object")]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.object_type} {self.object_id}"


class OutboxMessage(models.Model):
    """Something the world is to be told, written in the transaction in which it happened."""

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="outbox")
    # "invoice.finalized", "overage.started", …
    type = models.CharField(max_length=100)
    payload = models.JSONField()
    recorded_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.type} {self.public_id}"
