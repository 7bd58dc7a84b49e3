"""Laws of rating that hold for every price, and a slow obvious twin of the graduated walk."""

import json
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from subscriptions.core.price_documents import PriceError, parse_price, price_document
from subscriptions.core.pricing import (
    RATES_WHOLE_VALUE,
    Price,
    PriceModel,
    Rated,
    clamp_event,
    rate,
    rate_part,
)

LAW = settings(deadline=None, max_examples=150)

amounts = st.decimals(min_value=0, max_value=1000, places=4) | st.decimals(
    min_value=0, max_value=Decimal("0.001"), places=12
)
limits = st.decimals(min_value=Decimal("0.01"), max_value=200, places=2)
quantities = st.decimals(min_value=0, max_value=300, places=3) | st.integers(min_value=0, max_value=300).map(Decimal)
fractions = st.fractions(min_value=0, max_value=300, max_denominator=60)
transforms = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["multiply", "divide"]),
        "by": st.decimals(min_value=Decimal("0.1"), max_value=20, places=1),
        "round": st.sampled_from(["up", "down", "half_up", "none"]),
    }
)
SPEND = {
    "percent_discount": st.decimals(min_value=0, max_value=100, places=2),
    "amount_max": amounts,
    "amount_min": amounts,
}
UNITS = {"transform": transforms, "free_units": limits, **SPEND}


@st.composite
def band_lists(draw: st.DrawFn, amount: str = "unit_amount") -> list[dict[str, Any]]:
    bounds = sorted(draw(st.sets(limits, max_size=4)))
    return [{"up_to": bound, amount: draw(amounts), "flat_amount": draw(amounts)} for bound in [*bounds, None]]


def documents(model: str, required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"model": st.just(model), **required}, optional=optional).map(in_order)


def in_order(document: dict[str, Any]) -> dict[str, Any]:
    """Exchange a minimum spend above the maximum with it, because such a price is refused."""
    least, most = document.get("amount_min"), document.get("amount_max")
    if least is None or most is None or least <= most:
        return document
    return document | {"amount_min": most, "amount_max": least}


zero_usages = {"zero_usage": st.sampled_from(["zero", "first_tier_flat"])}
banded = {"bands": band_lists()}
per_event = {"fixed_amount": amounts, "free_value": limits, "free_events": st.integers(0, 9)}
bounds_per_event = {"fixed_amount": amounts, "minimum_per_event": amounts}

BY_MODEL = {
    PriceModel.FLAT: documents("flat", {"amount": amounts}, SPEND),
    PriceModel.PER_UNIT: documents("per_unit", {"unit_amount": amounts}, UNITS),
    PriceModel.PACKAGE: documents("package", {"size": limits, "amount": amounts}, UNITS),
    PriceModel.GRADUATED: documents("graduated", banded, UNITS | zero_usages),
    PriceModel.VOLUME: documents("volume", banded, UNITS | zero_usages),
    PriceModel.PERCENTAGE: documents("percentage", {"rate": amounts}, per_event | SPEND | {"transform": transforms})
    | documents("percentage", {"rate": amounts}, bounds_per_event | SPEND),
    PriceModel.GRADUATED_PERCENTAGE: documents(
        "graduated_percentage", {"bands": band_lists("rate")}, SPEND | zero_usages | {"transform": transforms}
    ),
    PriceModel.DYNAMIC: documents("dynamic", {"multiplier": amounts}, SPEND | {"transform": transforms}),
}
prices = st.one_of(*BY_MODEL.values()).map(parse_price)
axis_prices = st.one_of(*(documents for model, documents in BY_MODEL.items() if model not in RATES_WHOLE_VALUE)).map(
    parse_price
)
# Volume falls where a cheaper band is reached, so it is not among them.
monotone_prices = st.one_of(*(documents for model, documents in BY_MODEL.items() if model != PriceModel.VOLUME)).map(
    parse_price
)


def rate_value(price: Price, values: list[Decimal]) -> Rated:
    clamped = None
    if price.model == PriceModel.PERCENTAGE:
        clamped = sum((Fraction(clamp_event(price, value)) for value in values), Fraction(0))
    return rate(price, sum(values, Decimal(0)), events=len(values), clamped=clamped)


def assert_components_explain(rated: Rated) -> None:
    assert sum((component.total for component in rated.components), Fraction(0)) == rated.amount
    for component in rated.components:
        if component.unit_amount is not None:
            product = component.quantity * Fraction(component.unit_amount)
            assert component.total == product + Fraction(component.flat_amount or 0)
        json.dumps(component.document())


