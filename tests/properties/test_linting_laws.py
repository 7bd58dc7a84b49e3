"""Laws of the linter: a cliff is exactly a stretch in which rating gives less, and only volume prices have any."""

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from subscriptions.core.cliffs import cliffs
from subscriptions.core.linting import LintedCharge, Rule, is_free, lint
from subscriptions.core.price_documents import parse_price
from subscriptions.core.pricing import Price, PriceModel, rate
from tests.properties.test_pricing_laws import BY_MODEL, LAW, fractions, monotone_prices, prices

volumes = BY_MODEL[PriceModel.VOLUME].map(parse_price)
FALLS = {Rule.VOLUME_CLIFF, Rule.NEGATIVE_MARGINAL_PRICE}


def findings(price: Price, **terms: Decimal) -> list:
    return lint(currency="USD", fee=Fraction(99), charges=[LintedCharge("charges.0", price, **terms)])


@given(monotone_prices)
@LAW
def test_no_price_but_volume_has_a_cliff(price):
    assert cliffs(price) == []
    assert not FALLS & {finding.rule for finding in findings(price)}


@given(volumes, st.fractions(min_value=0, max_value=1, max_denominator=50))
@LAW
def test_all_usage_inside_a_cliff_costs_less_than_its_start(price, inside):
    assume(0 < inside < 1)
    for cliff in cliffs(price):
        end = cliff.ends_at if cliff.ends_at is not None else cliff.starts_at + 1000
        assert rate(price, cliff.starts_at + (end - cliff.starts_at) * inside).amount < cliff.amount


@given(volumes)
@LAW
def test_the_end_of_a_cliff_costs_as_much_again(price):
    for cliff in cliffs(price):
        if cliff.ends_at is not None:
            beyond = cliff.ends_at + Fraction(1, 10**15)
            assert rate(price, beyond).amount >= cliff.amount


@given(volumes, st.lists(fractions, min_size=2, max_size=12))
@LAW
def test_usage_that_costs_less_than_less_usage_has_a_cliff_in_between(price, quantities):
    falls = cliffs(price)
    for less, more in pairwise(sorted(quantities)):
        if rate(price, more).amount < rate(price, less).amount:
            assert any(less <= cliff.starts_at <= more for cliff in falls)


@given(prices, fractions)
@LAW
def test_a_price_that_is_called_free_costs_nothing_for_any_usage(price, quantity):
    if is_free(price):
        assert rate(price, quantity, events=5, clamped=Decimal(0)).amount == 0


@given(prices, st.decimals(min_value=0, max_value=100, places=2))
@LAW
def test_any_price_can_be_linted_and_each_finding_stands_in_the_price(price, included):
    for finding in findings(price, included=included, overage_quantity_max=included):
        assert finding.path.startswith("charges.0.price")
        assert finding.message.endswith(".")
