"""The ledger: postings and their entries."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from billing_site.database import uuid7
from metering.models.balances import MeterBalance
from metering.models.grants import CreditGrant
from subscriptions.models import Tenant
from subscriptions.models.fields import QuantityField, one_of


class Posting(models.Model):
    """What one transaction wrote to the ledger. Append-only."""

    id = models.UUIDField(primary_key=True, default=uuid7)
    kind = models.CharField(max_length=12)
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            one_of(
                "kind",
                ["record", "replay", "reverse", "open", "close", "walk", "grant", "void", "change"],
                name="posting_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class LedgerEntry(models.Model):
    """
    One signed movement. Append-only.

    `usage` consumes: from a grant, or, without one, as overage; per pool, dimension set, segment and grant, folded over the events
    of its posting; where a grant cuts a segment, what its later part had used is taken out of the one and entered in the other. `walk`
    moves consumption between grants and overage (its quantities sum to zero). `grant` credits a grant, `rescale` makes an allowance larger
    or smaller (a change of tier); `expire`, `void` and `rollover` take out what was left of one. So over a balance: used = Σ usage,
    covered = Σ (usage, walk) with a grant; over a grant: granted + rescaled = burned + expired + voided + rolled over + remaining.
    """

    class Kind(models.TextChoices):
        USAGE = "usage"
        WALK = "walk"
        GRANT = "grant"
        RESCALE = "rescale"
        EXPIRE = "expire"
        VOID = "void"
        ROLLOVER = "rollover"

    id = models.BigAutoField(primary_key=True)
    posting = models.ForeignKey(
        Posting, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="entries"
    )
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+")
    # None where a grant of the pool is credited, expires or is voided: that concerns no one period.
    balance = models.ForeignKey(
        MeterBalance, null=True, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="entries"
    )
    grant = models.ForeignKey(
        CreditGrant, null=True, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="entries"
    )
    kind = models.CharField(max_length=10, choices=Kind)
    segment_at = models.DateTimeField()
    # Empty in all but usage entries: they concern the pool, not a set.
    dimension_key = models.TextField(blank=True, default="")
    # Meter units; negative where usage was reversed or a `latest` fell.
    quantity = QuantityField()
    # How many events are folded into it.
    events = models.IntegerField(default=0)
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "ledger entries"
        constraints = [
            one_of(
                "kind",
                ["usage", "walk", "grant", "rescale", "expire", "void", "rollover"],
                name="ledger_entry_kind",
            ),
            models.CheckConstraint(
                condition=Q(balance__isnull=False) | Q(grant__isnull=False, kind__in=["grant", "expire", "void"]),
                name="ledger_entry_of_balance",
            ),
        ]
        # Every index is written with every entry: a grant's or a posting's entries are found by their balance.
        indexes = [
            models.Index(fields=["balance", "id"], name="ledger_entry_by_balance"),
            models.Index(fields=["tenant", "-id"], name="ledger_entry_by_tenant"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.quantity}"

    @property
    def pool_of(self) -> MeterBalance | CreditGrant:
        """What names the meter and the pool: the balance, or the grant where there is none."""
        found = self.balance or self.grant
        assert found is not None  # a constraint: one of them is there
        return found
