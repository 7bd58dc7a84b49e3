"""Lines as values: amounts, components and words, on worked figures."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from invoices.core.lines import (
    LINE_ORDER,
    InvoicedBefore,
    LineKind,
    fee_line,
    grouped,
    share_words,
    span_words,
    usage_line,
    usage_words,
)
from subscriptions.core.proration import Share


def line_of(cumulative, *, before=None, quantity="100", kind=LineKind.OVERAGE, currency="USD", components=()):
    """Return a usage line of which only the figures matter."""
    return usage_line(
        kind=kind,
        description="Tokens",
        quantity=Fraction(quantity),
        cumulative=Fraction(cumulative),
        before=before,
        unit_amount=None,
        components=components,
        currency=currency,
    )


class TestFees:
    def test_a_whole_fee_says_its_price_once(self):
        line = fee_line(
            kind=LineKind.FEE,
            description="Growth",
            amount=Decimal("99.00"),
            whole=Decimal("99"),
            share=Share(1, 1),
            grain="",
            currency="USD",
        )
        assert (line.amount, line.amount_precise, line.quantity, line.unit_amount) == (
            Decimal("99.00"),
            Fraction(99),
            Fraction(1),
            Decimal("99.00"),
        )
        assert line.components == (
            {
                "kind": "fee",
                "band": None,
                "quantity": "1",
                "unit_amount": "99",
                "flat_amount": None,
                "total": "99",
            },
        )

    def test_a_share_of_a_fee_shows_its_days(self):
        line = fee_line(
            kind=LineKind.FEE,
            description="Growth",
            amount=Decimal("266.13"),
            whole=Decimal("499"),
            share=Share(16, 30),
            grain="day",
            currency="USD",
        )
        assert line.amount_precise == Fraction(3992, 15)
        assert line.components[0] == {
            "kind": "share",
            "band": None,
            "quantity": "0.533333333333333333",
            "unit_amount": "499",
            "flat_amount": None,
            "total": "266.133333333333333333",
            "numerator": 16,
            "divisor": 30,
            "grain": "day",
        }

    def test_a_credit_cut_to_what_was_left_is_precise_as_it_stands(self):
        line = fee_line(
            kind=LineKind.PRORATION,
            description="Growth",
            amount=Decimal("-9.00"),
            whole=Decimal("-99"),
            share=Share(16, 30),
            grain="day",
            currency="USD",
        )
        assert (line.amount, line.amount_precise) == (Decimal("-9.00"), Fraction(-9))
        assert line.components[0]["total"] == "-9"


class TestUsage:
    def test_the_replayed_trace_is_one_line(self):
        line = line_of("3659.1740", quantity="18295870")
        assert (line.amount, line.amount_precise) == (Decimal("3659.17"), Fraction("3659.174"))

    def test_late_usage_bills_only_the_difference_of_rounded_totals(self):
        before = InvoicedBefore(Decimal("3659.17"), Fraction(18295870), bookings=3)
        line = line_of("3659.1760", before=before, quantity="10")
        assert (line.amount, line.amount_precise) == (Decimal("0.01"), Fraction("0.006"))
        assert line.components[-1] == {
            "kind": "invoiced_before",
            "band": None,
            "quantity": "-18295870",
            "unit_amount": None,
            "flat_amount": None,
            "total": "-3659.17",
            "bookings": 3,
        }

    def test_halves_round_the_cumulative_amount_and_never_the_difference(self):
        # 0.005 rounds to 0.01, so taking back from 0.02 is −0.01; the difference alone, −0.015, would have rounded to −0.02.
        assert line_of("0.005", before=InvoicedBefore(Decimal("0.02"), Fraction(4), bookings=1)).amount == Decimal(
            "-0.01"
        )

    def test_usage_taken_back_is_a_negative_line(self):
        line = line_of("0", before=InvoicedBefore(Decimal("1.20"), Fraction(2000), bookings=1), quantity="-2000")
        assert (line.amount, line.quantity) == (Decimal("-1.20"), Fraction(-2000))

    def test_usage_that_rounds_to_nothing_is_still_listed(self):
        line = line_of("0.0006", quantity="3")
        assert (str(line.amount), line.amount_precise) == ("0.00", Fraction("0.0006"))

    def test_nothing_of_nothing_is_no_line(self):
        assert line_of("0", quantity="0") is None
        assert line_of("1.20", before=InvoicedBefore(Decimal("1.20"), Fraction(2000), bookings=1), quantity="0") is None

    def test_an_amount_without_units_is_a_line(self):
        assert line_of("5", quantity="0", kind=LineKind.MINIMUM).amount == Decimal("5.00")

    def test_yen_have_no_decimals(self):
        assert str(line_of("266.5", currency="JPY").amount) == "267"


class TestWords:
    def test_lines_are_listed_fees_first_and_minimums_last(self):
        assert sorted(LineKind, key=LINE_ORDER.__getitem__) == ["fee", "proration", "overage", "minimum"]

    @pytest.mark.parametrize(
        ("zone", "starts_at", "ends_at", "words"),
        [
            ("UTC", datetime(2026, 6, 1), datetime(2026, 7, 1), "1 June 2026 – 30 June 2026"),
            ("UTC", datetime(2026, 6, 1), datetime(2026, 6, 2), "1 June 2026"),
            ("UTC", datetime(2026, 6, 1, 10), datetime(2026, 7, 1, 10), "1 June 2026 10:00 – 1 July 2026 10:00"),
            ("Asia/Tokyo", datetime(2026, 5, 31, 15), datetime(2026, 6, 30, 15), "1 June 2026 – 30 June 2026"),
            ("Europe/Berlin", datetime(2026, 2, 28, 23), datetime(2026, 3, 31, 22), "1 March 2026 – 31 March 2026"),
        ],
    )
    def test_a_span_is_written_in_the_tenants_days(self, zone, starts_at, ends_at, words):
        assert span_words(starts_at.replace(tzinfo=UTC), ends_at.replace(tzinfo=UTC), zone) == words

    def test_shares_of_days_are_written_out(self):
        assert share_words(Share(16, 30), "day") == " (16 of 30 days)"
        assert share_words(Share(1432800, 2592000), "second") == ""

    def test_usage_says_what_is_included(self):
        assert (
            usage_words(meter="Tokens", dimensions=[], included=Decimal("10000")) == "Tokens beyond the 10,000 included"
        )
        assert usage_words(meter="Tokens", dimensions=[], included=Decimal(0)) == "Tokens"
        assert usage_words(meter="Tokens", dimensions=[("model", "")], included=None) == "Tokens (model: none)"

    def test_quantities_are_grouped_and_never_in_exponents(self):
        assert grouped(Decimal("1E+6")) == "1,000,000"
        assert grouped(Decimal("0.000000000001")) == "0.000000000001"
