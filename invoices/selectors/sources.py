"""
What could be billed and is not: fee items and overage charges that no line holds.

"Has this been billed?" is asked here, of the lines' sources, and never of the thing itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet, Sum

from invoices.core.lines import InvoicedBefore
from invoices.models import Invoice, InvoiceLine, InvoiceLineSource
from metering.models import OverageCharge
from subscriptions.core.money import exact
from subscriptions.models import FeeItem

_Key = tuple[int, int, str]
"""Period, charge, and whether it is overage or a minimum: what has one line on an invoice."""


@dataclass(frozen=True, slots=True)
class UnbilledCharge:
    """
    The bookings of one charge in one closed period that no line bills, as one.

    `latest` is the newest booking of all, billed or not: it knows the cumulative amount. `before` is None where nothing of it was
    ever billed, or all of that was released.
    """

    latest: OverageCharge
    booking_ids: Sequence[int]
    quantity: Decimal
    before: InvoicedBefore | None

    @property
    def cumulative(self) -> Fraction:
        """What the charge has come to in the period, exactly."""
        return cumulative_amount(self.latest)


def unbilled_fee_items(*, subscription_id: int, until: datetime | None) -> list[FeeItem]:
    """Return the fees and credits that no line bills, billable at `until` or before (None: all), in the order of their spans."""
    items = _unheld(FeeItem.objects.filter(subscription_id=subscription_id), "fee_item")
    if until is not None:
        items = items.filter(billable_at__lte=until)
    return list(items.select_related("version__tier", "credits", "period").order_by("span_starts_at", "pk"))


def unbilled_charges(*, subscription_id: int) -> list[UnbilledCharge]:
    """
    Return what is unbilled of each charge in each closed period of the subscription, oldest period first.

    The caller holds the subscription's lock, so that no other invoice takes the same bookings meanwhile.
    """
    ids: dict[_Key, list[int]] = {}
    quantities: dict[_Key, Decimal] = {}
    closed = OverageCharge.objects.filter(
        period__subscription_id=subscription_id, period__closed_at__isnull=False
    ).order_by("period__sequence", "charge__position", "charge_id", "kind", "pk")
    for pk, quantity, *parts in _unheld(closed, "overage_charge").values_list(
        "pk", "quantity", "period_id", "charge_id", "kind"
    ):
        key = (parts[0], parts[1], parts[2])
        ids.setdefault(key, []).append(pk)
        with exact():
            quantities[key] = quantities.get(key, Decimal(0)) + quantity
    totals, billed = _booked(ids), _billed(ids)
    return [
        _unbilled(totals[key], ids=ids[key], quantity=quantities[key], amount_billed=billed.get(key, Decimal(0)))
        for key in ids
    ]


def has_unbilled(*, subscription_id: int, until: datetime | None) -> bool:
    """Say whether an invoice drafted now might have a line."""
    items = FeeItem.objects.filter(subscription_id=subscription_id)
    if until is not None:
        items = items.filter(billable_at__lte=until)
    charges = OverageCharge.objects.filter(period__subscription_id=subscription_id, period__closed_at__isnull=False)
    return _unheld(items, "fee_item").exists() or _unheld(charges, "overage_charge").exists()


def cumulative_amount(booking: OverageCharge) -> Fraction:
    """Return what the charge had come to in its period with this booking, exactly, in major units of the currency."""
    return Fraction(booking.amount_numerator) / Fraction(booking.amount_denominator)


@dataclass(frozen=True, slots=True)
class _Booked:
    latest: OverageCharge
    count: int
    quantity: Decimal


def _unheld(queryset: QuerySet, name: str) -> QuerySet:
    held = InvoiceLineSource.objects.filter(**{name: OuterRef("pk")}, released_at__isnull=True)
    return queryset.filter(~Exists(held))


def _booked(keys: Iterable[_Key]) -> dict[_Key, _Booked]:
    """Sum all bookings of each key, billed or not, and find the newest."""
    rows = list(
        OverageCharge.objects.filter(_any_of(keys))
        .values("period_id", "charge_id", "kind")
        .annotate(count=Count("pk"), quantity_sum=Sum("quantity"), last_pk=Max("pk"))
    )
    latest = OverageCharge.objects.select_related(
        "period", "balance", "charge__meter", "charge__version__tier"
    ).in_bulk([row["last_pk"] for row in rows])
    return {
        (row["period_id"], row["charge_id"], row["kind"]): _Booked(
            latest[row["last_pk"]], row["count"], row["quantity_sum"]
        )
        for row in rows
    }


def _billed(keys: Iterable[_Key]) -> dict[_Key, Decimal]:
    """Sum what lines that are not void bill of each key; a draft's lines count, for they will be final as they are."""
    rows = (
        InvoiceLine.objects.filter(_any_of(keys))
        .exclude(invoice__status=Invoice.Status.VOID)
        .values("period_id", "charge_id", "kind")
        .annotate(amount_sum=Sum("amount"))
    )
    return {(row["period_id"], row["charge_id"], row["kind"]): row["amount_sum"] for row in rows}


def _any_of(keys: Iterable[_Key]) -> Q:
    condition = Q(pk__in=[])
    for period_id, charge_id, kind in keys:
        condition |= Q(period_id=period_id, charge_id=charge_id, kind=kind)
    return condition


def _unbilled(booked: _Booked, *, ids: Sequence[int], quantity: Decimal, amount_billed: Decimal) -> UnbilledCharge:
    if booked.count == len(ids):
        return UnbilledCharge(booked.latest, ids, quantity, None)
    before = InvoicedBefore(
        amount_billed, Fraction(booked.quantity) - Fraction(quantity), bookings=booked.latest.sequence
    )
    return UnbilledCharge(booked.latest, ids, quantity, before)
