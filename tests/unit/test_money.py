"""Rounding, minor units, splitting and the canonical text of a number."""

import doctest
from decimal import ROUND_DOWN, Decimal, FloatOperation, Inexact, InvalidOperation, localcontext
from fractions import Fraction

import pytest
from babel.core import get_global
from babel.numbers import get_currency_precision

from subscriptions.core import money

# Active in ISO 4217 with a minor unit, but nobody's everyday tender to CLDR: funds codes, inflation units, and the Salvadoran colón.
FUNDS_CODES = {"BOV", "CHE", "CHW", "CLF", "COU", "MXV", "SVC", "USN", "UYI", "UYW", "VED"}


def test_examples_in_the_docstrings_hold():
    assert doctest.testmod(money).failed == 0


class TestQuantize:
    @pytest.mark.parametrize(
        ("amount", "currency", "rounded"),
        [
            ("0.125", "USD", "0.13"),
            ("0.135", "USD", "0.14"),
            ("0.124999999999", "USD", "0.12"),
            ("-0.125", "USD", "-0.13"),
            ("-0.124", "USD", "-0.12"),
            ("0.5", "JPY", "1"),
            ("1.5", "JPY", "2"),
            ("2.5", "JPY", "3"),
            ("0.0005", "KWD", "0.001"),
            ("244.9134", "USD", "244.91"),
            ("231.68505", "USD", "231.69"),
            ("1E+3", "USD", "1000.00"),
            ("0.00005", "CLF", "0.0001"),
        ],
    )
    def test_halves_go_away_from_zero(self, amount, currency, rounded):
        assert str(money.quantize(Decimal(amount), currency)) == rounded

    def test_fractions_that_never_end_are_rounded_exactly(self):
        assert money.quantize(Fraction(499 * 16, 30), "JPY") == Decimal("266")
        assert money.quantize(Fraction(499 * 16, 30), "KWD") == Decimal("266.133")
        just_under_half = Fraction(1, 200) - Fraction(1, 10**60)
        assert money.quantize(just_under_half, "USD") == Decimal("0.00")

    @pytest.mark.parametrize("amount", [Decimal("-0.001"), Decimal("-0"), Fraction(-1, 1000)])
    def test_zero_is_never_negative(self, amount):
        assert str(money.quantize(amount, "USD")) == "0.00"

    def test_the_context_of_the_caller_changes_nothing(self):
        with localcontext() as context:
            context.prec, context.rounding = 3, ROUND_DOWN
            assert money.quantize(Decimal("123456789012345678.995"), "USD") == Decimal("123456789012345679.00")

    def test_a_million_calls_of_three_tokens_cost_six_hundred_dollars(self):
        assert money.quantize(Decimal("0.0002") * 3 * 1_000_000, "USD") == Decimal("600.00")

    @pytest.mark.parametrize("text", ["NaN", "sNaN", "Infinity", "-Infinity", "1E+999999", "1E-999999"])
    def test_what_is_no_amount_is_refused_at_once(self, text):
        with pytest.raises(ValueError, match="not a number to calculate with"):
            money.quantize(Decimal(text), "USD")

    def test_a_float_is_refused(self):
        with pytest.raises(TypeError, match="float"):
            money.quantize(0.125, "USD")

    def test_an_unknown_currency_is_refused(self):
        with pytest.raises(money.UnknownCurrency):
            money.quantize(Decimal("1"), "XXX")


class TestMinorUnits:
    def test_the_table_agrees_with_cldr(self):
        assert {code: get_currency_precision(code) for code in money.MINOR_UNITS} == money.MINOR_UNITS

    def test_every_currency_in_use_is_there(self):
        in_use = {
            code
            for currencies in get_global("territory_currencies").values()
            for code, _start, end, is_tender in currencies
            if end is None and is_tender
        }
        assert set(money.MINOR_UNITS) - in_use == FUNDS_CODES
        assert in_use <= set(money.MINOR_UNITS)

    @pytest.mark.parametrize("code", ["usd", "USDX", "", "XAU", "XTS", "XXX", "HRK", "DEM", "BTC", "EUR "])
    def test_other_codes_are_refused(self, code):
        with pytest.raises(money.UnknownCurrency, match="ISO 4217"):
            money.minor_units(code)


class TestExactArithmetic:
    def test_products_of_the_largest_numbers_are_exact(self):
        quantity = Decimal("999999999999999999.999999999999")
        with money.exact():
            product = quantity * quantity
        assert product == Decimal("999999999999999999999999999998000000.000000000000000000000001")

    def test_a_division_that_never_ends_is_refused(self):
        with money.exact(), pytest.raises(Inexact):
            Decimal(1) / Decimal(3)

    def test_floats_and_meaningless_operations_are_refused(self):
        with money.exact(), pytest.raises(FloatOperation):
            Decimal(0.1)  # noqa: RUF032
        with money.exact(), pytest.raises(InvalidOperation):
            Decimal("Infinity") - Decimal("Infinity")

    def test_the_context_ends_with_the_block(self):
        with money.exact():
            pass
        assert Decimal(1) / Decimal(3) == Decimal("0.3333333333333333333333333333")


