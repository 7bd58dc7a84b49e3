"""The agreement itself: who is on which version from when, its stored periods, and the fees that fall due."""

from datetime import datetime

from django.db import models

from billing_site.database import no_overlap, uuid7
from subscriptions.core.changes import ChangeAllowance, ChangeBill, ChangeFee, Choices
from subscriptions.core.periods import Anchor, Period
from subscriptions.core.proration import Grain
from subscriptions.models.catalog import Publication, TierVersion
from subscriptions.models.fields import Due, MoneyField, due_index, one_of, representable
from subscriptions.models.tenants import Tenant


class Subscription(Due):
    """A tenant on a tier from an anchor. Due: the opening of its next period."""

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="subscriptions")
    # The version it runs on now; the versions of the past stand in its periods and changes.
    version = models.ForeignKey(TierVersion, on_delete=models.PROTECT, related_name="subscriptions")
    # The anchor as a rule, not as an instant: local wall date and time, and the zone to read them in.
    anchor_date = models.DateField()
    anchor_time = models.TimeField()
    anchor_zone = models.CharField(max_length=64)
    starts_at = models.DateTimeField()
    # Where its trial ends; moved by staff while that runs. Empty: it has none.
    trial_ends_at = models.DateTimeField(null=True, blank=True)
    # From when its periods follow each other without a gap: its start, until it is resumed or reactivated.
    run_starts_at = models.DateTimeField()
    # Set when it is cancelled, perhaps in the future; no period reaches beyond it.
    ends_at = models.DateTimeField(null=True, blank=True)
    # Since when it is paused: no period begins until it is resumed.
    paused_at = models.DateTimeField(null=True, blank=True)
    # What a cancellation does with the unused part of the fee.
    end_credit = models.CharField(max_length=10, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            no_overlap("subscription_one_running", "tenant_id", "starts_at", "ends_at"),
            models.CheckConstraint(
                condition=models.Q(ends_at__isnull=True) | models.Q(ends_at__gt=models.F("starts_at")),
                name="subscription_ends_after_start",
            ),
            one_of("end_credit", ["", "unused", "none"], name="subscription_end_credit"),
        ]
        indexes = [due_index("subscription_due")]

    def __str__(self) -> str:
        return str(self.public_id)

    @property
    def anchor(self) -> Anchor:
        """The anchor as the core reads it."""
        return Anchor(wall=datetime.combine(self.anchor_date, self.anchor_time), zone=self.anchor_zone)


class BillingPeriod(Due):
    """One stored `[starts_at, ends_at)` of a subscription. Due: its closing, and later a look for late usage."""

    class Kind(models.TextChoices):
        REGULAR = "regular"
        # Shorter than a whole interval: a calendar's first period, or one that was cut (cancelled, paused, reset).
        STUB = "stub"
        # Without a fee, on the terms that the version has for trials.
        TRIAL = "trial"

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="periods")
    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="periods")
    # 1, 2, 3 … within the subscription.
    sequence = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.REGULAR)
    # The version in force when it was opened.
    version = models.ForeignKey(TierVersion, on_delete=models.PROTECT, related_name="periods")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    # Where the whole interval would have begun and ended; wider than the period in a stub. Divisor of proration.
    full_starts_at = models.DateTimeField()
    full_ends_at = models.DateTimeField()
    # The whole span that one flat fee pays for, in which the period lies: several periods under `fee_every`.
    fee_starts_at = models.DateTimeField()
    fee_ends_at = models.DateTimeField()
    # Whether it begins a run: no closing comes before it that would bill its fee in advance, so that has an invoice of its own.
    begins_run = models.BooleanField(default=False)
    # Tenant time of its closing; empty while it takes usage as its own.
    closed_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["subscription", "sequence"], name="billing_period_sequence"),
            no_overlap("billing_period_no_overlap", "subscription_id", "starts_at", "ends_at"),
            models.CheckConstraint(
                condition=models.Q(ends_at__gt=models.F("starts_at")), name="billing_period_not_empty"
            ),
        ]
        indexes = [
            due_index("billing_period_due"),
            models.Index(fields=["tenant", "starts_at"], name="billing_period_by_tenant"),
        ]

    def __str__(self) -> str:
        return f"{self.subscription} #{self.sequence}"

    @property
    def period(self) -> Period:
        """The half-open span as the core reads it."""
        return Period(self.starts_at, self.ends_at)


