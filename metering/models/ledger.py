"""The ledger: postings, their entries, and the grants that these credit and burn."""

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from billing_site.database import uuid7
from metering.core.burndown import Grant, GrantKind
from metering.models.balances import MeterBalance
from subscriptions.models import Tenant
from subscriptions.models.fields import QuantityField, one_of


class Posting(models.Model):
    """What one transaction wrote to the ledger. Append-only."""

    id = models.UUIDField(primary_key=True, default=uuid7)
    kind = models.CharField(max_length=12)
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            one_of("kind", ["record", "replay", "reverse", "open", "close", "walk"], name="posting_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class LedgerEntry(models.Model):
    """
    One signed movement. Append-only.

    `usage` consumes: from a grant, or, without one, as overage; per pool, dimension set, segment and grant, folded over the events
    of its posting. `walk` moves consumption between grants and overage (its quantities sum to zero). `grant` credits a grant;
    `expire` takes back what was left of one. So over a balance: used = Σ usage, covered = Σ (usage, walk) with a grant; over a
    grant: granted = burned + expired + remaining.
    """

    class Kind(models.TextChoices):
        USAGE = "usage"
        WALK = "walk"
        GRANT = "grant"
        EXPIRE = "expire"

    id = models.BigAutoField(primary_key=True)
    posting = models.ForeignKey(
        Posting, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="entries"
    )
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+")
    balance = models.ForeignKey(
        MeterBalance, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="entries"
    )
    grant = models.ForeignKey(
        "CreditGrant", null=True, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="entries"
    )
    kind = models.CharField(max_length=10, choices=Kind)
    segment_at = models.DateTimeField()
    # Empty in grant, expire and walk entries: they concern the pool, not a set.
    dimension_key = models.TextField(blank=True, default="")
    # Meter units; negative where usage was reversed or a `latest` fell.
    quantity = QuantityField()
    # How many events are folded into it.
    events = models.IntegerField(default=0)
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "ledger entries"
        constraints = [one_of("kind", ["usage", "walk", "grant", "expire"], name="ledger_entry_kind")]
        # Every index is written with every entry: a grant's or a posting's entries are found by their balance.
        indexes = [
            models.Index(fields=["balance", "id"], name="ledger_entry_by_balance"),
            models.Index(fields=["tenant", "-id"], name="ledger_entry_by_tenant"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.quantity}"


class CreditGrant(models.Model):
    """Quantity that covers usage before it becomes overage. The allowance of a period is one."""

    class Kind(models.TextChoices):
        ALLOWANCE = "allowance"

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_constraint=False, related_name="grants")
    # The balance whose pool it covers.
    balance = models.ForeignKey(MeterBalance, on_delete=models.PROTECT, related_name="grants")
    kind = models.CharField(max_length=12, choices=Kind)
    # Low burns first.
    priority = models.PositiveSmallIntegerField(default=0)
    quantity = QuantityField()
    burned = QuantityField(default=0)
    expired = QuantityField(default=0)
    remaining = models.GeneratedField(
        expression=F("quantity") - F("burned") - F("expired"), output_field=QuantityField(), db_persist=True
    )
    # Covers usage that occurred in [effective_at, expires_at).
    effective_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(quantity__gte=0, burned__gte=0, expired__gte=0)
                & Q(quantity__gte=F("burned") + F("expired")),
                name="credit_grant_conserves",
            ),
            models.CheckConstraint(condition=Q(expires_at__gt=F("effective_at")), name="credit_grant_not_empty"),
            one_of("kind", ["allowance"], name="credit_grant_kind"),
            models.UniqueConstraint(
                fields=["balance"], condition=Q(kind="allowance"), name="credit_grant_one_allowance"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.quantity}"

    def as_core(self) -> Grant:
        """Return the grant, whole, as the walk reads it."""
        return Grant(
            id=self.pk,
            quantity=self.quantity,
            priority=self.priority,
            effective_at=self.effective_at,
            expires_at=self.expires_at,
            voided_at=None,
            kind=GrantKind(self.kind),
            created_at=self.created_at,
        )
