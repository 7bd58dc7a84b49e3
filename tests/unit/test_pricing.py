"""Rating: the golden figures, each model at its boundaries, the order of options, and parts of an axis."""

import json
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import pytest

from subscriptions.core.price_documents import parse_price
from subscriptions.core.pricing import (
    RATES_WHOLE_VALUE,
    Band,
    Component,
    ComponentKind,
    Operation,
    Price,
    PriceModel,
    Rated,
    Rounding,
    Transform,
    clamp_event,
    minimum_top_up,
    rate,
    rate_part,
)

USED = 1_234_567
BEYOND_10_000 = 1_224_567
PER_UNIT = {"model": "per_unit", "unit_amount": "0.0002"}
PACKAGE = {"model": "package", "size": 1000, "amount": "0.20"}
LADDER = [
    {"up_to": 10_000, "unit_amount": "0"},
    {"up_to": 1_000_000, "unit_amount": "0.0002"},
    {"unit_amount": "0.00015"},
]
GRADUATED = {"model": "graduated", "bands": LADDER}
VOLUME = {"model": "volume", "bands": LADDER}
FLAT_BANDS = [
    {"up_to": 5, "unit_amount": "0", "flat_amount": "100"},
    {"up_to": 10, "unit_amount": "0", "flat_amount": "50"},
    {"up_to": 15, "unit_amount": "10"},
    {"unit_amount": "5"},
]


def amount(document: dict[str, Any], quantity: Any, **usage: Any) -> Fraction:
    return rate(parse_price(document), quantity, **usage).amount


def part(document: dict[str, Any], start: Any, end: Any, total: Any) -> Rated:
    return rate_part(parse_price(document), start, end, total=total)


def kinds(rated: Rated) -> list[tuple[str, str]]:
    return [(component.kind.value, component.document()["total"]) for component in rated.components]


@pytest.mark.parametrize(
    ("document", "quantity", "expected"),
    [
        (PER_UNIT, BEYOND_10_000, "244.9134"),
        (PACKAGE, BEYOND_10_000, "245.00"),
        (GRADUATED, BEYOND_10_000, "231.68505"),
        (VOLUME, BEYOND_10_000, "183.68505"),
        (GRADUATED, USED, "233.18505"),
        (VOLUME, USED, "185.18505"),
        (PACKAGE, USED, "247.00"),
    ],
)
def test_the_golden_figures_of_1_234_567_tokens_are_exact(
    document: dict[str, Any], quantity: int, expected: str
) -> None:
    assert amount(document, quantity) == Fraction(expected)


def test_a_million_events_of_3_tokens_at_0_0002_are_600() -> None:
    assert amount(PER_UNIT, 3 * 1_000_000) == 600


def test_a_unit_amount_of_a_millionth_of_a_millionth_is_not_lost() -> None:
    tiny = {"model": "per_unit", "unit_amount": "0.000000000001"}
    assert amount(tiny, 1) == Fraction(1, 10**12)
    assert amount(tiny, Decimal("0.000000000001")) == Fraction(1, 10**24)
    assert amount(tiny, Decimal("999999999999999999.999999999999")) == Fraction("999999.999999999999999999999999")


def test_the_callers_decimal_context_does_not_change_an_amount() -> None:
    price = parse_price(
        {"model": "percentage", "rate": "123456789012345678.123456789012", "percent_discount": "12.123456789012"}
    )
    exact = Fraction("123456789012345678.123456789012") / 100 * 7 * (1 - Fraction("12.123456789012") / 100)
    with localcontext() as context:
        context.prec = 3
        assert rate(price, 7).amount == exact
        assert clamp_event(price, 7) == Decimal("8641975230864197.46864197523084")


@pytest.mark.parametrize("quantity", [0, 1, Decimal("0.5"), 10**17])
def test_flat_is_the_amount_whatever_the_usage(quantity: Any) -> None:
    assert amount({"model": "flat", "amount": "20"}, quantity) == 20


@pytest.mark.parametrize(
    ("quantity", "expected"), [(0, 0), (100, 0), (Decimal("100.000000000001"), 5), (200, 5), (201, 10), (300, 10)]
)
def test_a_started_package_beyond_the_free_units_is_a_whole_package(quantity: Any, expected: int) -> None:
    assert amount({"model": "package", "size": 100, "amount": 5, "free_units": 100}, quantity) == expected


