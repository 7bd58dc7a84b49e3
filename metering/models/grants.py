"""Grants: quantities that cover usage before it becomes overage, and the schedules that make them again and again."""

from datetime import datetime

from django.db import models
from django.db.models import F, Q

from billing_site.database import uuid7
from metering.core.burndown import Grant, GrantKind
from metering.models.balances import MeterBalance
from subscriptions.core.periods import Anchor, Cadence, Interval
from subscriptions.models import Meter, Tenant
from subscriptions.models.fields import Due, QuantityField, due_index, one_of

KEY_LENGTH_MAX = 255


class CreditGrant(models.Model):
    """
    Quantity that covers usage before it becomes overage. The allowance of a period is one.

    A grant of one balance (an allowance, most rollovers) ends with its period. A grant of the pool has no balance: it covers usage of
    every period that it touches. Always: quantity = burned + expired + voided + rolled over + remaining; that of an allowance is rescaled
    by a change of tier, of which the ledger tells. What is left when its time is
    over stays `remaining` until the last period that it touches closes, because late events of its time may still burn it; it is shown as
    nothing meanwhile.
    """

    class Kind(models.TextChoices):
        ALLOWANCE = "allowance"
        PROMOTIONAL = "promotional"
        PURCHASED = "purchased"
        # What was left of an allowance, moved on when its period closed.
        ROLLOVER = "rollover"

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_constraint=False, related_name="grants")
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="grants")
    # As in MeterBalance.
    pool = models.TextField(blank=True, default="")
    # The only balance that it covers. None: a grant of the pool.
    balance = models.ForeignKey(MeterBalance, null=True, blank=True, on_delete=models.PROTECT, related_name="grants")
    kind = models.CharField(max_length=12, choices=Kind)
    # The operator's id of a grant that it made, and a digest of what was asked for under it. Empty and None: none was given.
    key = models.CharField(max_length=KEY_LENGTH_MAX, blank=True, default="")
    fingerprint = models.BinaryField(max_length=16, null=True)
    # Low burns first.
    priority = models.PositiveSmallIntegerField(default=0)
    quantity = QuantityField()
    burned = QuantityField(default=0)
    expired = QuantityField(default=0)
    voided = QuantityField(default=0)
    rolled_over = QuantityField(default=0)
    remaining = models.GeneratedField(
        expression=F("quantity") - F("burned") - F("expired") - F("voided") - F("rolled_over"),
        output_field=QuantityField(),
        db_persist=True,
    )
    # Of a grant of the pool: what no walk moves any more. It was burned in periods that are closed, or has left the grant. A walk begins
    # with quantity − settled.
    settled = QuantityField(default=0)
    # Covers usage that occurred in [effective_at, expires_at), and before voided_at. None: never ends.
    effective_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    voided_at = models.DateTimeField(null=True, blank=True)
    # The expiry by which it stands in the burn order, where that is not its own: units that roll over for several periods burn before the
    # allowance of the first of them.
    ranked_at = models.DateTimeField(null=True, blank=True)
    # The allowance that a rollover was left of: each rolls over once.
    rolled_from = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="rolled_into"
    )
    # What made it, and the how manieth of that it is, from 0.
    schedule = models.ForeignKey(
        "GrantSchedule", null=True, blank=True, on_delete=models.PROTECT, related_name="grants"
    )
    sequence = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(quantity__gte=0, burned__gte=0, expired__gte=0, voided__gte=0, rolled_over__gte=0)
                & Q(quantity__gte=F("burned") + F("expired") + F("voided") + F("rolled_over")),
                name="credit_grant_conserves",
            ),
            models.CheckConstraint(
                condition=Q(settled__gte=F("expired") + F("voided") + F("rolled_over"), settled__lte=F("quantity"))
                | Q(balance__isnull=False, settled=0),
                name="credit_grant_settled",
            ),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("effective_at")),
                name="credit_grant_not_empty",
            ),
            one_of("kind", ["allowance", "promotional", "purchased", "rollover"], name="credit_grant_kind"),
            models.CheckConstraint(
                condition=Q(kind="allowance", balance__isnull=False, rolled_from__isnull=True)
                | Q(kind="rollover", rolled_from__isnull=False)
                | Q(kind__in=["promotional", "purchased"], balance__isnull=True, rolled_from__isnull=True),
                name="credit_grant_of_kind",
            ),
            models.UniqueConstraint(
                fields=["balance"], condition=Q(kind="allowance"), name="credit_grant_one_allowance"
            ),
            models.UniqueConstraint(fields=["tenant", "key"], condition=~Q(key=""), name="credit_grant_key"),
            models.UniqueConstraint(fields=["schedule", "sequence"], name="credit_grant_once_per_interval"),
        ]
        indexes = [
            models.Index(
                fields=["tenant", "meter", "pool"],
                name="credit_grant_of_pool",
                condition=Q(balance__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.quantity}"

    @property
    def ends_at(self) -> datetime | None:
        """When it stops covering; None for never."""
        return self.as_core().ends_at

    @property
    def was_voided(self) -> bool:
        """Whether it was taken back before it expired."""
        return self.voided_at is not None and (self.expires_at is None or self.voided_at < self.expires_at)

    def as_core(self) -> Grant:
        """Return the grant, whole, as the walk reads it."""
        return Grant(
            id=self.pk,
            quantity=self.quantity,
            priority=self.priority,
            effective_at=self.effective_at,
            expires_at=self.expires_at,
            voided_at=self.voided_at,
            kind=GrantKind(self.kind),
            created_at=self.created_at,
            ranked_at=self.ranked_at,
        )


class GrantSchedule(Due):
    """Makes one grant of the pool at each of its boundaries: monthly credits on a yearly tier. Due: the next grant."""

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="grant_schedules")
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="+")
    # As in MeterBalance.
    pool = models.TextField(blank=True, default="")
    kind = models.CharField(max_length=12, choices=CreditGrant.Kind)
    key = models.CharField(max_length=KEY_LENGTH_MAX, blank=True, default="")
    fingerprint = models.BinaryField(max_length=16, null=True)
    priority = models.PositiveSmallIntegerField(default=0)
    # Of each grant.
    quantity = QuantityField()
    interval = models.CharField(max_length=10, choices=[(one.value, one.value) for one in Interval])
    interval_count = models.PositiveSmallIntegerField(default=1)
    # Boundaries are counted from here, as local time of the zone that the tenant had when the schedule was made.
    starts_at = models.DateTimeField()
    zone = models.CharField(max_length=64)
    # No grant begins at this instant or later. None: it goes on until it is voided.
    until = models.DateTimeField(null=True, blank=True)
    # After how many intervals each grant expires. None: never.
    expires_after = models.PositiveSmallIntegerField(null=True, default=1)
    # How many boundaries have been served.
    made = models.PositiveIntegerField(default=0)
    voided_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            one_of("kind", ["promotional", "purchased"], name="grant_schedule_kind"),
            one_of("interval", [one.value for one in Interval], name="grant_schedule_interval"),
            models.CheckConstraint(
                condition=Q(quantity__gt=0, interval_count__gte=1)
                & (Q(expires_after__isnull=True) | Q(expires_after__gte=1)),
                name="grant_schedule_positive",
            ),
            models.UniqueConstraint(fields=["tenant", "key"], condition=~Q(key=""), name="grant_schedule_key"),
        ]
        indexes = [due_index("grant_schedule_due")]

    def __str__(self) -> str:
        return f"{self.kind} of {self.quantity} every {self.interval_count} {self.interval}"

    @property
    def anchor(self) -> Anchor:
        """Where boundaries are counted from."""
        return Anchor.at(self.starts_at, self.zone)

    @property
    def cadence(self) -> Cadence:
        """How often a grant is made."""
        return Cadence(Interval(self.interval), self.interval_count)
