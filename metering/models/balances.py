"""Balances of pools, and the totals and values that their locks guard."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from billing_site.database import UnboundedDecimalField
from subscriptions.models import BillingPeriod, Meter, Tenant
from subscriptions.models.fields import Due, QuantityField, due_index


class MeterBalance(Due):
    """
    The locked row of a pool in a period: what was used, and how much of it grants cover. Due: the booking of its overage.

    The lock on this row guards the pool's segments, ledger entries and grants of the period. A grant of the pool (one without a balance)
    reaches into several periods: the locks of all unclosed balances that it touches guard it together, taken in the order of ids.
    """

    tenant = models.ForeignKey(
        Tenant, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="balances"
    )
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, db_index=False, related_name="balances")
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="balances")
    # Empty for the meter's shared pool, else the dimensions of the charge whose own pool it is, as canonical JSON.
    pool = models.TextField(blank=True, default="")
    used = QuantityField(default=0)
    # What grants cover. In a rating of whole values (percentage, dynamic) nothing is covered.
    covered = QuantityField(default=0)
    overage = models.GeneratedField(expression=F("used") - F("covered"), output_field=QuantityField(), db_persist=True)
    # Quantity held by authorizations (the gate).
    held = QuantityField(default=0)
    # What those holds are estimated to cost, in the tenant's currency.
    held_amount = UnboundedDecimalField(default=0)
    # Number of events counted.
    events = models.BigIntegerField(default=0)
    # Raised by whatever changes what usage is placed against (a close, a change, a grant, a void): who resolved before the
    # lock resolves again.
    epoch = models.PositiveIntegerField(default=0)
    # The newest segment that has usage; an event in an older one walks again from there.
    newest_segment_at = models.DateTimeField(null=True, blank=True)
    # The overage up to which charges are booked, and the tenant time at which they were.
    booked_overage = QuantityField(default=0)
    booked_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    # The newest ledger entry when it was closed: usage that was posted after it is late.
    closing_entry_id = models.BigIntegerField(null=True, blank=True)
    # Whether a grant of the pool may be burned in its period. Who locks one wide balance locks all unclosed wide ones of the pool.
    is_wide = models.BooleanField(default=False)
    # The instants inside the period at which a grant of the pool starts, expires or is voided, in order: each begins a segment.
    cuts = ArrayField(models.DateTimeField(), default=list, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["period", "meter", "pool"], name="meter_balance_once"),
            models.CheckConstraint(
                condition=Q(
                    used__gte=0, covered__gte=0, held__gte=0, held_amount__gte=0, events__gte=0, covered__lte=F("used")
                ),
                name="meter_balance_not_negative",
            ),
        ]
        indexes = [due_index("meter_balance_due"), models.Index(fields=["tenant"], name="meter_balance_by_tenant")]

    def __str__(self) -> str:
        return f"{self.meter_id}:{self.pool or 'shared'} of period {self.period_id}"


class SegmentTotal(models.Model):
    """Usage of one dimension set in one segment of a balance: all that rating needs to know of the events."""

    balance = models.ForeignKey(
        MeterBalance, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="segments"
    )
    # The segment's first instant.
    segment_at = models.DateTimeField()
    dimension_key = models.TextField()
    # The sum of the events' quantities; of a meter that does not add up, the value that they have together.
    quantity = QuantityField(default=0)
    events = models.BigIntegerField(default=0)
    # Σ of the events' prices where the charge clamps per event; else 0.
    clamped = UnboundedDecimalField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["balance", "segment_at", "dimension_key"], name="segment_total_once"),
            models.CheckConstraint(condition=Q(quantity__gte=0, events__gte=0), name="segment_total_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.balance_id} {self.segment_at} {self.dimension_key}"


class LatestReading(models.Model):
    """Which event's quantity stands as the value of a dimension set, where the meter's aggregation is `latest`. Guarded by the balance's lock."""

    pk = models.CompositePrimaryKey("balance", "dimension_key")
    balance = models.ForeignKey(
        MeterBalance, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    dimension_key = models.TextField()
    # What orders events: the last of these stands. Its quantity is the set's total in SegmentTotal.
    occurred_at = models.DateTimeField()
    source = models.CharField(max_length=255)
    event_id = models.CharField(max_length=255)

    def __str__(self) -> str:
        return f"{self.balance_id} {self.dimension_key}"


class SeenValue(models.Model):
    """A value that a unique count has seen in a balance. Guarded by the balance's lock."""

    pk = models.CompositePrimaryKey("balance", "digest")
    balance = models.ForeignKey(
        MeterBalance, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    # 16 bytes of dimension set and value.
    digest = models.BinaryField(max_length=16)
    # How many events have it; 0 after all of them were reversed.
    events = models.BigIntegerField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(events__gte=0), name="seen_value_not_negative")]

    def __str__(self) -> str:
        return f"{self.balance_id} {bytes(self.digest).hex()}"
