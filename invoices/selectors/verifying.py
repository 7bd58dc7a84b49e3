"""
Proves an invoice: rates it again from the events themselves and from the immutable versions, and names every difference.

Nothing kept on the way is believed: not the totals, not the bookings' amounts, not the lines. Reads only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from invoices.models import Invoice, InvoiceLine, InvoiceLineSource
from invoices.selectors.billable import whole_amount
from invoices.selectors.invoices import bookings_of
from invoices.selectors.sources import cumulative_amount
from metering.core.overage import PricedPool, price_pool
from metering.models import MeterBalance, OverageCharge
from metering.selectors.overage import charges_in_force, versions_in_force
from metering.selectors.recount import recount
from subscriptions.core.money import exact, plain, precise, quantize
from subscriptions.core.proration import Share, prorate
from subscriptions.models import FeeItem


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of an invoice that rating again does not confirm. `line` is None for the invoice's own figures."""

    line: int | None
    field: str
    expected: str
    found: str


def verify(invoice: Invoice) -> list[Difference]:
    """
    Return what an invoice says otherwise than its events and versions do; empty when it is proved.

    `expected` is what rating again gives, `found` what the invoice says. Reads every event of the periods that it bills.
    """
    lines = list(invoice.lines.select_related("period__subscription", "charge__meter", "tier_version"))
    differences = [difference for line in lines for difference in _verify_line(line)]
    with exact():
        subtotal = sum((line.amount for line in lines), Decimal(0))
        total = max(subtotal + invoice.tax, Decimal(0))
        due = total - invoice.credit_applied
    for field, expected in (("subtotal", subtotal), ("total", total), ("amount_due", due)):
        differences += _compare(None, field, expected, getattr(invoice, field))
    return differences


def _verify_line(line: InvoiceLine) -> Iterator[Difference]:
    if line.charge_id is not None:
        yield from _verify_usage(line)
        return
    sources = list(line.sources.select_related("fee_item__credits"))
    items = [source.fee_item for source in sources if source.fee_item is not None]
    # In arrears a fee stands on one line with what was given back of it before.
    alone = [item for item in items if item.credits_id not in {one.pk for one in items}]
    if len(alone) != 1:
        yield from _compare(line.number, "sources", Decimal(1), Decimal(len(alone)))
        return
    with exact():
        expected = sum((_expected_of_item(item) for item in items), Decimal(0))
    yield from _compare(line.number, "amount", expected, line.amount)


def _expected_of_item(item: FeeItem) -> Decimal:
    """Return the share of the version's fee; of a credit, what its share gives back beyond the credits made before it."""
    whole = whole_amount(item.version_id, credited=item.credits.amount if item.credits else None)
    share = prorate(whole, Share(item.share_numerator, item.share_divisor), currency=item.currency)
    if item.credits is None:
        return share
    earlier = item.credits.credited_by.filter(pk__lt=item.pk).values_list("amount", flat=True)
    with exact():
        return share - sum(earlier, Decimal(0))


def _verify_usage(line: InvoiceLine) -> Iterator[Difference]:
    if not bookings_of(line).exists():
        yield from _compare(line.number, "sources", Decimal(1), Decimal(0))
        return
    last, before = _as_it_was_drafted(line)
    # Usage is billed after closing, which has seen every entry up to its own, also where it found nothing more to book.
    seen = max(last.last_entry_id, last.balance.closing_entry_id or 0)
    cumulative = _cumulative(_priced_again(last.balance, seen), last)
    yield from _compare(line.number, "cumulative_amount", cumulative, cumulative_amount(last))
    with exact():
        yield from _compare(line.number, "amount", quantize(cumulative, line.currency) - before, line.amount)
    yield from _compare(line.number, "amount_precise", precise(cumulative - Fraction(before)), line.amount_precise)


def _as_it_was_drafted(line: InvoiceLine) -> tuple[OverageCharge, Decimal]:
    """
    Return the newest booking that the line's cumulative amount counts, and the sum of the other lines that then billed part of it.

    A draft takes every booking that no line holds. So a booking was held by the last line, up to this one, that names it; a line that was
    voided before is no holder any more, one that was voided afterwards still is.
    """
    assert line.charge_id is not None  # only usage has bookings
    sources = InvoiceLineSource.objects.filter(
        overage_charge__period_id=line.period_id,
        overage_charge__charge_id=line.charge_id,
        overage_charge__kind=line.kind,
        line_id__lte=line.pk,
    )
    holders = dict(sources.order_by("line_id").values_list("overage_charge_id", "line_id"))
    last = (
        OverageCharge.objects.select_related("balance__meter", "balance__tenant", "balance__period")
        .filter(pk__in=holders)
        .latest("sequence")
    )
    others = InvoiceLine.objects.filter(pk__in=set(holders.values()) - {line.pk})
    with exact():
        return last, sum(others.values_list("amount", flat=True), Decimal(0))


def _priced_again(balance: MeterBalance, last_entry_id: int) -> PricedPool:
    segments = recount(balance=balance, up_to_entry_id=last_entry_id)
    return price_pool(segments, charges_in_force(balance, versions_in_force(balance.period)))


def _cumulative(priced: PricedPool, booking: OverageCharge) -> Fraction:
    parts = [part for part in priced.parts if part.charge_id == booking.charge_id]
    if booking.kind == OverageCharge.Kind.MINIMUM:
        return sum((part.top_up for part in parts), Fraction(0))
    return sum((part.amount for part in parts), Fraction(0))


def _compare(
    line: int | None, field: str, expected: Decimal | Fraction, found: Decimal | Fraction
) -> Iterator[Difference]:
    if expected != found:
        yield Difference(line, field, _text(expected), _text(found))


def _text(number: Decimal | Fraction) -> str:
    return plain(number) if isinstance(number, Decimal) else str(number)
