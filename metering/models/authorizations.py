"""What the gate keeps: holds of quantity, what was used within rolling windows, and the row that orders a capped tenant's decisions."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from billing_site.database import UnboundedDecimalField
from metering.models.balances import MeterBalance
from subscriptions.models import Meter, Tenant
from subscriptions.models.fields import Due, QuantityField, one_of


class Authorization(Due):
    """
    Quantity held of a balance until it is settled, released or expired. Due: the expiry of a hold that nobody ends.

    A denial is no row. Whoever ends or extends a hold locks this row, then its balance, in which `held` moves with it.
    """

    class Status(models.TextChoices):
        HELD = "held"
        SETTLED = "settled"
        RELEASED = "released"
        EXPIRED = "expired"

    id = models.UUIDField(primary_key=True)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="authorizations"
    )
    balance = models.ForeignKey(
        MeterBalance, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="authorizations"
    )
    # The gateway's own, by which a repeat is told: unique for the tenant, for ever.
    key = models.CharField(max_length=255)
    # 16 bytes of what was asked for, by which a repeat is told from a conflict.
    fingerprint = models.BinaryField(max_length=16)
    # The dimension set of the call as canonical JSON.
    dimension_key = models.TextField(blank=True, default="")
    # Meter units held, extensions included; stays as it is when the hold ends.
    quantity = QuantityField()
    # How much of it no grant would have covered when it was held.
    overage_quantity = QuantityField(default=0)
    # What that would cost, in the tenant's currency, never below 0: the part of a spend cap that it holds.
    amount_precise = UnboundedDecimalField(default=0)
    # allow, allow_overage or degrade.
    decision = models.CharField(max_length=13)
    # Tenant time, both. The first is when usage settled by it occurs.
    authorized_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    status = models.CharField(max_length=8, choices=Status)
    # How the hold ended: settled, released or expired; empty while it is held. An expired hold may be settled later, and stays expired here.
    freed_by = models.CharField(max_length=8, blank=True, default="")
    # What was recorded by settling, in the meter of the balance, and the event that it was.
    settled_quantity = QuantityField(null=True, blank=True)
    settled_event = models.UUIDField(null=True, blank=True)
    # 16 bytes of what it was settled with.
    settled_fingerprint = models.BinaryField(max_length=16, null=True)
    # What the transaction that wrote last had chosen before it began: tells own writes from others' after an ambiguous COMMIT.
    written_by = models.UUIDField()
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "key"], name="authorization_key"),
            one_of("status", ["held", "settled", "released", "expired"], name="authorization_status"),
            models.CheckConstraint(
                condition=Q(
                    quantity__gt=0,
                    overage_quantity__gte=0,
                    amount_precise__gte=0,
                    expires_at__gt=models.F("authorized_at"),
                ),
                name="authorization_positive",
            ),
            models.CheckConstraint(
                condition=Q(status="held", freed_by="", due_at__isnull=False)
                | (~Q(status="held") & ~Q(freed_by="") & Q(due_at__isnull=True)),
                name="authorization_due_while_held",
            ),
            models.CheckConstraint(
                condition=Q(status="settled", settled_fingerprint__isnull=False)
                | (~Q(status="settled") & Q(settled_fingerprint__isnull=True, settled_quantity__isnull=True)),
                name="authorization_settled_with",
            ),
        ]
        indexes = [
            models.Index(fields=["due_at"], name="authorization_due", condition=Q(due_at__isnull=False)),
            models.Index(fields=["balance", "due_at"], name="authorization_held", condition=Q(due_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.status} {self.quantity} ({self.key})"


class WindowBucket(models.Model):
    """
    What was used of a pool within one sixtieth of a rolling window, over all periods. Kept while it counts.

    Written with the posting that counts an event, under its balance's lock; only for pools whose version has such a window.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+")
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+")
    # As in MeterBalance.
    pool = models.TextField(blank=True, default="")
    window_seconds = models.PositiveIntegerField()
    # Its first instant, by when usage occurred.
    bucket_at = models.DateTimeField()
    # Meter units.
    quantity = QuantityField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "meter", "pool", "window_seconds", "bucket_at"], name="window_bucket_once"
            ),
            models.CheckConstraint(condition=Q(quantity__gte=0, window_seconds__gte=60), name="window_bucket_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} from {self.bucket_at} ({self.window_seconds} s)"


class TenantSpend(models.Model):
    """
    Orders the gate's decisions for a tenant with a spend cap: who holds its lock decides, over all of the tenant's pools.

    Made when the tenant is first asked about. Recording usage does not lock it, nor does anything of a tenant without a cap.
    """

    tenant = models.OneToOneField(Tenant, primary_key=True, on_delete=models.PROTECT, related_name="spend")

    def __str__(self) -> str:
        return f"spend of {self.tenant_id}"
