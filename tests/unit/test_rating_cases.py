"""Worked cases of other billing systems (tests/cases/rating.json, which names each source), rated by ours."""

import json
from decimal import Decimal
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import pytest

from subscriptions.core.price_documents import parse_price
from subscriptions.core.pricing import ComponentKind, Price, Rated, clamp_event, rate

CASES = json.loads((Path(__file__).parent.parent / "cases" / "rating.json").read_text())["cases"]

FREE_UNTIL_EITHER = "an event is free until free events or free value run out, in order; ours takes both off the totals"
FREE_WITH_BOUNDS = "which events are free depends on their order; with bounds per event ours has none that are free"
BLOCKS_PER_BAND = "bands with blocks of different sizes; a transform has one size for all bands"
NEGATIVE_USAGE = "measuring refuses negative usage; a correction is a reversal that lowers the cumulative quantity"
SKIPPED = {
    "lago-percentage-free-amount": FREE_UNTIL_EITHER,
    "lago-percentage-no-free-events": FREE_UNTIL_EITHER,
    "lago-doc-percentage-4th-event": FREE_UNTIL_EITHER,
    "lago-percentage-minmax-free-events": FREE_WITH_BOUNDS,
    "lago-percentage-minmax-free-amount": FREE_WITH_BOUNDS,
    "lago-percentage-minmax-both-free": FREE_WITH_BOUNDS,
    "kb-top-tier-blocks-1000": BLOCKS_PER_BAND,
    "kb-top-tier-blocks-101000": BLOCKS_PER_BAND,
    "kb-top-tier-blocks-300000": BLOCKS_PER_BAND,
    "au-graduated-neg-100-zero": NEGATIVE_USAGE,
    "au-volume-neg-50": NEGATIVE_USAGE,
    "au-volume-neg-1000": NEGATIVE_USAGE,
}

READ_FROM_GIVEN = {
    *("model", "price", "quantity", "quantities", "events", "series", "units", "transform", "zero_usage"),
    *("prior_quantity", "prior_billed", "position", "usage_discount", "percent_discount", "min_amount", "max_amount"),
}
OPTIONS = {
    "usage_discount": "free_units",
    "percent_discount": "percent_discount",
    "min_amount": "amount_min",
    "max_amount": "amount_max",
}
PERCENTAGE_FIELDS = {
    "rate": "rate",
    "fixed_per_event": "fixed_amount",
    "free_events": "free_events",
    "free_amount": "free_value",
    "min_per_event": "minimum_per_event",
    "max_per_event": "maximum_per_event",
}


def price_of(given: dict[str, Any]) -> Price:
    """Translate a case's price to our document; what it cannot translate fails, so that nothing is left out in silence."""
    assert set(given) <= READ_FROM_GIVEN, set(given) - READ_FROM_GIVEN
    document = {"model": given["model"], **model_fields(given["model"], dict(given["price"]))}
    document |= {ours: given[theirs] for theirs, ours in OPTIONS.items() if theirs in given}
    if "transform" in given:
        document["transform"] = given["transform"]
    if "bands" in document:
        document["zero_usage"] = given.get("zero_usage", "first_tier_flat")
    return parse_price(document)


def model_fields(model: str, price: dict[str, Any]) -> dict[str, Any]:
    if "tiers" in price:
        assert set(price) == {"tiers"}
        return banded_fields(price["tiers"])
    if model == "package":
        return package_fields(price)
    if model == "percentage":
        assert price.pop("free_rule") in {"either_exhausted", "amount_until_spent"}
        return {PERCENTAGE_FIELDS[name]: value for name, value in price.items()}
    return price


def banded_fields(tiers: list[dict[str, Any]]) -> dict[str, Any]:
    """Blocks of one size for all tiers are a transform to started blocks, with the limits counted in blocks."""
    sizes = {tier.get("block_size", "1") for tier in tiers}
    assert len(sizes) == 1, "bands with blocks of different sizes"
    size = Decimal(sizes.pop())
    bands = [{name: value for name, value in tier.items() if name != "block_size"} for tier in tiers]
    if size == 1:
        return {"bands": bands}
    for band in bands:
        if band["up_to"] is not None:
            blocks, rest = divmod(Decimal(band["up_to"]), size)
            assert rest == 0
            band["up_to"] = blocks
    return {"bands": bands, "transform": {"op": "divide", "by": size, "round": "up"}}


def package_fields(price: dict[str, Any]) -> dict[str, Any]:
    """A package rounded down is a price per whole package: a transform and a unit price."""
    if price.get("round") == "down":
        by_package = {"op": "divide", "by": price["package_size"], "round": "down"}
        return {"model": "per_unit", "unit_amount": price["package_amount"], "transform": by_package}
    fields = {"size": price["package_size"], "amount": price["package_amount"]}
    return fields | ({"free_units": price["free_units"]} if "free_units" in price else {})