@pytest.mark.parametrize(
    ("quantity", "graduated", "volume"),
    [
        (0, 0, 0),
        (Decimal("0.1"), 100, 100),
        (5, 100, 100),
        (Decimal("5.1"), 150, 50),
        (10, 150, 50),
        (12, 170, 120),
        (15, 200, 150),
        (16, 205, 80),
    ],
)
def test_a_limit_belongs_to_the_band_below_and_a_flat_amount_to_each_entered_band(
    quantity: Any, graduated: int, volume: int
) -> None:
    assert amount({"model": "graduated", "bands": FLAT_BANDS}, quantity) == graduated
    assert amount({"model": "volume", "bands": FLAT_BANDS}, quantity) == volume


@pytest.mark.parametrize("model", ["graduated", "volume"])
def test_zero_usage_costs_nothing_unless_the_first_flat_amount_is_asked_for(model: str) -> None:
    document = {"model": model, "bands": FLAT_BANDS}
    assert rate(parse_price(document), 0) == Rated(Fraction(0), (), Fraction(0))
    assert amount(document | {"zero_usage": "zero"}, 0) == 0
    assert amount(document | {"zero_usage": "first_tier_flat"}, 0) == 100
    assert amount(document | {"zero_usage": "first_tier_flat", "free_units": 3}, 3) == 100
    assert amount(document | {"free_units": 3}, 3) == 0


def test_a_percentage_is_of_the_value_beyond_the_free_value_plus_an_amount_per_event_beyond_the_free_events() -> None:
    document = {"model": "percentage", "rate": "1.3", "fixed_amount": "2", "free_value": 250, "free_events": 3}
    assert amount(document, 800, events=4) == Fraction("9.15")
    assert amount(document, 250, events=3) == 0
    assert amount(document, 100, events=5) == 4
    assert amount(document, 251, events=1) == Fraction("0.013")


def test_a_percentage_with_bounds_per_event_is_the_sum_of_the_clamped_amounts() -> None:
    price = parse_price(
        {
            "model": "percentage",
            "rate": "2.99",
            "fixed_amount": "0.50",
            "minimum_per_event": "1.75",
            "maximum_per_event": 12,
        }
    )
    clamped = [clamp_event(price, value) for value in (10, 80, 10_000)]
    assert clamped == [Decimal("1.75"), Decimal("2.892"), Decimal(12)]
    rated = rate(price, 10_090, events=3, clamped=sum(clamped, Decimal(0)))
    assert rated.amount == Fraction("16.642")
    assert [component.document() for component in rated.components] == [
        {
            "kind": "clamped_events",
            "band": None,
            "quantity": "3",
            "unit_amount": None,
            "flat_amount": None,
            "total": "16.642",
        }
    ]


def test_an_event_of_value_0_costs_the_minimum_and_bounds_hold_for_the_fixed_amount() -> None:
    price = Price(PriceModel.PERCENTAGE, rate=Decimal(1), fixed_amount=Decimal(3), maximum_per_event=Decimal(2))
    assert clamp_event(price, 0) == 2
    floor_only = Price(PriceModel.PERCENTAGE, rate=Decimal(1), minimum_per_event=Decimal(2))
    assert clamp_event(floor_only, 0) == 2
    assert clamp_event(floor_only, 1_000) == 10


def test_bounds_per_event_need_the_sum_of_clamped_amounts_unless_there_were_no_events() -> None:
    price = Price(PriceModel.PERCENTAGE, rate=Decimal(1), minimum_per_event=Decimal(2))
    with pytest.raises(ValueError, match="pass `clamped`"):
        rate(price, 100, events=1)
    with pytest.raises(ValueError, match="pass `clamped`"):
        rate(price, 0, events=1)
    assert rate(price, 0).amount == 0


def test_only_a_percentage_has_an_amount_per_event() -> None:
    with pytest.raises(ValueError, match="no amount per event"):
        clamp_event(parse_price(PER_UNIT), Decimal(1))
    with pytest.raises(ValueError, match="not negative"):
        clamp_event(parse_price({"model": "percentage", "rate": 1}), Decimal(-1))


