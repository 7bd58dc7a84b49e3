"""
Rows of usage: events, the ledger they were posted to, balances, and the overage that was priced.

The hot tables' foreign keys carry no database constraint: a row-level foreign key costs a share lock per row, and the audit
checks them instead. Their rows are written by raw SQL in `metering.services`; the models are for reading, the admin and locks.
"""

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from billing_site.database import UnboundedDecimalField, uuid7
from metering.core.burndown import Grant, GrantKind
from subscriptions.models import BillingPeriod, Charge, Meter, Tenant
from subscriptions.models.fields import Due, QuantityField, due_index, one_of


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


class MeterBalance(Due):
    """
    The locked row of a pool in a period: what was used, and how much of it grants cover. Due: the booking of its overage.

    The lock on this row guards the pool's segments, grants and ledger entries of the period.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_constraint=False, related_name="balances")
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="balances")
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="balances")
    # Empty for the meter's shared pool, else the dimensions of the charge whose own pool it is, as canonical JSON.
    pool = models.TextField(blank=True, default="")
    used = QuantityField(default=0)
    # What grants cover. In a rating of whole values (percentage, dynamic) nothing is covered.
    covered = QuantityField(default=0)
    overage = models.GeneratedField(expression=F("used") - F("covered"), output_field=QuantityField(), db_persist=True)
    # Quantity held by authorizations (the gate).
    held = QuantityField(default=0)
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

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["period", "meter", "pool"], name="meter_balance_once"),
            models.CheckConstraint(
                condition=Q(used__gte=0, covered__gte=0, held__gte=0, covered__lte=F("used"), events__gte=0),
                name="meter_balance_not_negative",
            ),
        ]
        indexes = [due_index("meter_balance_due"), models.Index(fields=["tenant"], name="meter_balance_by_tenant")]

    def __str__(self) -> str:
        return f"{self.meter_id}:{self.pool or 'shared'} of period {self.period_id}"


class SegmentTotal(models.Model):
    """Usage of one dimension set in one segment of a balance: all that rating needs to know of the events."""

    balance = models.ForeignKey(MeterBalance, on_delete=models.PROTECT, db_constraint=False, related_name="segments")
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
    posting = models.ForeignKey(Posting, on_delete=models.PROTECT, db_constraint=False, related_name="entries")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_constraint=False, related_name="+")
    balance = models.ForeignKey(MeterBalance, on_delete=models.PROTECT, db_constraint=False, related_name="entries")
    grant = models.ForeignKey(
        "CreditGrant", null=True, on_delete=models.PROTECT, db_constraint=False, related_name="entries"
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


class OverageCharge(models.Model):
    """
    The price of overage as a delta to what was booked before. Append-only; an invoice line consumes it.

    `quantity` and `amount_precise` are the delta. Shares of a pool may be endless decimals, so what the charge had come to with this
    booking stands beside it exactly, as numerator over denominator: an invoice line rounds that figure, never a sum of cut ones.
    """

    class Kind(models.TextChoices):
        OVERAGE = "overage"
        # What a minimum spend adds, once, at closing.
        MINIMUM = "minimum"

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="overage_charges")
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="overage_charges")
    balance = models.ForeignKey(MeterBalance, on_delete=models.PROTECT, related_name="overage_charges")
    # The charge names its version.
    charge = models.ForeignKey(Charge, on_delete=models.PROTECT, related_name="overage_charges")
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.OVERAGE)
    # 1, 2, 3 … within charge, period and kind.
    sequence = models.PositiveIntegerField()
    # Delta in meter units.
    quantity = UnboundedDecimalField()
    # Delta in major units of the currency: exact where it ends, else the difference of figures rounded to 18 decimals.
    amount_precise = UnboundedDecimalField()
    # Cumulative and exact: the units of the charge in the period up to this booking, and what they cost.
    quantity_numerator = UnboundedDecimalField()
    quantity_denominator = UnboundedDecimalField(default=1)
    amount_numerator = UnboundedDecimalField()
    amount_denominator = UnboundedDecimalField(default=1)
    currency = models.CharField(max_length=3)
    # How the cumulative amount was reached, as the rater explained it at this booking.
    components = models.JSONField(default=list)
    # The cumulative overage of the balance that this booking reached.
    booked_to = QuantityField()
    # The balance's newest ledger entry that it had seen: what a later verification counts up to.
    last_entry_id = models.BigIntegerField()
    # Tenant time.
    booked_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["charge", "period", "kind", "sequence"], name="overage_charge_sequence"),
            models.CheckConstraint(
                condition=Q(quantity_denominator__gt=0, amount_denominator__gt=0), name="overage_charge_denominator"
            ),
        ]
        indexes = [models.Index(fields=["period", "charge"], name="overage_charge_by_period")]

    def __str__(self) -> str:
        return f"{self.amount_precise} {self.currency}"
