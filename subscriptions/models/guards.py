"""What stands between a price and its customers: a tier's guards, what backtests found, and who else said yes."""

from django.db import models

from billing_site.database import UnboundedDecimalField
from billing_site.finite import FiniteDecimalField
from subscriptions.models.catalog import Tier, TierVersion


class PercentField(FiniteDecimalField):
    """A limit in percent, to the hundredth."""

    def __init__(self, *args, **kwargs):
        kwargs["max_digits"] = 9
        kwargs["decimal_places"] = 2
        super().__init__(*args, **kwargs)


class PriceGuard(models.Model):
    """How much a new price of a tier may do to its customers before a second person has to approve it. Empty: as much as it likes."""

    tier = models.OneToOneField(Tier, on_delete=models.PROTECT, related_name="guard")
    # By how many percent the bill of any one tenant may rise.
    rise_percent_max = PercentField(null=True, blank=True)
    # By how many percent the revenue of all tenants together may fall.
    revenue_fall_percent_max = PercentField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    rise_percent_max__gte=0, revenue_fall_percent_max__gte=0, revenue_fall_percent_max__lte=100
                ),
                name="price_guard_percentages",
            ),
        ]

    def __str__(self) -> str:
        return f"Guards of {self.tier}"


class BacktestVerdict(models.Model):
    """What a finished backtest of a version, as it was at a revision, says to its tier's guards. Append-only."""

    version = models.ForeignKey(TierVersion, on_delete=models.PROTECT, related_name="verdicts")
    # The version's that was compared: a draft that is saved again needs another.
    revision = models.PositiveIntegerField()
    # Of the tenant whose bill rises most over all compared periods, in percent of it; negative where all bills fall. Empty: nobody who
    # pays something now was compared.
    largest_rise_percent = UnboundedDecimalField(null=True, blank=True)
    # Whether a tenant who paid nothing would pay something, which is more than any percentage.
    rises_from_nothing = models.BooleanField(default=False)
    # Of all compared tenants together, negative for a fall. Empty: they paid nothing.
    revenue_change_percent = UnboundedDecimalField(null=True, blank=True)
    # Which backtest found it, as it calls itself; one verdict of each.
    source = models.CharField(max_length=200)
    found_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "revision", "source"], name="backtest_verdict_once"),
        ]

    def __str__(self) -> str:
        return f"{self.version} at revision {self.revision}, by {self.source}"


class Approval(models.Model):
    """That somebody else than who saved it last agrees to a version as it was at a revision. Append-only."""

    version = models.ForeignKey(TierVersion, on_delete=models.PROTECT, related_name="approvals")
    revision = models.PositiveIntegerField()
    # As the audit names actors; an API key is a person of its own.
    approved_by = models.CharField(max_length=200)
    # Wall time. What a backtest finds later, it has not seen.
    approved_at = models.DateTimeField()
    note = models.TextField(blank=True, default="")

    class Meta:
        indexes = [models.Index(fields=["version", "revision"], name="approval_by_version")]

    def __str__(self) -> str:
        return f"{self.version} at revision {self.revision}, by {self.approved_by}"