def test_a_graduated_percentage_walks_the_bands_with_a_rate_each() -> None:
    bands = [
        {"up_to": 10, "rate": 1, "flat_amount": 200},
        {"up_to": 20, "rate": 2, "flat_amount": 300},
        {"rate": 3, "flat_amount": 400},
    ]
    document = {"model": "graduated_percentage", "bands": bands}
    assert amount(document, 10) == Fraction("200.10")
    assert amount(document, 21) == Fraction("900.33")
    assert amount(document, 0) == 0
    assert rate(parse_price(document), 21).components[1].document() == {
        "kind": "band",
        "band": 2,
        "quantity": "10",
        "unit_amount": "0.02",
        "flat_amount": "300",
        "total": "300.2",
    }


def test_dynamic_multiplies_the_callers_own_amounts() -> None:
    assert amount({"model": "dynamic", "multiplier": "1.35"}, Decimal("40.2")) == Fraction("54.27")


@pytest.mark.parametrize(
    ("rounding", "quantity", "expected"),
    [
        ("up", 1001, 2),
        ("up", 1000, 1),
        ("down", 1999, 1),
        ("half_up", 1500, 2),
        ("half_up", 1499, 1),
        ("none", 1400, Fraction("1.4")),
        (None, 1, Fraction(1, 1000)),
    ],
)
def test_a_transform_divides_and_rounds_to_whole_units(rounding: str, quantity: int, expected: Any) -> None:
    transform = {"op": "divide", "by": 1000, "round": rounding}
    assert amount({"model": "per_unit", "unit_amount": 1, "transform": transform}, quantity) == expected


def test_a_transform_that_does_not_end_keeps_its_fraction() -> None:
    transform = {"op": "divide", "by": 3}
    assert amount({"model": "per_unit", "unit_amount": 3, "transform": transform}, 1) == 1


def test_a_transform_multiplies() -> None:
    transform = {"op": "multiply", "by": "1.5", "round": "up"}
    assert amount({"model": "per_unit", "unit_amount": 2, "transform": transform}, 3) == 10


def test_the_options_apply_in_their_order_and_the_components_explain_each() -> None:
    # 7,400 → 8 thousands − 1 free = 7 → 5 × 10 + 2 × 4 + 20 flat = 78 → −10 % = 70.2 → at most 60 → at least 100.
    document = {
        "model": "graduated",
        "bands": [{"up_to": 5, "unit_amount": 10}, {"unit_amount": 4, "flat_amount": 20}],
        "transform": {"op": "divide", "by": 1000, "round": "up"},
        "free_units": 1,
        "percent_discount": 10,
        "amount_max": 60,
    }
    rated = rate(parse_price(document), 7400)
    assert rated.amount == 60
    assert kinds(rated) == [
        ("transform", "0"),
        ("free_units", "0"),
        ("band", "50"),
        ("band", "28"),
        ("percent_discount", "-7.8"),
        ("maximum", "-10.2"),
    ]
    assert [component.document()["quantity"] for component in rated.components] == ["8", "1", "5", "2", "78", "0"]


def test_free_units_count_units_after_the_transform_and_come_before_the_bands() -> None:
    thousands = {"op": "divide", "by": 1000, "round": "up"}
    per_unit = {"model": "per_unit", "unit_amount": 1, "transform": thousands, "free_units": 10}
    assert amount(per_unit, 7400) == 0
    assert amount(per_unit, 10_001) == 1
    bands = [{"up_to": 10, "unit_amount": 2}, {"unit_amount": 1}]
    assert amount({"model": "volume", "bands": bands, "free_units": 5}, 15) == 20
    assert amount({"model": "volume", "bands": bands, "free_units": 5}, 16) == 11


def test_the_minimum_is_a_top_up_beside_the_amount() -> None:
    document = PER_UNIT | {"amount_min": 100, "percent_discount": 50}
    rated = rate(parse_price(document), 500_000)
    assert (rated.amount, rated.top_up) == (50, 50)
    assert rate(parse_price(document), 0).top_up == 100
    assert rate(parse_price(document), 2_000_000).top_up == 0
    assert minimum_top_up(parse_price(document), Fraction("99.99")) == Fraction("0.01")
    assert minimum_top_up(parse_price(PER_UNIT), Fraction(0)) == 0


