"""A version in words, and two versions compared."""

import doctest
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from subscriptions.core import curves, describing, price_words, words
from subscriptions.core.describing import MeterWords, compared, described
from subscriptions.core.price_words import component_words

METERS = {"tokens": MeterWords("Tokens", "token")}


@pytest.mark.parametrize("module", [words, describing, price_words, curves])
def test_the_examples_hold(module):
    assert doctest.testmod(module).failed == 0


def version(
    price: dict[str, Any] | None = None, *, terms: dict[str, Any] | None = None, **document: Any
) -> dict[str, Any]:
    price = price or {"model": "per_unit", "unit_amount": "0.0002"}
    charge = {"kind": "usage", "meter": "tokens", "included": "10000", "price": price, **(terms or {})}
    return {"currency": "USD", "interval": "month", "fee": "99.00", "charges": [charge], **document}


def changes(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    return [one.in_words for one in compared(described(left, METERS), described(right, METERS)) if one.is_changed]


def said(document: dict[str, Any]) -> dict[str, str]:
    return {term.label: term.value for term in described(document, METERS)}


def graduated(*bands: tuple[Any, str]) -> dict[str, Any]:
    return {"model": "graduated", "bands": [{"up_to": up_to, "unit_amount": amount} for up_to, amount in bands]}


def test_a_changed_price_is_said_with_its_unit_once():
    cheaper = version({"model": "per_unit", "unit_amount": "0.00018"})
    assert changes(version(), cheaper) == ["Overage of Tokens: $0.0002 → $0.00018 per token"]


def test_versions_that_say_the_same_differ_in_nothing():
    assert changes(version(), version()) == []


def test_fee_allowance_and_features_are_said_as_people_say_them():
    right = version(
        fee="89.00", terms={"included": "12000"}, features={"sso": True, "max_projects": 10, "plan": "gold"}
    )
    assert changes(version(features={"sso": False, "old": True}), right) == [
        "Fee: $99.00 → $89.00 every month, in advance",
        "Allowance of Tokens: 10,000 tokens → 12,000 tokens",
        "Feature old: gone, was yes",
        "Feature max_projects: new, 10",
        "Feature plan: new, “gold”",
        "Feature sso: no → yes",
    ]


def test_a_band_that_is_added_and_one_that_is_cheaper():
    left = version(graduated(("10000", "0.0002"), (None, "0.00015")))
    right = version(graduated(("10000", "0.0002"), ("1000000", "0.00014"), (None, "0.0001")))
    assert changes(left, right) == [
        "Overage of Tokens, beyond 10,000 tokens: gone, was $0.00015 per token",
        "Overage of Tokens, 10,000 to 1,000,000 tokens: new, $0.00014 per token",
        "Overage of Tokens, beyond 1,000,000 tokens: new, $0.0001 per token",
    ]


def test_another_model_says_both():
    [change] = changes(version(), version({"model": "package", "size": "1000", "amount": "0.20"}))
    assert change == ("Overage of Tokens: $0.0002 per token → $0.20 per package of 1,000 tokens, a started one in full")


def test_a_charge_for_some_values_is_named_by_them():
    charges = [
        *version()["charges"],
        {"meter": "tokens", "dimensions": {"model": "opus"}, "price": {"model": "flat", "amount": "5"}},
    ]
    assert changes(version(), version(charges=charges)) == [
        "Allowance of Tokens (model opus): new, that of all Tokens",
        "Overage of Tokens (model opus): new, $5.00 per period, whatever is used",
        "Tokens (model opus) beyond the allowance: new, goes on, billed as overage",
    ]


def test_every_option_of_a_price_and_every_limit_is_said():
    price = graduated((None, "0.0002")) | {
        "transform": {"op": "divide", "by": "1000", "round": "up"},
        "zero_usage": "first_tier_flat",
        "free_units": "5",
        "percent_discount": "10",
        "amount_max": "500",
        "amount_min": "20",
    }
    terms = {
        "at_limit": "deny",
        "overage_quantity_max": "5000",
        "limits": [{"quantity": "1000000", "window": "P1DT5H"}],
        "thresholds": [{"percent": 80}, {"quantity": "500"}, {"amount": "50", "once": "life"}],
        "rollover_max": "100",
        "rollover_periods": 2,
        "trial_included": "2000",
    }
    told = said(version(price, terms=terms, trial_days=14, trial_end="pause", fee_every=12))
    assert told == told | {
        "Fee": "$99.00 every 12 months, in advance",
        "Trial": "14 days, then it pauses; usage beyond its allowance is not possible",
        "Allowance of Tokens in a trial": "2,000 tokens",
        "Overage of Tokens is counted": "divided by 1,000, rounded up",
        "Overage of Tokens, any amount": "$0.0002 per billed unit",
        "Overage of Tokens, free": "5 billed units",
        "Overage of Tokens, discount": "10 %",
        "Overage of Tokens, maximum spend": "$500.00",
        "Overage of Tokens, minimum spend": "$20.00",
        "Tokens beyond the allowance": "stops",
        "Most overage of Tokens": "5,000 tokens",
        "Most of Tokens in any 1 day 5 hours": "1,000,000 tokens",
        "Rollover of Tokens": "up to 100 tokens, for 2 periods",
        "Notices on Tokens": "at 80 % of the allowance, at 500 tokens, at $50.00 of overage, once in a lifetime",
    }


def test_prices_of_a_value_are_said_as_rates():
    percentage = {"model": "percentage", "rate": "2.9", "fixed_amount": "0.30", "free_events": 3, "free_value": "10"}
    assert (
        said(version(percentage, terms={"included": "0"}))["Price of Tokens"]
        == "2.9 % of the value and $0.30 per event"
    )
    rates = {"model": "graduated_percentage", "bands": [{"up_to": "1000", "rate": "3"}, {"rate": "2"}]}
    told = said(version(rates, terms={"included": "0"}))
    assert told["Price of Tokens, up to $1,000.00"] == "3 % of the value"
    assert told["Price of Tokens, beyond $1,000.00"] == "2 % of the value"


def test_a_licence_and_a_price_that_is_not_complete_are_no_error():
    charges = [
        {"kind": "licensed", "code": "seats", "unit_amount": "10.00", "included": "3"},
        {"meter": "tokens", "price": {"model": "per_unit"}},
    ]
    told = said(version(charges=charges))
    assert (told["Licence seats"], told["Licence seats, included"]) == ("$10.00 per seat", "3")
    assert told["Price of Tokens"] == "not complete"


def test_what_a_document_leaves_out_is_as_it_is_read():
    assert said({"currency": "USD"}) == said(
        {
            "currency": "USD",
            "interval": "month",
            "interval_count": 1,
            "alignment": "anniversary",
            "fee": "0",
            "fee_timing": "advance",
            "fee_every": 1,
            "grace_hours": 1,
            "trial_days": 0,
            "change": {"fee": "prorate", "grain": "day", "allowance": "prorated", "bill": "next"},
            "charges": [],
            "features": {},
        }
    )


@pytest.mark.parametrize(
    ("kind", "figures", "in_words"),
    [
        ("units", ("2345", "0.0002"), "2,345 tokens × $0.0002"),
        ("packages", ("3", "0.20"), "3 packages × $0.20"),
        ("free_units", ("5", None), "5 tokens free"),
        ("flat", ("5", None), "Flat amount"),
        ("transform", ("5", None), "Counted as 5 billed units"),
        ("events", ("3", "0.30"), "3 events × $0.30"),
        ("clamped_events", ("3", None), "3 events, each within its bounds"),
        ("percent_discount", ("5", "-0.1"), "Discount"),
        ("maximum", ("0", None), "Beyond the maximum spend"),
    ],
)
def test_components_are_said(kind, figures, in_words):
    component = {"kind": kind, "band": None, "quantity": figures[0], "unit_amount": figures[1], "flat_amount": None}
    assert component_words(component, "token", "USD") == in_words


def test_a_band_with_an_entry_and_a_share_of_a_value():
    band = {"kind": "band", "band": 2, "quantity": "10", "unit_amount": "0.5", "flat_amount": "3"}
    assert component_words(band, "token", "USD") == "Band 2: 10 tokens × $0.50 + $3.00 once"
    assert component_words(band | {"kind": "value"}, "", "USD", is_value=True) == "$10.00 × 0.5"


def test_numbers_for_comparing_are_short_and_never_nothing():
    assert words.about_money(Fraction(1, 3_000_000), "USD") == "$0.0000003333"
    assert words.about_money(Decimal("1234.567"), "USD") == "$1,234.57"
    assert words.money(Decimal("0.00"), "JPY") == "¥0"
