"""
Proves an invoice: rates it again from the events themselves and from the immutable versions, and names every difference.

Nothing kept on the way is believed: not the totals, not the bookings' amounts, not the lines. Reads only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from invoices.models import Invoice, InvoiceLine
from invoices.selectors.billable import share_of_item, whole_amount
from invoices.selectors.invoices import bookings_of
from metering.core.overage import PricedPool, price_pool
from metering.models import MeterBalance, OverageCharge
from metering.selectors.overage import charges_of_pool
from metering.selectors.recount import recount
from subscriptions.core.money import exact, plain, quantize
from subscriptions.core.proration import prorate
from subscriptions.selectors.agreement import version_spans


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
    sources = list(line.sources.select_related("fee_item__version__tier", "fee_item__credits"))
    items = [source.fee_item for source in sources if source.fee_item is not None]
    if len(items) != 1:
        yield from _compare(line.number, "sources", Decimal(1), Decimal(len(items)))
        return
    [item] = items
    expected = prorate(whole_amount(item), share_of_item(item), currency=item.currency)
    if item.credits is not None:
        # A credit never gives back more than was left of its fee when it was made.
        expected = max(expected, item.amount)
    yield from _compare(line.number, "amount", expected, line.amount)


def _verify_usage(line: InvoiceLine) -> Iterator[Difference]:
    bookings = list(bookings_of(line).select_related("balance__meter", "balance__tenant", "balance__period"))
    if not bookings:
        yield from _compare(line.number, "sources", Decimal(1), Decimal(0))
        return
    last = bookings[-1]
    priced = _priced_again(last.balance, last.last_entry_id)
    cumulative = _cumulative(priced, last)
    recorded = Fraction(last.amount_numerator) / Fraction(last.amount_denominator)
    yield from _compare(line.number, "cumulative_amount", cumulative, recorded)
    before = _invoiced_before(line)
    with exact():
        expected = quantize(cumulative, line.currency) - before
    yield from _compare(line.number, "amount", expected, line.amount)


def _priced_again(balance: MeterBalance, last_entry_id: int) -> PricedPool:
    segments = recount(balance=balance, up_to_entry_id=last_entry_id)
    charges = [
        charge
        for span in version_spans(balance.period)
        for charge in charges_of_pool(span.version_id, balance.meter_id, balance.pool)
    ]
    return price_pool(segments, charges)


def _cumulative(priced: PricedPool, booking: OverageCharge) -> Fraction:
    parts = [part for part in priced.parts if part.charge_id == booking.charge_id]
    if booking.kind == OverageCharge.Kind.MINIMUM:
        return sum((part.top_up for part in parts), Fraction(0))
    return sum((part.amount for part in parts), Fraction(0))


def _invoiced_before(line: InvoiceLine) -> Decimal:
    """Return what earlier lines of the same charge and period bill, of invoices that are not void."""
    assert line.charge_id is not None  # only usage has a line before
    earlier = InvoiceLine.objects.filter(
        period_id=line.period_id, charge_id=line.charge_id, kind=line.kind, pk__lt=line.pk
    ).exclude(invoice__status=Invoice.Status.VOID)
    with exact():
        return sum(earlier.values_list("amount", flat=True), Decimal(0))


def _compare(
    line: int | None, field: str, expected: Decimal | Fraction, found: Decimal | Fraction
) -> Iterator[Difference]:
    if expected != found:
        yield Difference(line, field, _text(expected), _text(found))


def _text(number: Decimal | Fraction) -> str:
    return plain(number) if isinstance(number, Decimal) else str(number)