class TestIsRepresentable:
    @pytest.mark.parametrize(
        ("amount", "currency", "representable"),
        [
            ("1.10", "USD", True),
            ("1.101", "USD", False),
            ("1.100000", "USD", True),
            ("1.1", "JPY", False),
            ("1E+3", "JPY", True),
            ("-0.001", "KWD", True),
            ("0E-20", "JPY", True),
            ("1E-400", "USD", False),
            ("1E+400", "USD", False),
            ("NaN", "USD", False),
            ("Infinity", "USD", False),
        ],
    )
    def test_an_amount_finer_than_its_currency_is_found(self, amount, currency, representable):
        assert money.is_representable(Decimal(amount), currency) is representable


class TestAllocate:
    @pytest.mark.parametrize(
        ("total", "weights", "currency", "parts"),
        [
            ("100.00", [1, 1, 1], "USD", ["33.34", "33.33", "33.33"]),
            ("-100.00", [1, 1, 1], "USD", ["-33.34", "-33.33", "-33.33"]),
            ("0.05", [3, 7], "USD", ["0.02", "0.03"]),
            ("10", [1, 2, 3, 4], "JPY", ["1", "2", "3", "4"]),
            ("100", [Fraction(1, 3), Fraction(2, 3)], "JPY", ["33", "67"]),
            ("1", [5, 3], "KWD", ["0.625", "0.375"]),
            ("0.01", [0, 1, 0], "USD", ["0.00", "0.01", "0.00"]),
            ("0.03", [0, 0], "USD", ["0.02", "0.01"]),
            ("0", [2, 3], "USD", ["0.00", "0.00"]),
            ("7.00", [Decimal("0.4")], "USD", ["7.00"]),
        ],
    )
    def test_parts_follow_the_weights_and_sum_to_the_total(self, total, weights, currency, parts):
        assert [str(part) for part in money.allocate(Decimal(total), weights, currency=currency)] == parts

    def test_a_total_finer_than_the_currency_is_refused(self):
        with pytest.raises(ValueError, match="finer than the smallest unit of JPY"):
            money.allocate(Decimal("1.5"), [1, 1], currency="JPY")

    def test_a_negative_weight_is_refused(self):
        with pytest.raises(ValueError, match="negative"):
            money.allocate(Decimal("1"), [2, -1], currency="USD")

    def test_an_amount_is_never_lost_for_want_of_parts(self):
        with pytest.raises(ValueError, match="nothing to allocate"):
            money.allocate(Decimal("1"), [], currency="USD")


class TestPrecise:
    @pytest.mark.parametrize(
        ("amount", "stored"),
        [
            (Fraction(2449134, 10000), "244.9134"),
            (Fraction(1, 3), "0.333333333333333333"),
            (Fraction(-2, 3), "-0.666666666666666667"),
            (Fraction(1, 2**40), "0.0000000000009094947017729282379150390625"),
            (Fraction(1, 2**41), "0.000000000000454747"),
            (Fraction(3, 2 * 10**18 * 2**41), "0.000000000000000000"),
            (Decimal("1E+3"), "1000"),
            (Decimal("0.100"), "0.1"),
            (Fraction(0), "0"),
        ],
    )
    def test_what_ends_within_forty_decimals_is_exact_and_the_rest_has_eighteen(self, amount, stored):
        assert format(money.precise(amount), "f") == stored

    def test_halves_at_the_eighteenth_decimal_go_to_even(self):
        half_of_the_last_place = Fraction(1, 2 * 10**18)
        too_long = Fraction(1, 10**60)
        assert money.precise(half_of_the_last_place) == Decimal("5E-19")
        assert money.precise(half_of_the_last_place + too_long) == Decimal("1E-18")
        assert money.precise(half_of_the_last_place - too_long) == Decimal("0")

    def test_it_keeps_more_digits_than_the_usual_context_has(self):
        amount = Fraction(10**36 + 1, 10**12)
        assert money.precise(amount) == Decimal("1000000000000000000000000.000000000001")


class TestPlain:
    @pytest.mark.parametrize(
        ("number", "text"),
        [
            ("3659.174", "3659.174"),
            ("3659.1740", "3659.174"),
            ("0", "0"),
            ("-0", "0"),
            ("0E+5", "0"),
            ("-0.000", "0"),
            ("1E+2", "100"),
            ("100", "100"),
            ("100.00", "100"),
            ("1E-12", "0.000000000001"),
            ("-1.50", "-1.5"),
            ("999999999999999999.999999999999", "999999999999999999.999999999999"),
        ],
    )
    def test_equal_numbers_have_one_text(self, number, text):
        assert money.plain(Decimal(number)) == text

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "1E+999999999"])
    def test_what_has_no_plain_text_is_refused(self, number):
        with pytest.raises(ValueError, match="not a number"):
            money.plain(Decimal(number))
