"""The catalogue: meters, tiers, and the immutable versions that price them."""

from django.db import models

from subscriptions.core.periods import Alignment, Interval
from subscriptions.core.prices import PriceModel
from subscriptions.models.fields import CodeField, MoneyField, QuantityField, is_code, one_of, representable

ADDITIVE = ["sum", "count"]
"""The aggregations whose quantity of a period is the sum of its events' quantities."""
AGGREGATIONS = [*ADDITIVE, "max", "latest", "unique_count"]


class Meter(models.Model):
    """What is counted and how. What decides the count is fixed when the meter is made (a trigger keeps it)."""

    class LatePolicy(models.TextChoices):
        NEXT_INVOICE = "next_invoice"
        REJECT = "reject"

    code = CodeField(unique=True)
    name = models.CharField(max_length=200)
    event_type = models.CharField(max_length=200)
    aggregation = models.CharField(max_length=20, choices=[(one, one) for one in AGGREGATIONS])
    # A dotted path, or a list of {"property", "weight"}; null for `count`.
    value_property = models.JSONField(null=True, blank=True)
    # {"path": value or [values]}: events that differ are not this meter's.
    filters = models.JSONField(default=dict, blank=True)
    # Names of the properties by which usage is folded and may be priced.
    dimensions = models.JSONField(default=list, blank=True)
    unit = models.CharField(max_length=50, blank=True, default="")
    # Decimals to which a prorated allowance is rounded.
    precision = models.PositiveSmallIntegerField(default=0)
    # What becomes of usage whose period has closed.
    late_policy = models.CharField(max_length=20, choices=LatePolicy, default=LatePolicy.NEXT_INVOICE)
    # How many days back an event may lie, in the tenant's time.
    window_days = models.PositiveSmallIntegerField(default=35)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            is_code("code", name="meter_code"),
            one_of("aggregation", AGGREGATIONS, name="meter_aggregation"),
            models.CheckConstraint(condition=models.Q(precision__lte=12), name="meter_precision"),
            models.CheckConstraint(condition=models.Q(window_days__gte=1, window_days__lte=366), name="meter_window"),
        ]
        indexes = [models.Index(fields=["event_type"], name="meter_by_event_type")]

    def __str__(self) -> str:
        return self.code

    @property
    def is_additive(self) -> bool:
        """Whether it sums up; else each dimension set has one value in a period, which allows no rollover and no windows."""
        return self.aggregation in ADDITIVE


class Tier(models.Model):
    """A named offer. What it costs stands in its versions."""

    code = CodeField(unique=True)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [is_code("code", name="tier_code")]

    def __str__(self) -> str:
        return self.code


class TierVersion(models.Model):
    """A tier's price, allowances and terms: a draft until it is published, then refused every change by a trigger."""

    class FeeTiming(models.TextChoices):
        ADVANCE = "advance"
        ARREARS = "arrears"

    tier = models.ForeignKey(Tier, on_delete=models.PROTECT, related_name="versions")
    # 1, 2, 3 … within the tier.
    number = models.PositiveIntegerField()
    # Counts the draft's saves; a save names the revision it was made from (If-Match).
    revision = models.PositiveIntegerField(default=1)
    # Who did that last, as the audit names actors: somebody else approves it, where approval is needed.
    saved_by = models.CharField(max_length=200, blank=True, default="")
    currency = models.CharField(max_length=3)
    interval = models.CharField(max_length=12, choices=[(one.value, one.value) for one in Interval])
    interval_count = models.PositiveSmallIntegerField(default=1)
    alignment = models.CharField(max_length=12, choices=[(one.value, one.value) for one in Alignment])
    fee = MoneyField(default=0)
    fee_timing = models.CharField(max_length=10, choices=FeeTiming, default=FeeTiming.ADVANCE)
    # The fee spans this many billing periods: 12 on monthly periods is a yearly price.
    fee_every = models.PositiveSmallIntegerField(default=1)
    # How long after its end a period waits for late events before it closes.
    grace_hours = models.PositiveSmallIntegerField(default=1)
    trial_days = models.PositiveSmallIntegerField(default=0)
    trial_end = models.CharField(max_length=10, default="convert")
    trial_overage = models.CharField(max_length=10, default="none")
    # Defaults of a change to this version: {"fee", "grain", "allowance", "bill"}.
    change_terms = models.JSONField(default=dict, blank=True)
    published_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tier", "number"], name="tier_version_number"),
            one_of("interval", [one.value for one in Interval], name="tier_version_interval"),
            one_of("alignment", [one.value for one in Alignment], name="tier_version_alignment"),
            one_of("fee_timing", ["advance", "arrears"], name="tier_version_fee_timing"),
            models.CheckConstraint(
                condition=models.Q(interval_count__gte=1, fee_every__gte=1, fee__gte=0), name="tier_version_positive"
            ),
            representable("fee", name="tier_version_fee_unit"),
        ]

    def __str__(self) -> str:
        return f"{self.tier} v{self.number}"

    @property
    def is_published(self) -> bool:
        """Whether the version is final."""
        return self.published_at is not None


