"""Thresholds that were reached, a tenant's own, and when to look at them again."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from billing_site.database import UnboundedDecimalField, uuid7
from subscriptions.models import BillingPeriod, Meter, Tenant
from subscriptions.models.fields import Due, due_index, one_of


class ThresholdCrossing(models.Model):
    """
    That a threshold was reached, written by the transaction in which it was. Only `rearmed_at` is ever set later.

    There is one of a threshold in a period while it is not re-armed, or one for life: the unique constraints are what makes it be told of once.
    """

    class Once(models.TextChoices):
        PERIOD = "period"
        LIFE = "life"

    class Cause(models.TextChoices):
        # Events that were recorded, replayed or reversed.
        USAGE = "usage"
        # A grant was made, voided or moved.
        GRANT = "grant"
        # A grant began or ended by itself.
        TIME = "time"

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="crossings")
    # The pool's; both empty for a threshold of the tenant, over all meters.
    meter = models.ForeignKey(Meter, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    pool = models.TextField(blank=True, default="")
    # The period of the usage that reached it.
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="+")
    # Names it among the thresholds of its owner: "percent:80:period", "amount:50:life".
    threshold = models.CharField(max_length=60)
    once = models.CharField(max_length=6, choices=Once)
    cause = models.CharField(max_length=5, choices=Cause)
    # Where the line lay, and what had come to it: meter units, or an amount in the tenant's currency to 18 decimals.
    line = UnboundedDecimalField()
    value = UnboundedDecimalField()
    # Tenant time.
    crossed_at = models.DateTimeField()
    recorded_at = models.DateTimeField(db_default=Now())
    # Tenant time; set when a grant has lifted a percentage's line above what was used, so that it can be reached anew.
    rearmed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "meter", "pool", "period", "threshold"],
                condition=Q(once="period", rearmed_at__isnull=True),
                nulls_distinct=False,
                name="threshold_crossing_in_period",
            ),
            models.UniqueConstraint(
                fields=["tenant", "meter", "pool", "threshold"],
                condition=Q(once="life"),
                nulls_distinct=False,
                name="threshold_crossing_for_life",
            ),
            one_of("once", ["period", "life"], name="threshold_crossing_once"),
            one_of("cause", ["usage", "grant", "time"], name="threshold_crossing_cause"),
        ]

    def __str__(self) -> str:
        return f"{self.threshold} of {self.tenant}"


class ThresholdWatch(Due):
    """
    A tenant's own thresholds, and when to look at all that concern it; one row for each tenant that needs it. Due: when a grant in force begins or ends, which may reach a threshold without any event.

    Its lock is taken after those of balances by whoever looks at a sum over several of the tenant's balances, so that of two that
    reach a threshold together the second sees the first.
    """

    tenant = models.OneToOneField(Tenant, on_delete=models.PROTECT, related_name="+")
    # What the tenant's overage may come to over all meters before the operator is told: [{"amount": "50"}, {"amount": "100", "once": "life"}].
    # Read with the placement of usage, and remembered there: who changes it raises the epochs of the tenant's balances.
    thresholds = models.JSONField(default=list, blank=True)

    class Meta:
        verbose_name_plural = "threshold watches"
        indexes = [due_index("threshold_watch_due")]

    def __str__(self) -> str:
        return f"thresholds of {self.tenant}"