def test_components_are_plain_json() -> None:
    rated = rate(parse_price(GRADUATED), BEYOND_10_000)
    assert json.loads(json.dumps([component.document() for component in rated.components])) == [
        {"kind": "band", "band": 1, "quantity": "10000", "unit_amount": "0", "flat_amount": "0", "total": "0"},
        {"kind": "band", "band": 2, "quantity": "990000", "unit_amount": "0.0002", "flat_amount": "0", "total": "198"},
        {
            "kind": "band",
            "band": 3,
            "quantity": "224567",
            "unit_amount": "0.00015",
            "flat_amount": "0",
            "total": "33.68505",
        },
    ]


def test_a_component_without_end_is_shown_rounded() -> None:
    third = Component(ComponentKind.UNITS, None, Fraction(1, 3), Decimal(2), None, Fraction(2, 3))
    assert third.document()["total"] == "0.666666666666666667"


@pytest.mark.parametrize("quantity", [-1, Decimal("-0.000000000001"), Fraction(-1, 3)])
def test_a_negative_quantity_is_refused(quantity: Any) -> None:
    with pytest.raises(ValueError, match="not negative"):
        rate(parse_price(PER_UNIT), quantity)


def test_a_float_and_a_negative_count_are_refused() -> None:
    with pytest.raises(TypeError, match="float"):
        rate(parse_price(PER_UNIT), 0.5)
    with pytest.raises(ValueError, match="number of events"):
        rate(parse_price({"model": "percentage", "rate": 1}), 1, events=-1)


# Parts of an axis


def test_parts_pay_for_the_bands_they_cross_and_the_part_that_enters_a_band_pays_its_flat_amount() -> None:
    document = {"model": "graduated", "bands": FLAT_BANDS}
    assert part(document, 0, 7, total=16).amount == 150
    assert part(document, 7, 10, total=16).amount == 0
    assert part(document, 10, 12, total=16).amount == 20
    assert part(document, 12, 16, total=16).amount == 35
    assert kinds(part(document, 7, 12, total=16)) == [("band", "0"), ("band", "20")]


def test_a_flat_amount_stands_only_on_the_part_that_entered_its_band() -> None:
    price = parse_price({"model": "graduated", "bands": [{"unit_amount": 2, "flat_amount": 30}]})
    parts = [rate_part(price, start, end, total=9).components for start, end in [(0, 4), (4, 9)]]
    assert [[(part.quantity, part.flat_amount, part.total) for part in components] for components in parts] == [
        [(4, 30, 38)],
        [(5, 0, 10)],
    ]


def test_in_volume_a_part_pays_the_price_of_the_band_that_the_whole_axis_reaches() -> None:
    bands = [
        {"up_to": 10, "unit_amount": 3, "flat_amount": 7},
        {"up_to": 20, "unit_amount": 2, "flat_amount": 5},
        {"unit_amount": 1, "flat_amount": 4},
    ]
    document = {"model": "volume", "bands": bands}
    assert part(document, 0, 8, total=15).amount == 16
    assert part(document, 8, 15, total=15).amount == 19  # enters the second band: 14 + 5
    assert part(document, 0, 10, total=15).amount == 20  # reaches its lower limit, and does not enter it
    assert part(document, 10, 15, total=15).amount == 15
    assert part(document, 0, 8, total=9).amount == 31
    assert part(document, 8, 9, total=9).amount == 3


def test_a_started_package_belongs_to_the_part_that_starts_it() -> None:
    assert part({"model": "package", "size": 10, "amount": 15}, 17, 22, total=30).amount == 15
    assert part({"model": "package", "size": 10, "amount": 15}, 12, 17, total=30).amount == 0


def test_what_is_due_at_0_units_belongs_to_the_part_that_begins_the_axis() -> None:
    flat = {"model": "flat", "amount": 20}
    assert part(flat, 0, 3, total=5).amount == 20
    assert part(flat, 3, 5, total=5).amount == 0
    assert part(flat, 0, 0, total=5).amount == 0
    assert part(flat, 0, 0, total=0).amount == 20
    first = {"model": "graduated", "bands": FLAT_BANDS, "zero_usage": "first_tier_flat", "free_units": 4}
    assert part(first, 0, 2, total=5).amount == 100
    assert part(first, 2, 5, total=5).amount == 0


