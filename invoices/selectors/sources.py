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

from billing_site.database import among
from invoices.core.lines import InvoicedBefore
from invoices.models import Invoice, InvoiceLine, InvoiceLineSource
from metering.models import OverageCharge
from subscriptions.core.money import exact
from subscriptions.models import Charge, FeeItem
from subscriptions.selectors.agreement import terms_id_in

_Row = TypeVar("_Row", bound=NamedTuple)
_Key = tuple[int, int, str]
"""Period, charge, and whether it is overage or a minimum: what has one line on an invoice."""


class UnbilledFee(NamedTuple):
    """A fee or a credit that no line bills: columns of its FeeItem."""

    pk: int
    subscription_id: int
    period_id: int
    version_id: int
    kind: str
    span_starts_at: datetime
    span_ends_at: datetime
    share_numerator: int
    share_divisor: int
    share_grain: str
    currency: str
    amount: Decimal
    billable_at: datetime
    # The fee that a credit gives back a part of, and its amount; None for a fee.
    credits_id: int | None
    credits__amount: Decimal | None


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
    kind: str


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
    def terms_id(self) -> int:
        """The id of the terms by which it was priced."""
        return terms_id_in(self.period.kind, self.charge.version_id)

    @property
    def cumulative(self) -> Fraction:
        """What the charge has come to in the period, exactly."""
        return Fraction(int(self.latest.amount_numerator), int(self.latest.amount_denominator))


def unbilled_fee_items(*, until: Mapping[int, datetime | None]) -> dict[int, list[UnbilledFee]]:
    """
    Return the fees and credits that no line bills, in the order of their spans, by subscription id.

    `until` names the subscriptions, and for each up to when items are billable (None: all).
    """
    rows = _unheld(FeeItem.objects.filter(among("subscription_id", until)), "fee_item")
    found: dict[int, list[UnbilledFee]] = {}
    for item in map(UnbilledFee._make, rows.order_by("span_starts_at", "pk").values_list(*UnbilledFee._fields)):
        limit = until[item.subscription_id]
        if limit is None or item.billable_at <= limit:
            found.setdefault(item.subscription_id, []).append(item)
    return found


def unbilled_charges(*, subscription_ids: Iterable[int]) -> dict[int, list[UnbilledCharge]]:
    """
    Return what is unbilled of each charge in each closed period, oldest period first, by subscription id.

    The caller holds the subscriptions' locks, so that no other invoice takes the same bookings meanwhile.
    """
    bookings: dict[_Key, list[_UnbilledBooking]] = {}
    for booking in _unbilled_bookings(subscription_ids):
        bookings.setdefault((booking.period_id, booking.charge_id, booking.kind), []).append(booking)
    if not bookings:
        return {}
    partly = [key for key, unheld in bookings.items() if unheld[0].is_billed_in_part]
    totals, billed = (_booked(partly), _billed(partly)) if partly else ({}, {})
    charges = Charge.objects.select_related("meter").in_bulk({key[1] for key in bookings})
    found: dict[int, list[UnbilledCharge]] = {}
    for key, unheld in bookings.items():
        one = unheld[-1]
        with exact():
            quantity = sum((booking.quantity for booking in unheld), Decimal(0))
        # Where no line bills any of it, the newest booking of all is the newest of these.
        latest, before = LatestBooking._make(one[:_LATEST]), None
        if key in totals:
            latest = totals[key].latest
            before = _invoiced_before(totals[key], billed.get(key), unheld=len(unheld), quantity=quantity)
        unbilled = UnbilledCharge(
            key[0],
            key[2],
            latest,
            BilledPeriod(one.period__subscription_id, one.period__starts_at, one.period__ends_at, one.period__kind),
            charges[key[1]],
            one.balance__pool,
            [booking.pk for booking in unheld],
            quantity,
            before,
        )
        found.setdefault(one.period__subscription_id, []).append(unbilled)
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
    return Fraction(int(booking.amount_numerator), int(booking.amount_denominator))


class _UnbilledBooking(NamedTuple):
    """A booking that no line bills, with what a line needs of its period; it begins as a LatestBooking does."""

    balance_id: int
    sequence: int
    currency: str
    components: list[dict[str, Any]]
    amount_numerator: Decimal
    amount_denominator: Decimal
    pk: int
    quantity: Decimal
    period_id: int
    charge_id: int
    kind: str
    period__subscription_id: int
    period__starts_at: datetime
    period__ends_at: datetime
    period__kind: str
    balance__pool: str
    # Whether a line bills another booking of the same charge.
    is_billed_in_part: bool


_LATEST = len(LatestBooking._fields)


def _unbilled_bookings(subscription_ids: Iterable[int]) -> Iterable[_UnbilledBooking]:
    closed = OverageCharge.objects.filter(
        among("period__subscription_id", subscription_ids), period__closed_at__isnull=False
    )
    of_same = InvoiceLineSource.objects.filter(
        overage_charge__period=OuterRef("period"),
        overage_charge__charge=OuterRef("charge"),
        overage_charge__kind=OuterRef("kind"),
        released_at__isnull=True,
    )
    rows = (
        _unheld(closed, "overage_charge")
        .annotate(is_billed_in_part=Exists(of_same))
        .order_by("period__sequence", "charge__position", "charge_id", "kind", "pk")
    )
    return map(_UnbilledBooking._make, rows.values_list(*_UnbilledBooking._fields))


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


def _invoiced_before(
    booked: _Booked, amount_billed: Decimal | None, *, unheld: int, quantity: Decimal
) -> InvoicedBefore | None:
    if booked.count == unheld:
        return None
    quantity_before = Fraction(booked.quantity) - Fraction(quantity)
    return InvoicedBefore(amount_billed or Decimal(0), quantity_before, bookings=booked.latest.sequence)
