"""Laws of thresholds: how usage comes in parts decides when each is told of, and never which, nor how often."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from metering.core.thresholds import Position, reached, threshold_of

quantities = st.decimals(min_value="0", max_value="1000000", places=3, allow_nan=False, allow_infinity=False)
positive = quantities.filter(bool)
documents = st.one_of(
    st.builds(lambda percent: {"percent": percent}, st.integers(1, 1000)),
    st.builds(lambda quantity: {"quantity": str(quantity)}, positive),
    st.builds(lambda amount: {"amount": str(amount)}, positive),
)
threshold_lists = st.lists(documents, min_size=1, max_size=6).map(lambda found: [threshold_of(one) for one in found])
PRICE = Fraction(1, 5000)


def position(used: Decimal, included: Decimal) -> Position:
    overage = max(Fraction(used) - Fraction(included), Fraction(0))
    return Position(used=used, included=included, quantity=used, amount=overage * PRICE)


def keys(thresholds, used, included):
    return {one.threshold.key for one in reached(thresholds, position(used, included))}


@given(threshold_lists, quantities, st.lists(positive, min_size=1, max_size=8))
def test_usage_in_parts_tells_each_once_and_the_same_as_usage_at_once(thresholds, included, parts):
    told: list[str] = []
    used = Decimal(0)
    for part in parts:
        used += part
        told += sorted(keys(thresholds, used, included) - set(told))
    assert len(told) == len(set(told))
    assert set(told) == keys(thresholds, used, included)


@given(threshold_lists, quantities, quantities, quantities)
def test_more_usage_reaches_no_less_and_more_included_reaches_no_more(thresholds, used, more, included):
    assert keys(thresholds, used, included) <= keys(thresholds, used + more, included)
    assert keys(thresholds, used, included + more) <= keys(thresholds, used, included)


@given(quantities, positive)
def test_a_hundred_percent_is_where_nothing_is_left(used, included):
    assert (keys([threshold_of({"percent": 100})], used, included) != set()) == (used >= included)


@given(threshold_lists, quantities)
def test_nothing_is_reached_by_no_usage(thresholds, included):
    assert reached(thresholds, position(Decimal(0), included)) == []