def test_free_units_and_the_room_under_a_maximum_go_to_the_parts_that_come_first() -> None:
    document = {"model": "per_unit", "unit_amount": 1, "free_units": 10, "amount_max": 25}
    assert [part(document, start, end, total=50).amount for start, end in [(0, 5), (5, 20), (20, 40), (40, 50)]] == [
        0,
        10,
        15,
        0,
    ]
    assert kinds(part(document, 40, 50, total=50)) == [("units", "10"), ("maximum", "-10")]


def test_a_transform_rounds_the_axis_and_not_each_part() -> None:
    transform = {"op": "divide", "by": 1000, "round": "up"}
    document = {"model": "per_unit", "unit_amount": 1, "transform": transform}
    parts = [(0, 1), (1, 900), (900, 1001), (1001, 2000)]
    assert [part(document, start, end, total=2000).amount for start, end in parts] == [1, 0, 1, 0]


def test_the_minimum_comes_with_the_part_that_ends_the_axis() -> None:
    document = PER_UNIT | {"amount_min": 1}
    assert part(document, 0, 1000, total=2000).top_up == 0
    assert part(document, 1000, 2000, total=2000).top_up == Fraction("0.6")
    assert part(document, 2000, 2000, total=2000).top_up == 0
    assert part(document, 0, 0, total=0).top_up == 1


@pytest.mark.parametrize(("start", "end", "total"), [(2, 1, 3), (1, 4, 3), (-1, 2, 3)])
def test_a_part_outside_the_axis_is_refused(start: int, end: int, total: int) -> None:
    with pytest.raises(ValueError, match=r"no part|not negative"):
        part(PER_UNIT, start, end, total)


@pytest.mark.parametrize("model", sorted(RATES_WHOLE_VALUE))
def test_models_of_the_whole_value_have_no_parts(model: PriceModel) -> None:
    price = {
        PriceModel.PERCENTAGE: Price(PriceModel.PERCENTAGE, rate=Decimal(1)),
        PriceModel.GRADUATED_PERCENTAGE: Price(PriceModel.GRADUATED_PERCENTAGE, bands=(Band(None, Decimal(1)),)),
        PriceModel.DYNAMIC: Price(PriceModel.DYNAMIC, multiplier=Decimal(1)),
    }[model]
    with pytest.raises(ValueError, match="never a part"):
        rate_part(price, 0, 1, total=1)


# A price that would bill something else in silence cannot be made


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": PriceModel.PER_UNIT}, "needs unit_amount"),
        ({"model": PriceModel.PACKAGE, "size": Decimal(1)}, "needs amount"),
        ({"model": PriceModel.PACKAGE, "size": Decimal(0), "amount": Decimal(1)}, "more than 0 units"),
        ({"model": PriceModel.VOLUME}, "needs bands"),
        ({"model": PriceModel.FLAT, "amount": Decimal(1), "rate": Decimal(1)}, "has no rate"),
        ({"model": PriceModel.DYNAMIC, "multiplier": Decimal(1), "free_units": Decimal(1)}, "has no free_units"),
        ({"model": PriceModel.GRADUATED, "bands": (Band(Decimal(5), Decimal(1)),)}, "last band is open"),
        ({"model": PriceModel.GRADUATED, "bands": (Band(None, Decimal(1)), Band(None, Decimal(1)))}, "ascend"),
        (
            {
                "model": PriceModel.GRADUATED,
                "bands": (Band(Decimal(5), Decimal(1)), Band(Decimal(5), Decimal(1)), Band(None, Decimal(1))),
            },
            "ascend",
        ),
        (
            {
                "model": PriceModel.PERCENTAGE,
                "rate": Decimal(1),
                "maximum_per_event": Decimal(1),
                "free_value": Decimal(1),
            },
            "bounds per event",
        ),
    ],
)
def test_a_malformed_price_cannot_be_made(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Price(**fields)


def test_a_transform_by_0_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Transform(Operation.DIVIDE, Decimal(0), Rounding.UP)