class Charge(models.Model):
    """One meter's (or one licence's) price within a version."""

    version = models.ForeignKey(TierVersion, on_delete=models.CASCADE, related_name="charges")
    # The order in which charges are listed and printed.
    position = models.PositiveSmallIntegerField()
    kind = models.CharField(max_length=10, choices=[("usage", "usage"), ("licensed", "licensed")], default="usage")
    # A licence's own name; empty for usage.
    code = models.CharField(max_length=100, blank=True, default="")
    meter = models.ForeignKey(Meter, null=True, blank=True, on_delete=models.PROTECT, related_name="charges")
    # Quantity per period. Null: shares the pool of the meter's default charge. Set: a pool of its own.
    included = QuantityField(null=True, blank=True)
    trial_included = QuantityField(null=True, blank=True)
    rollover_max = QuantityField(default=0)
    rollover_periods = models.PositiveSmallIntegerField(default=1)
    # {"model": "opus"}: prices only usage with these values; the most specific charge wins.
    dimensions = models.JSONField(default=dict, blank=True)
    # What the gate answers at the limit: allow (bill overage), deny, degrade.
    at_limit = models.CharField(max_length=10, default="allow")
    overage_quantity_max = QuantityField(null=True, blank=True)
    limits = models.JSONField(default=list, blank=True)
    thresholds = models.JSONField(default=list, blank=True)
    price_model = models.CharField(max_length=24, choices=[(one.value, one.value) for one in PriceModel])
    # The model's single-valued terms as the price document names them; bands are rows.
    price_terms = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["version", "position"], name="charge_position"),
            models.UniqueConstraint(
                fields=["version", "meter", "dimensions"],
                name="charge_once_per_set",
                condition=models.Q(kind="usage"),
            ),
            one_of("at_limit", ["allow", "deny", "degrade"], name="charge_at_limit"),
            one_of("price_model", [one.value for one in PriceModel], name="charge_price_model"),
            models.CheckConstraint(
                condition=models.Q(kind="usage", meter__isnull=False) | models.Q(kind="licensed", meter__isnull=True),
                name="charge_has_its_meter",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.version}: {self.meter or self.code}"


class PriceBand(models.Model):
    """One band of a graduated or volume price."""

    charge = models.ForeignKey(Charge, on_delete=models.CASCADE, related_name="bands")
    position = models.PositiveSmallIntegerField()
    # Inclusive upper bound; null in the last band, which is open.
    up_to = QuantityField(null=True, blank=True)
    # The price of one unit; in a graduated percentage, the rate in percent.
    unit_amount = QuantityField(default=0)
    flat_amount = QuantityField(default=0)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["charge", "position"], name="price_band_position"),
            models.UniqueConstraint(fields=["charge", "up_to"], nulls_distinct=False, name="price_band_bound"),
        ]

    def __str__(self) -> str:
        return f"{self.charge} band {self.position}"


class Feature(models.Model):
    """One entitlement of a version: {"sso": true, "max_projects": 10} is two of them."""

    version = models.ForeignKey(TierVersion, on_delete=models.CASCADE, related_name="features")
    code = CodeField()
    value = models.JSONField()

    class Meta:
        ordering = ["code"]
        constraints = [models.UniqueConstraint(fields=["version", "code"], name="feature_once")]

    def __str__(self) -> str:
        return f"{self.version}: {self.code}"


class Publication(models.Model):
    """
    That a version went live, from when and for whom. Only its progress and its undoing are written later.

    Whoever subscribes from `effective_at` on gets it. With the cohort `renewal` the subscriptions that the tier has get it with their first
    period that begins then or later, with `now` at that instant, with proration.
    """

    class Cohort(models.TextChoices):
        NEW = "new"
        RENEWAL = "renewal"
        NOW = "now"

    version = models.ForeignKey(TierVersion, on_delete=models.PROTECT, related_name="publications")
    cohort = models.CharField(max_length=10, choices=Cohort, default=Cohort.NEW)
    effective_at = models.DateTimeField()
    # Who asked for it, as the audit names actors.
    published_by = models.CharField(max_length=200, blank=True, default="")
    # Why, in their words.
    reason = models.TextField(blank=True, default="")
    # When all subscriptions that it concerns had their change scheduled; empty while that goes on.
    planned_at = models.DateTimeField(null=True, blank=True)
    # Taken back before it took effect.
    undone_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "cohort"], condition=models.Q(undone_at__isnull=True), name="publication_once"
            ),
            one_of("cohort", ["new", "renewal", "now"], name="publication_cohort"),
        ]
        indexes = [
            models.Index(fields=["version", "effective_at"], name="publication_by_version"),
            models.Index(
                fields=["created_at"],
                name="publication_to_plan",
                condition=models.Q(planned_at__isnull=True, undone_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.version} for {self.cohort} from {self.effective_at:%Y-%m-%d}"
