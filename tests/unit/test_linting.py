"""The linter's rules, one by one, and where each is silent."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from subscriptions.core.linting import Finding, LintedCharge, Severity, lint
from subscriptions.core.price_documents import parse_price

PER_TOKEN = {"model": "per_unit", "unit_amount": "0.0002"}


def bands(model: str, *rows: tuple[Any, str], **options: Any) -> dict[str, Any]:
    """Return a price with bands of (up_to, unit amount) or (up_to, unit amount, flat amount)."""
    names = ("up_to", "rate" if model == "graduated_percentage" else "unit_amount", "flat_amount")
    return {"model": model, "bands": [dict(zip(names, row, strict=False)) for row in rows], **options}


def found(price: dict[str, Any], *, fee: str = "0", currency: str = "USD", **terms: Any) -> list[Finding]:
    charge = LintedCharge("charges.0", parse_price(price), **terms)
    return lint(currency=currency, fee=Fraction(fee), charges=[charge])


def told(price: dict[str, Any], **terms: Any) -> list[tuple[str, str]]:
    return [(finding.rule.value, finding.path) for finding in found(price, **terms)]


def test_an_ordinary_price_gives_no_finding():
    assert told(PER_TOKEN) == []
    assert told(bands("graduated", (10_000, "0.0002"), (None, "0.00015"))) == []
    assert told({"model": "percentage", "rate": "2.9", "fixed_amount": "0.30", "free_events": 10}) == []


def test_a_volume_price_that_falls_at_a_band_is_a_cliff_with_its_range():
    [cliff] = found(bands("volume", (10_000, "0.0002"), (None, "0.00015")))
    assert (cliff.rule, cliff.severity, cliff.path) == ("volume_cliff", "warning", "charges.0.price.bands.1")
    assert (cliff.from_units, cliff.to_units) == (Decimal(10_000), Decimal("13333.333333333333333333"))
    assert cliff.message == ("10,000 units cost 2.00 USD; using more costs less than that, up to 13,333.333333 units.")


def test_a_flat_amount_that_makes_up_for_the_cheaper_units_is_no_cliff():
    assert told(bands("volume", (10_000, "0.0002"), (None, "0.00015", "0.50"))) == []


def test_a_cliff_may_reach_over_several_bands():
    [cliff] = found(bands("volume", (10, "10"), (12, "1"), (20, "2"), (None, "10")))
    assert (cliff.path, cliff.from_units, cliff.to_units) == ("charges.0.price.bands.1", 10, 20)


@pytest.mark.parametrize(
    ("transform", "bounds"),
    [
        ({"op": "multiply", "by": "10"}, (1, Decimal("1.5"))),
        ({"op": "divide", "by": "1000"}, (10_000, 15_000)),
        ({"op": "divide", "by": "1000", "round": "up"}, (10_000, 14_000)),
        ({"op": "divide", "by": "1000", "round": "down"}, (11_000, 15_000)),
        ({"op": "divide", "by": "1000", "round": "half_up"}, (10_500, 14_500)),
    ],
)
def test_a_cliff_is_told_in_the_units_that_the_meter_counts(transform, bounds):
    [cliff] = found(bands("volume", (10, "3"), (None, "2"), transform=transform))
    assert (cliff.from_units, cliff.to_units) == bounds


def test_free_units_and_the_maximum_spend_move_a_cliff():
    [cliff] = found(bands("volume", (10, "3"), (None, "2"), free_units=5, percent_discount=50))
    assert (cliff.from_units, cliff.to_units) == (15, 20)
    assert "15 units cost 15.00 USD" in cliff.message
    [capped] = found(bands("volume", (10, "3"), (None, "2"), amount_max=24))
    assert (capped.from_units, capped.to_units) == (10, 12)
    assert told(bands("volume", (10, "3"), (None, "2"), amount_max=20)) == []


def test_usage_that_never_costs_as_much_again_blocks():
    [finding] = found(bands("volume", (1_000, "0.01"), (None, "0", "5")))
    assert (finding.rule, finding.severity) == ("negative_marginal_price", "blocking")
    assert (finding.path, finding.from_units, finding.to_units) == ("charges.0.price.bands.1", 1_000, None)
    assert finding.message == "1,000 units cost 10.00 USD, and any more cost less than that, however many they are."


def test_a_band_without_a_whole_number_is_unreachable_where_units_are_rounded():
    rows = [("10.2", "3"), ("10.8", "2"), (None, "4")]
    halves = {"op": "divide", "by": "2", "round": "up"}
    [finding] = found(bands("graduated", *rows, transform=halves))
    assert (finding.rule, finding.severity) == ("unreachable_band", "blocking")
    assert finding.path == "charges.0.price.bands.1"
    assert told(bands("graduated", *rows, transform={"op": "divide", "by": "2"})) == []


def test_a_first_band_that_only_no_usage_enters_is_reached_by_no_usage():
    rows = [("0.5", "0", "7"), (None, "1")]
    whole = {"transform": {"op": "multiply", "by": "1", "round": "up"}}
    assert told(bands("graduated", *rows, **whole)) == [("unreachable_band", "charges.0.price.bands.0")]
    assert told(bands("graduated", *rows, zero_usage="first_tier_flat", **whole)) == []


def test_a_band_beyond_the_end_of_overage_is_told():
    price = bands("graduated", (1_000, "0.2"), (5_000, "0.1"), (None, "0.05"))
    assert told(price, overage_quantity_max=Decimal(1_000)) == [
        ("band_beyond_cap", "charges.0.price.bands.1"),
        ("band_beyond_cap", "charges.0.price.bands.2"),
    ]
    assert told(price, overage_quantity_max=Decimal(1_001)) == [("band_beyond_cap", "charges.0.price.bands.2")]
    assert told(price, overage_quantity_max=Decimal(9_000)) == []
    dozens = price | {"transform": {"op": "divide", "by": "12", "round": "up"}}
    assert told(dozens, overage_quantity_max=Decimal(12_001)) == [("band_beyond_cap", "charges.0.price.bands.2")]


def test_a_band_beyond_the_maximum_spend_is_told():
    price = bands("graduated", (1_000, "0.2"), (5_000, "0.1"), (None, "0.05"), amount_max=300)
    [finding] = found(price)
    assert (finding.rule, finding.path) == ("band_beyond_cap", "charges.0.price.bands.2")
    assert finding.message == "The maximum spend of 300.00 USD is reached before this band begins."


@pytest.mark.parametrize(
    ("price", "path"),
    [
        ({"model": "per_unit", "unit_amount": "0.000000001"}, "charges.0.price"),
        (
            {"model": "per_unit", "unit_amount": "1", "transform": {"op": "divide", "by": "1000000000"}},
            "charges.0.price",
        ),
        ({"model": "flat", "amount": "0.004"}, "charges.0.price"),
        ({"model": "package", "size": "1000000", "amount": "0.001"}, "charges.0.price"),
        ({"model": "percentage", "rate": "0.0000001"}, "charges.0.price"),
        (bands("graduated", (10, "1"), (None, "0.000000001")), "charges.0.price.bands.1"),
        (bands("graduated_percentage", (10, "1"), (None, "0.0000001")), "charges.0.price.bands.1"),
    ],
)
def test_an_amount_that_a_million_units_do_not_bring_to_a_cent_is_told(price, path):
    [finding] = found(price)
    assert (finding.rule, finding.severity, finding.path) == ("rounds_to_nothing", "warning", path)


def test_what_rounds_to_nothing_depends_on_the_currency():
    price = {"model": "per_unit", "unit_amount": "0.0000004"}
    assert told(price, currency="JPY") == [("rounds_to_nothing", "charges.0.price")]
    assert told(price, currency="USD") == []
    [finding] = found({"model": "per_unit", "unit_amount": "0.000000004"})
    assert finding.message == "1,000,000 units come to 0.004 USD, which an invoice rounds to nothing."


def test_free_units_do_not_make_a_price_round_to_nothing():
    assert told({"model": "per_unit", "unit_amount": "0.01", "free_units": "2000000"}) == []


@pytest.mark.parametrize(
    "price",
    [
        {"model": "per_unit", "unit_amount": "0"},
        {"model": "per_unit", "unit_amount": "5", "percent_discount": 100},
        {"model": "package", "size": 10, "amount": "5", "amount_max": 0},
        bands("graduated", (10, "0"), (None, "0")),
        {"model": "percentage", "rate": "0"},
        {"model": "dynamic", "multiplier": "0"},
    ],
)
def test_a_price_of_nothing_is_told_where_nothing_stops_usage(price):
    assert told(price) == [("charges_nothing", "charges.0.price")]
    assert told(price, ends_at_allowance=True) == []


def test_a_minimum_spend_is_a_price():
    assert told({"model": "per_unit", "unit_amount": "0", "amount_min": "10"}) == []


def test_free_events_without_an_amount_per_event_are_told():
    price = {"model": "percentage", "rate": "2", "free_events": 100}
    assert told(price) == [("free_events_without_amount", "charges.0.price.free_events")]


def test_cost_that_is_passed_on_at_a_loss_is_told():
    [finding] = found({"model": "dynamic", "multiplier": "1.1", "percent_discount": 10})
    assert (finding.rule, finding.severity) == ("margin_below_zero", "warning")
    assert finding.message == "Each 1.00 of cost is sold for 0.99."
    assert told({"model": "dynamic", "multiplier": "1"}) == []


def test_overage_below_what_the_fee_makes_of_an_included_unit_is_told():
    [finding] = found(PER_TOKEN, fee="99", included=Decimal(10_000))
    assert (finding.rule, finding.severity) == ("overage_cheaper_than_included", "warning")
    assert finding.message == (
        "The fee makes an included unit cost 0.0099 USD; as many again beyond the allowance cost 0.0002 USD each."
    )
    assert told({"model": "per_unit", "unit_amount": "0.0099"}, fee="99", included=Decimal(10_000)) == []
    assert told(PER_TOKEN, fee="99", included=Decimal(10_000), ends_at_allowance=True) == []
    assert told(PER_TOKEN, fee="99") == []


def test_a_fee_for_several_allowances_is_compared_with_none():
    charges = [LintedCharge(f"charges.{n}", parse_price(PER_TOKEN), included=Decimal(10)) for n in range(2)]
    assert lint(currency="USD", fee=Fraction(99), charges=charges) == []


def test_what_blocks_stands_first():
    charges = [
        LintedCharge("charges.0", parse_price({"model": "per_unit", "unit_amount": "0"})),
        LintedCharge("charges.1", parse_price(bands("volume", (10, "1"), (None, "0")))),
    ]
    findings = lint(currency="USD", fee=Fraction(0), charges=charges)
    assert [finding.path for finding in findings] == ["charges.1.price.bands.1", "charges.0.price"]
    assert [finding.severity for finding in findings] == [Severity.BLOCKING, Severity.WARNING]
