"""From lines to the amount due: worked figures."""

from decimal import Decimal

import pytest

from invoices.core.totals import Totals, total_up


def test_the_replayed_trace_costs_its_overage_and_the_next_fee():
    totals = total_up([Decimal("99.00"), Decimal("3659.17")], currency="USD")
    assert totals == Totals(
        subtotal=Decimal("3758.17"),
        tax=Decimal("0.00"),
        total=Decimal("3758.17"),
        surplus=Decimal("0.00"),
        credit_applied=Decimal("0.00"),
        amount_due=Decimal("3758.17"),
    )


def test_an_invoice_below_zero_is_zero_and_the_rest_is_credit():
    totals = total_up([Decimal("-52.80"), Decimal("20.00")], currency="USD", credit_available=Decimal("5.00"))
    assert (totals.subtotal, totals.total, totals.surplus) == (Decimal("-32.80"), Decimal("0.00"), Decimal("32.80"))
    assert (totals.credit_applied, totals.amount_due) == (Decimal("0.00"), Decimal("0.00"))


def test_credit_is_used_as_far_as_it_goes():
    partly = total_up([Decimal("99.00")], currency="USD", credit_available=Decimal("32.80"))
    assert (partly.credit_applied, partly.amount_due) == (Decimal("32.80"), Decimal("66.20"))
    wholly = total_up([Decimal("99.00")], currency="USD", credit_available=Decimal("500.00"))
    assert (wholly.credit_applied, wholly.amount_due) == (Decimal("99.00"), Decimal("0.00"))


def test_a_debt_is_not_credit():
    assert total_up([Decimal("1.00")], currency="USD", credit_available=Decimal("-3.00")).amount_due == Decimal("1.00")


def test_no_lines_are_nothing():
    totals = total_up([], currency="JPY")
    assert (totals.subtotal, totals.total, totals.amount_due) == (Decimal(0), Decimal(0), Decimal(0))


def test_figures_carry_the_decimals_of_their_currency():
    assert str(total_up([Decimal("266")], currency="JPY").total) == "266"
    assert str(total_up([Decimal("266.133")], currency="KWD").total) == "266.133"


def test_a_line_that_was_not_rounded_is_refused():
    with pytest.raises(ValueError, match="finer than the smallest unit"):
        total_up([Decimal("0.005")], currency="USD")
    with pytest.raises(ValueError, match="finer than the smallest unit"):
        total_up([Decimal("0.5")], currency="JPY")


def test_a_huge_invoice_is_summed_exactly():
    lines = [Decimal("999999999999999999.99"), Decimal("0.01"), Decimal("-0.02")]
    assert total_up(lines, currency="USD").total == Decimal("999999999999999999.98")
