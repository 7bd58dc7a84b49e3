"""Overage that was priced."""

from django.db import models
from django.db.models import Q

from billing_site.database import UnboundedDecimalField, uuid7
from metering.models.balances import MeterBalance
from subscriptions.models import BillingPeriod, Charge, Tenant
from subscriptions.models.fields import QuantityField


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
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, db_index=False, related_name="overage_charges")
    balance = models.ForeignKey(MeterBalance, on_delete=models.PROTECT, related_name="overage_charges")
    # The charge names its version.
    charge = models.ForeignKey(Charge, on_delete=models.PROTECT, db_index=False, related_name="overage_charges")
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
