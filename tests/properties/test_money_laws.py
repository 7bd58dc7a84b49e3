"""Laws of money: rounding is near, odd, monotone and final; allocation conserves; text is canonical."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from subscriptions.core import money

LAWS = settings(deadline=None, max_examples=100)

currencies = st.sampled_from(["USD", "JPY", "KWD", "CLF"])
fractions = st.fractions(min_value=-(10**18), max_value=10**18, max_denominator=10**12)
decimals = st.decimals(min_value=-(10**18), max_value=10**18, places=12, allow_nan=False, allow_infinity=False)
weight = st.builds(Fraction, st.integers(min_value=0, max_value=10**9), st.integers(min_value=1, max_value=10**6))
weights = st.lists(weight | st.just(Fraction(0)), min_size=1, max_size=8)
whole_units = st.integers(min_value=-(10**15), max_value=10**15)


def smallest_unit(currency):
    return Fraction(1, 10 ** money.minor_units(currency))


@LAWS
@given(amount=fractions, currency=currencies)
def test_rounding_moves_an_amount_by_half_a_unit_at_most(amount, currency):
    rounded = money.quantize(amount, currency)
    assert abs(Fraction(rounded) - amount) <= smallest_unit(currency) / 2
    assert money.is_representable(rounded, currency)
    assert money.quantize(rounded, currency) == rounded


@LAWS
@given(units=whole_units, currency=currencies)
def test_exact_halves_go_away_from_zero(units, currency):
    half = (Fraction(units) + Fraction(1, 2)) * smallest_unit(currency)
    rounded = Fraction(money.quantize(half, currency))
    assert abs(rounded) - abs(half) == smallest_unit(currency) / 2


@LAWS
@given(amount=fractions, currency=currencies)
def test_a_credit_is_rounded_like_the_charge_that_it_mirrors(amount, currency):
    assert money.quantize(-amount, currency) == -money.quantize(amount, currency)


@LAWS
@given(first=fractions, second=fractions, currency=currencies)
def test_rounding_keeps_the_order(first, second, currency):
    low, high = sorted([first, second])
    assert money.quantize(low, currency) <= money.quantize(high, currency)


@LAWS
@given(amount=decimals, currency=currencies)
def test_decimals_and_fractions_are_rounded_alike(amount, currency):
    assert str(money.quantize(amount, currency)) == str(money.quantize(Fraction(amount), currency))


@LAWS
@given(units=whole_units, weights=weights, currency=currencies)
def test_allocation_conserves_and_each_part_is_within_a_unit_of_its_share(units, weights, currency):
    unit = smallest_unit(currency)
    total = money.quantize(units * unit, currency)
    parts = money.allocate(total, weights, currency=currency)

    assert sum(parts) == total
    assert len(parts) == len(weights)
    assert all(money.is_representable(part, currency) for part in parts)
    if any(weights):
        exact_shares = [Fraction(total) * weight / sum(weights) for weight in weights]
        assert all(abs(Fraction(part) - share) < unit for part, share in zip(parts, exact_shares, strict=True))


@LAWS
@given(units=whole_units, weights=weights, currency=currencies)
def test_nothing_is_allocated_to_a_weight_of_zero(units, weights, currency):
    assume(any(weights))
    parts = money.allocate(money.quantize(units * smallest_unit(currency), currency), [*weights, 0], currency=currency)
    assert parts[-1] == 0


@LAWS
@given(units=whole_units, weights=weights)
def test_allocating_a_credit_mirrors_allocating_the_charge(units, weights):
    total = Decimal(units)
    parts = money.allocate(total, weights, currency="JPY")
    assert money.allocate(-total, weights, currency="JPY") == [-part for part in parts]


@LAWS
@given(number=decimals, exponent=st.integers(min_value=-12, max_value=12))
def test_equal_numbers_have_one_text_and_the_text_is_the_number(number, exponent):
    number = number.scaleb(exponent)
    text = money.plain(number)
    assert Decimal(text) == number
    assert money.plain(Decimal(text)) == text
    assert not set(text) & set("Ee+")
    assert text != "-0"
    assert not text.startswith(".")
    if "." in text:
        assert text[-1] not in "0."


@LAWS
@given(number=fractions)
def test_the_stored_precise_amount_is_exact_or_within_half_of_the_eighteenth_decimal(number):
    stored = Fraction(money.precise(number))
    assert abs(stored - number) <= Fraction(1, 2 * 10**18)


@LAWS
@given(number=decimals)
def test_every_decimal_is_stored_exactly(number):
    assert money.precise(number) == number