def rate_given(price: Price, given: dict[str, Any]) -> list[Rated]:
    """Rate what a case gives: one quantity, several on their own, or events whose values are summed."""
    if "events" in given:
        values = [Decimal(value) for value in given["events"]]
        clamped = sum((Fraction(clamp_event(price, value)) for value in values), Fraction(0))
        return [rate(price, sum(values, Decimal(0)), events=len(values), clamped=clamped)]
    return [rate(price, Decimal(quantity)) for quantity in given.get("quantities") or [given["quantity"]]]


def quantity_of(rated: Rated, *kinds: ComponentKind) -> Fraction:
    return sum((component.quantity for component in rated.components if component.kind in kinds), Fraction(0))


def total_of(rated: Rated, kind: ComponentKind) -> Fraction:
    return sum((component.total for component in rated.components if component.kind == kind), Fraction(0))


def check_breakdown(rated: Rated, expected: list[dict[str, Any]]) -> None:
    found = [
        {
            "tier": component.band,
            "quantity": component.quantity,
            "unit_total": component.total - Fraction(component.flat_amount or 0),
            "flat": Fraction(component.flat_amount or 0),
            "total": component.total,
        }
        for component in rated.components
        if component.kind == ComponentKind.BAND
    ]
    assert found == [
        {name: value if name == "tier" else Fraction(value) for name, value in tier.items()} for tier in expected
    ]


def check_effective_unit_amount(amount: Fraction, expected: dict[str, Any], quantity: str) -> None:
    exact = amount / Fraction(expected.get("divide_by", quantity))
    scale = 10 ** expected["places"]
    assert Fraction(floor(exact * scale + Fraction(1, 2)), scale) == Fraction(expected["value"])


def check_whole(price: Price, given: dict[str, Any], expect: dict[str, Any]) -> None:
    results = rate_given(price, given)
    assert sum(rated.amount for rated in results) == Fraction(expect["amount"])
    rated = results[0]
    if "breakdown" in expect:
        check_breakdown(rated, expect["breakdown"])
    if "effective_unit_amount" in expect:
        check_effective_unit_amount(rated.amount, expect["effective_unit_amount"], given["quantity"])
    if "packages" in expect:
        assert quantity_of(rated, ComponentKind.PACKAGES, ComponentKind.UNITS) == Fraction(expect["packages"])
    if "billed_quantity" in expect:
        assert quantity_of(rated, ComponentKind.BAND, ComponentKind.UNITS) == Fraction(expect["billed_quantity"])
    if "percentage_total" in expect:
        assert quantity_of(rated, ComponentKind.VALUE) == Fraction(expect["paid_units"])
        assert total_of(rated, ComponentKind.VALUE) == Fraction(expect["percentage_total"])
        assert total_of(rated, ComponentKind.EVENTS) == Fraction(expect["fixed_total"])
        if Fraction(expect["fixed_total"]):
            assert quantity_of(rated, ComponentKind.EVENTS) == expect["paid_events"]
    if "per_event" in expect:
        assert [clamp_event(price, Decimal(value)) for value in given["events"]] == [
            Decimal(amount) for amount in expect["per_event"]
        ]


def check_line(price: Price, given: dict[str, Any], expect: dict[str, Any]) -> None:
    """A line in mid-period is the cumulative amount less what is billed; the minimum is settled by the period's last line."""
    before = Fraction(given.get("prior_quantity", 0))
    billed = Fraction(given["prior_billed"])
    rated = rate(price, before + Fraction(given["quantity"]))
    discount = -total_of(rated, ComponentKind.MAXIMUM)
    top_up = rated.top_up if given["position"] in {"single", "last"} else 0
    if "prior_quantity" in given:
        assert rate(price, before).amount == billed
    assert rated.amount + discount - billed == Fraction(expect["line_amount"])
    assert discount == Fraction(expect.get("max_discount", 0))
    assert top_up == Fraction(expect.get("min_topup", 0))
    assert rated.amount - billed + top_up == Fraction(expect["net"])


def check_series(price: Price, given: dict[str, Any], expect: dict[str, Any]) -> None:
    billed, deltas = Fraction(0), []
    for quantity in given["series"]:
        amount = rate(price, Decimal(quantity)).amount
        deltas.append(amount - billed)
        billed = amount
    assert deltas == [Fraction(delta) for delta in expect["deltas"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_case_of_another_system_has_the_same_amount(case: dict[str, Any]) -> None:
    if case["id"] in SKIPPED:
        pytest.skip(SKIPPED[case["id"]])
    given, expect = case["given"], case["expect"]
    price = price_of(given)
    assert not {"flag", "expect_ours"} & set(case), "a figure of our own would have to be the one tested"
    if "deltas" in expect:
        check_series(price, given, expect)
    elif "line_amount" in expect:
        check_line(price, given, expect)
    else:
        check_whole(price, given, expect)


def test_exactly_the_listed_cases_are_skipped() -> None:
    ids = [case["id"] for case in CASES]
    assert len(ids) == len(set(ids)) == 100
    assert set(SKIPPED) <= set(ids)
    assert len(SKIPPED) == 12
