"""
What could be billed and is not: fee items and overage charges that no line holds.

"Has this been billed?" is asked here, of the lines' sources, and never of the thing itself.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet, Sum

from invoices.core.lines import InvoicedBefore
from invoices.models import Invoice, InvoiceLine, InvoiceLineSource
from metering.models import MeterBalance, OverageCharge
from subscriptions.core.money import exact
from subscriptions.models import BillingPeriod, Charge, FeeItem

_Row = TypeVar("_Row", bound=NamedTuple)
_Key = tuple[int, int, str]
"""Period, charge, and whether it is overage or a minimum: what has one line on an invoice."""


class LatestBooking(NamedTuple):
    """The newest booking of a charge in a period."""

    balance_id: int
    sequence: int
    currency: str
    components: list[dict[str, Any]]
    amount_numerator: Decimal
    amount_denominator: Decimal


class BilledPeriod(NamedTuple):
    """A closed period with something unbilled."""

    subscription_id: int
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class UnbilledCharge:
    """
    The bookings of one charge in one closed period that no line bills, as one.

    `latest` is the newest booking of all, billed or not: it knows the cumulative amount. `before` is None where nothing of it was
    ever billed, or all of that was released.
    """

    period_id: int
    # Overage or minimum.
    kind: str
    latest: LatestBooking
    period: BilledPeriod
    # With its meter at hand.
    charge: Charge
    pool: str
    booking_ids: Sequence[int]
    quantity: Decimal
    before: InvoicedBefore | None

    @property
    def cumulative(self) -> Fraction:
        """What the charge has come to in the period, exactly."""
        return Fraction(self.latest.amount_numerator) / Fraction(self.latest.amount_denominator)


def unbilled_fee_items(*, until: Mapping[int, datetime | None]) -> dict[int, list[FeeItem]]:
    """
    Return the fees and credits that no line bills, in the order of their spans, by subscription id.

    `until` names the subscriptions, and for each up to when items are billable (None: all).
    """
    items = _unheld(FeeItem.objects.filter(subscription_id__in=list(until)), "fee_item")
    found: dict[int, list[FeeItem]] = {}
    for item in items.prefetch_related("version__tier", "credits").order_by("span_starts_at", "pk"):
        limit = until[item.subscription_id]
        if limit is None or item.billable_at <= limit:
            found.setdefault(item.subscription_id, []).append(item)
    return found


def unbilled_charges(*, subscription_ids: Iterable[int]) -> dict[int, list[UnbilledCharge]]:
    """
    Return what is unbilled of each charge in each closed period, oldest period first, by subscription id.

    The caller holds the subscriptions' locks, so that no other invoice takes the same bookings meanwhile.
    """
    ids: dict[_Key, list[int]] = {}
    quantities: dict[_Key, Decimal] = {}
    closed = OverageCharge.objects.filter(
        period__subscription_id__in=list(subscription_ids), period__closed_at__isnull=False
    ).order_by("period__sequence", "charge__position", "charge_id", "kind", "pk")
    for pk, quantity, *parts in _unheld(closed, "overage_charge").values_list(
        "pk", "quantity", "period_id", "charge_id", "kind"
    ):
        key = (parts[0], parts[1], parts[2])
        ids.setdefault(key, []).append(pk)
        with exact():
            quantities[key] = quantities.get(key, Decimal(0)) + quantity
    if not ids:
        return {}
    totals, billed = _booked(ids), _billed(ids)
    periods = _rows(BilledPeriod, BillingPeriod.objects.filter(pk__in={key[0] for key in ids}))
    charges = Charge.objects.select_related("meter").in_bulk({key[1] for key in ids})
    pools = _pools_of(total.latest.balance_id for total in totals.values())
    found: dict[int, list[UnbilledCharge]] = {}
    for key, booking_ids in ids.items():
        booked, period = totals[key], periods[key[0]]
        before = _invoiced_before(booked, billed.get(key), unheld=len(booking_ids), quantity=quantities[key])
        unbilled = UnbilledCharge(
            key[0],
            key[2],
            booked.latest,
            period,
            charges[key[1]],
            pools[booked.latest.balance_id],
            booking_ids,
            quantities[key],
            before,
        )
        found.setdefault(period.subscription_id, []).append(unbilled)
    return found


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
    latest: LatestBooking
    count: int
    quantity: Decimal


def _unheld(queryset: QuerySet, name: str) -> QuerySet:
    held = InvoiceLineSource.objects.filter(**{name: OuterRef("pk")}, released_at__isnull=True)
    return queryset.filter(~Exists(held))


def _booked(keys: Collection[_Key]) -> dict[_Key, _Booked]:
    """Sum all bookings of each key, billed or not, and find the newest."""
    rows = (
        OverageCharge.objects.filter(_any_of(keys))
        .values_list("period_id", "charge_id", "kind")
        .annotate(Count("pk"), Sum("quantity"), Max("pk"))
    )
    wanted = {(row[0], row[1], row[2]): row[3:] for row in rows if (row[0], row[1], row[2]) in keys}
    latest = _rows(LatestBooking, OverageCharge.objects.filter(pk__in=[last for _, _, last in wanted.values()]))
    return {key: _Booked(latest[last], count, quantity) for key, (count, quantity, last) in wanted.items()}


def _billed(keys: Collection[_Key]) -> dict[_Key, Decimal]:
    """Sum what lines that are not void bill of each key; a draft's lines count, for they will be final as they are."""
    rows = (
        InvoiceLine.objects.filter(_any_of(keys))
        .exclude(invoice__status=Invoice.Status.VOID)
        .values_list("period_id", "charge_id", "kind")
        .annotate(Sum("amount"))
        .order_by()
    )
    return {(row[0], row[1], row[2]): row[3] for row in rows}


def _any_of(keys: Collection[_Key]) -> Q:
    """Find all of these keys; others of the same periods may be found with them."""
    return Q(period_id__in={key[0] for key in keys}, charge_id__in={key[1] for key in keys})


def _rows(shape: type[_Row], queryset: QuerySet) -> dict[int, _Row]:
    """Return rows by id with the named columns alone: whole models cost more than a closing of hundreds can spare."""
    return {pk: shape(*values) for pk, *values in queryset.values_list("pk", *shape._fields)}


def _pools_of(balance_ids: Iterable[int]) -> dict[int, str]:
    return dict(MeterBalance.objects.filter(pk__in=set(balance_ids)).values_list("pk", "pool"))


def _invoiced_before(
    booked: _Booked, amount_billed: Decimal | None, *, unheld: int, quantity: Decimal
) -> InvoicedBefore | None:
    if booked.count == unheld:
        return None
    quantity_before = Fraction(booked.quantity) - Fraction(quantity)
    return InvoicedBefore(amount_billed or Decimal(0), quantity_before, bookings=booked.latest.sequence)