class ChangeTerms(models.Model):
    """The choices of a change of tier (semantics, "Changing tier in mid-period")."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    to_version = models.ForeignKey(TierVersion, on_delete=models.PROTECT, related_name="+")
    fee = models.CharField(max_length=10, choices=[(one.value, one.value) for one in ChangeFee])
    grain = models.CharField(max_length=10, choices=[(one.value, one.value) for one in Grain])
    allowance = models.CharField(max_length=10, choices=[(one.value, one.value) for one in ChangeAllowance])
    bill = models.CharField(max_length=10, choices=[(one.value, one.value) for one in ChangeBill])
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True

    @property
    def choices(self) -> Choices:
        """The choices as the core reads them."""
        return Choices(
            fee=ChangeFee(self.fee),
            grain=Grain(self.grain),
            allowance=ChangeAllowance(self.allowance),
            bill=ChangeBill(self.bill),
        )


class TierChange(ChangeTerms):
    """
    That a subscription's version changed, from which instant, and what that did. Append-only.

    Within a period the versions are in force one after the other; a change at a period's first instant is why it runs on its version.
    """

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="changes")
    # The period in which the new version came into force: that of the change, or the one that began with it.
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="changes")
    from_version = models.ForeignKey(TierVersion, on_delete=models.PROTECT, related_name="+")
    effective_at = models.DateTimeField()
    # What became of the period's pools: [{"meter", "dimensions", "before", "after", "used"}], as texts.
    allowances = models.JSONField(default=list)

    class Meta:
        indexes = [models.Index(fields=["period", "effective_at"], name="tier_change_by_period")]

    def __str__(self) -> str:
        return f"{self.from_version} → {self.to_version}"


class ScheduledChange(ChangeTerms, Due):
    """A change that is to come: at an instant (then it is due), or with the first period that begins at one or later."""

    class Status(models.TextChoices):
        SCHEDULED = "scheduled"
        DONE = "done"
        UNDONE = "undone"
        # What it was to change was not there any more: the subscription ended, or left the tier that a publication was for.
        DROPPED = "dropped"

    # The same as that of the TierChange that it becomes.
    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="scheduled_changes")
    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="scheduled_changes")
    status = models.CharField(max_length=10, choices=Status, default=Status.SCHEDULED)
    # Whether it waits for a boundary. Else `wanted_at` is the instant from which the new version counts, and when it is due.
    at_boundary = models.BooleanField()
    wanted_at = models.DateTimeField()
    # Where the anchor moves with the boundary.
    anchor_at = models.DateTimeField(null=True, blank=True)
    # The publication that asks for it, of those that a version's publishing makes.
    publication = models.ForeignKey(
        Publication, null=True, blank=True, on_delete=models.PROTECT, related_name="scheduled_changes"
    )

    class Meta:
        constraints = [
            one_of("status", ["scheduled", "done", "undone", "dropped"], name="scheduled_change_status"),
            models.CheckConstraint(
                condition=models.Q(due_at__isnull=True) | models.Q(status="scheduled", at_boundary=False),
                name="scheduled_change_due",
            ),
            models.UniqueConstraint(
                fields=["publication", "subscription"], name="scheduled_change_once_per_publication"
            ),
        ]
        indexes = [
            due_index("scheduled_change_due_index"),
            models.Index(
                fields=["subscription", "wanted_at"],
                name="scheduled_change_waiting",
                condition=models.Q(status="scheduled"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subscription} to {self.to_version}"


class FeeItem(models.Model):
    """A fee due, or a credit for its unused part. Never edited; an invoice line consumes it."""

    class Kind(models.TextChoices):
        FEE = "fee"
        CREDIT = "credit"
        # The remaining part of the new fee after a change.
        CHARGE = "charge"

    public_id = models.UUIDField(default=uuid7, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="fee_items")
    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="fee_items")
    # The period that opened it (fee) or in which it arose.
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="fee_items")
    version = models.ForeignKey(TierVersion, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=10, choices=Kind)
    # The fee item that a credit gives back a part of.
    credits = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="credited_by")
    # The change that it comes of.
    change = models.ForeignKey(TierChange, null=True, blank=True, on_delete=models.PROTECT, related_name="fee_items")
    # What it pays for, half-open; several billing periods under `fee_every`.
    span_starts_at = models.DateTimeField()
    span_ends_at = models.DateTimeField()
    # The share of the whole fee: days or seconds over the divisor. 1/1 for a whole fee.
    share_numerator = models.BigIntegerField(default=1)
    share_divisor = models.BigIntegerField(default=1)
    share_grain = models.CharField(max_length=10, blank=True, default="")
    currency = models.CharField(max_length=3)
    # Negative for a credit.
    amount = MoneyField()
    # From when an invoice may bill it: the span's start in advance, its end in arrears.
    billable_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["period"], condition=models.Q(kind="fee"), name="fee_item_once_per_period"),
            models.CheckConstraint(
                condition=models.Q(kind__in=["fee", "charge"], amount__gte=0, credits__isnull=True)
                | models.Q(kind="credit", amount__lte=0, credits__isnull=False),
                name="fee_item_sign",
            ),
            models.UniqueConstraint(
                fields=["change", "kind", "credits"],
                nulls_distinct=False,
                name="fee_item_once_per_change",
                condition=models.Q(change__isnull=False),
            ),
            representable("amount", name="fee_item_amount_unit"),
        ]
        indexes = [models.Index(fields=["subscription", "billable_at"], name="fee_item_by_subscription")]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount} {self.currency}"