@LAW
@given(price=prices, values=st.lists(quantities, max_size=4))
def test_the_components_sum_to_the_amount_and_an_amount_is_never_negative(price: Price, values: list[Decimal]) -> None:
    rated = rate_value(price, values)
    assert_components_explain(rated)
    assert rated.amount >= 0
    if price.amount_max is not None:
        assert rated.amount <= Fraction(price.amount_max)


@LAW
@given(price=monotone_prices, values=st.lists(quantities, min_size=1, max_size=4))
def test_amounts_never_fall_as_usage_rises(price: Price, values: list[Decimal]) -> None:
    cumulative = [rate_value(price, values[:count]).amount for count in range(len(values) + 1)]
    assert cumulative == sorted(cumulative)


@settings(LAW, max_examples=200)
@given(price=axis_prices, cuts=st.lists(fractions, max_size=4), total=fractions)
def test_the_parts_of_any_partition_sum_to_the_whole(price: Price, cuts: list[Fraction], total: Fraction) -> None:
    inner = sorted(cut for cut in cuts if cut <= total)
    edges = [Fraction(0), *inner, total] if total else [Fraction(0), Fraction(0)]
    parts = [rate_part(price, start, end, total=total) for start, end in pairwise(edges)]
    whole = rate(price, total)
    assert sum((part.amount for part in parts), Fraction(0)) == whole.amount
    assert sum((part.top_up for part in parts), Fraction(0)) == whole.top_up
    for part in parts:
        assert part.amount >= 0
        assert_components_explain(part)


@LAW
@given(price=axis_prices, total=fractions)
def test_the_one_part_of_an_axis_is_the_whole(price: Price, total: Fraction) -> None:
    assert rate_part(price, 0, total, total=total) == rate(price, total)


@LAW
@given(price=axis_prices, start=fractions, middle=fractions, end=fractions)
def test_splitting_a_part_between_equal_prices_alters_nothing(
    price: Price, start: Fraction, middle: Fraction, end: Fraction
) -> None:
    start, middle, end = sorted([start, middle, end])
    total = end + 1
    first = rate_part(price, start, middle, total=total)
    second = rate_part(price, middle, end, total=total)
    assert first.amount + second.amount == rate_part(price, start, end, total=total).amount


@LAW
@given(
    document=st.fixed_dictionaries({"model": st.just("graduated"), "bands": band_lists()}),
    hundredths=st.integers(0, 900),
)
def test_the_graduated_walk_is_the_sum_over_single_units(document: dict[str, Any], hundredths: int) -> None:
    bounds = [None if band["up_to"] is None else int(band["up_to"] * 100) for band in document["bands"]]
    prices_of = [Fraction(band["unit_amount"]) / 100 for band in document["bands"]]
    flats = [Fraction(band["flat_amount"]) for band in document["bands"]]
    expected, entered = Fraction(0), set()
    for unit in range(1, hundredths + 1):
        index = next(index for index, bound in enumerate(bounds) if bound is None or unit <= bound)
        expected += prices_of[index]
        entered.add(index)
    expected += sum((flats[index] for index in entered), Fraction(0))
    assert rate(parse_price(document), Fraction(hundredths, 100)).amount == expected


@LAW
@given(price=prices)
def test_a_document_is_read_as_it_was_written(price: Price) -> None:
    document = price_document(price)
    assert parse_price(json.loads(json.dumps(document))) == price
    assert price_document(parse_price(document)) == document


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(max_size=8)
    | st.sampled_from(["1", "flat", "graduated", "up", "divide", "1E+1000000", "-0", Decimal("0E+1000000")])
)
names = st.sampled_from(
    [
        "model",
        "bands",
        "up_to",
        "unit_amount",
        "flat_amount",
        "rate",
        "amount",
        "size",
        "transform",
        "op",
        "by",
        "round",
    ]
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=3), inner, max_size=5),
    max_leaves=12,
)
model_fields = (
    "bands",
    "unit_amount",
    "amount",
    "size",
    "rate",
    "multiplier",
    "transform",
    "zero_usage",
    "free_events",
)
modelled = st.fixed_dictionaries(
    {"model": st.sampled_from(list(PriceModel))}, optional=dict.fromkeys(model_fields, anything)
)


@LAW
@given(document=anything | modelled)
def test_any_document_is_a_price_or_a_list_of_faults(document: Any) -> None:
    try:
        price, errors = parse_price(document), []
    except PriceError as error:
        price, errors = None, error.errors
    if price is None:
        assert errors
        assert all(code and message for _, code, message in errors)
    else:
        assert parse_price(price_document(price)) == price
