"""Laws of invoices: totals conserve, and billing in parts bills what billing at once would."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from invoices.core.lines import InvoicedBefore, LineKind, fee_line, usage_line
from invoices.core.totals import total_up
from subscriptions.core.money import precise
from subscriptions.core.proration import Share

CENT = Fraction(1, 100)
cents = st.integers(-(10**10), 10**10).map(lambda units: Decimal(units).scaleb(-2))
cumulative_amounts = st.lists(st.fractions(0, 10**6, max_denominator=10**6), min_size=1, max_size=8)


def billed_in_parts(amounts, voided=()):
    """Bill each cumulative amount in turn, on top of the lines before; return the lines that are not void."""
    lines = []
    for place, amount in enumerate(amounts):
        live = [line for number, line in enumerate(lines) if number not in voided]
        before = InvoicedBefore(sum((line.amount for line in live), Decimal(0)), Fraction(0), bookings=place)
        line = usage_line(
            kind=LineKind.OVERAGE,
            description="",
            quantity=Fraction(1),
            cumulative=amount,
            before=before if lines else None,
            unit_amount=None,
            components=(),
            currency="USD",
        )
        lines.append(line)
    return [line for number, line in enumerate(lines) if number not in voided]


@given(lines=st.lists(cents, max_size=20), credit=cents)
def test_totals_conserve_every_cent(lines, credit):
    totals = total_up(lines, currency="USD", credit_available=credit)
    assert totals.subtotal == sum(lines)
    assert totals.total - totals.surplus == totals.subtotal + totals.tax
    assert totals.amount_due == totals.total - totals.credit_applied
    assert min(totals.total, totals.surplus, totals.credit_applied, totals.amount_due) >= 0
    assert totals.total == 0 or totals.surplus == 0
    assert totals.credit_applied <= max(credit, Decimal(0))


@given(lines=st.lists(cents, max_size=10), credit=cents)
def test_the_order_of_lines_changes_no_total(lines, credit):
    forwards = total_up(lines, currency="USD", credit_available=credit)
    assert forwards == total_up(reversed(lines), currency="USD", credit_available=credit)


@given(amounts=cumulative_amounts)
def test_parts_sum_to_the_cumulative_amount_rounded_once(amounts):
    billed = sum((Fraction(line.amount) for line in billed_in_parts(amounts)), Fraction(0))
    assert abs(billed - amounts[-1]) <= CENT / 2


@given(amounts=cumulative_amounts, data=st.data())
def test_voiding_any_part_but_the_last_leaves_the_same_sum(amounts, data):
    voided = data.draw(st.sets(st.integers(0, max(0, len(amounts) - 2))), label="voided") - {len(amounts) - 1}
    whole = sum((line.amount for line in billed_in_parts(amounts)), Decimal(0))
    assert sum((line.amount for line in billed_in_parts(amounts, voided)), Decimal(0)) == whole


@given(amount=st.fractions(0, 10**6, max_denominator=10**6), quantity=st.integers(0, 10**9))
def test_a_line_is_within_half_a_unit_of_what_it_was_rounded_from(amount, quantity):
    line = usage_line(
        kind=LineKind.OVERAGE,
        description="",
        quantity=Fraction(quantity),
        cumulative=amount,
        before=None,
        unit_amount=None,
        components=(),
        currency="USD",
    )
    assert (line is None) == (quantity == 0 and amount < CENT / 2)
    if line is not None:
        assert abs(Fraction(line.amount) - line.amount_precise) <= CENT / 2


@given(numerator=st.integers(0, 366), divisor=st.integers(1, 366), whole=cents)
def test_the_components_of_a_fee_sum_to_its_precise_amount(numerator, divisor, whole):
    share = Share(min(numerator, divisor), divisor)
    amount = Decimal(round(Fraction(whole) * share.fraction))
    line = fee_line(
        kind=LineKind.FEE, description="", amount=amount, whole=whole, share=share, grain="day", currency="USD"
    )
    assert sum(Decimal(component["total"]) for component in line.components) == precise(line.amount_precise)
