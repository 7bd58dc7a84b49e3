"""Pricing a pool's overage: shares, versions, flat amounts, whole values, and what is still to be booked."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from metering.core.burndown import Grant, GrantKind, walk
from metering.core.overage import (
    Booked,
    ChargeTerms,
    OverageDelta,
    Owed,
    SegmentUsage,
    match,
    overage_delta,
    price_pool,
    spread,
)
from metering.core.segments import VersionSpan, cut
from subscriptions.core.periods import Period
from subscriptions.core.pricing import Band, Price, PriceModel, ZeroUsage, rate
from tests import oracle

INPUT, OUTPUT = (("direction", "input"),), (("direction", "output"),)
EVERYTHING = ()


def per_unit(amount, **options):
    return Price(PriceModel.PER_UNIT, unit_amount=Decimal(amount), **options)


def graduated(*bands, model=PriceModel.GRADUATED, **options):
    parsed = (
        Band(None if up_to is None else Decimal(up_to), Decimal(unit), Decimal(flat)) for up_to, unit, flat in bands
    )
    return Price(model, bands=tuple(parsed), **options)


def flat(amount):
    return Price(PriceModel.FLAT, amount=Decimal(amount))


def charge(charge_id, version_id, price, **dimensions):
    return ChargeTerms(charge_id, version_id, dimensions, price)


def used(version_id, overage, usage=None, **fields):
    """One segment; without dimensions its usage is its overage."""
    usage = {EVERYTHING: overage} if usage is None else usage
    decimals = {each: Decimal(quantity) for each, quantity in usage.items()}
    return SegmentUsage(version_id, decimals, Decimal(overage), **fields)


def amounts(pool):
    return [(part.charge_id, part.version_id, part.amount) for part in pool.parts]


def test_overage_is_spread_in_proportion_to_usage():
    pool = price_pool(
        [used("v1", 2000, {INPUT: 6000, OUTPUT: 6000})],
        [
            charge(1, "v1", per_unit("0.0002"), direction="input"),
            charge(2, "v1", per_unit("0.001"), direction="output"),
        ],
    )
    assert amounts(pool) == [(1, "v1", Fraction(1, 5)), (2, "v1", 1)]
    assert pool.amount == Fraction("1.20")
    assert pool.unpriced == {}


def test_shares_are_exact_fractions_and_sum_to_the_overage():
    shares = spread(Decimal("0.1"), {INPUT: Decimal(1), OUTPUT: Decimal(2), EVERYTHING: Decimal(0)})
    assert shares == {INPUT: Fraction(1, 30), OUTPUT: Fraction(2, 30)}


@pytest.mark.parametrize("overage", ["-1", "3.000000000001"])
def test_an_overage_is_part_of_the_usage(overage):
    with pytest.raises(ValueError, match="no part"):
        spread(Decimal(overage), {INPUT: Decimal(3)})


def test_overage_without_usage_is_refused():
    assert spread(Decimal(0), {}) == {}
    with pytest.raises(ValueError, match="no part"):
        spread(Decimal(1), {})


def test_the_most_specific_charge_prices_a_set():
    default, opus = charge(1, "v1", per_unit(1)), charge(2, "v1", per_unit(2), model="opus")
    opus_out = charge(3, "v1", per_unit(3), model="opus", direction="output")
    charges = [opus, opus_out, default]
    assert match(charges, (("direction", "output"), ("model", "opus"))) is opus_out
    assert match(charges, (("direction", "input"), ("model", "opus"))) is opus
    assert match(charges, (("direction", ""), ("model", ""))) is default
    assert match([opus], (("model", "haiku"),)) is None
    assert match([opus], ()) is None


def test_two_charges_that_match_equally_well_are_refused():
    charges = [charge(1, "v1", per_unit(1), model="opus"), charge(2, "v1", per_unit(2), direction="output")]
    with pytest.raises(ValueError, match="charges 1 and 2"):
        match(charges, (("direction", "output"), ("model", "opus")))


def test_what_no_charge_prices_is_listed():
    pool = price_pool(
        [used("v1", 30, {INPUT: 40, OUTPUT: 20}), used("v2", 12, {INPUT: 8, OUTPUT: 4})],
        [charge(1, "v1", per_unit(1), direction="input")],
    )
    assert amounts(pool) == [(1, "v1", 20)]
    assert pool.unpriced == {OUTPUT: 10 + 4, INPUT: 8}


def test_the_golden_figures_of_1_234_567_tokens():
    bands = [(10_000, 0, 0), (1_000_000, "0.0002", 0), (None, "0.00015", 0)]
    package = Price(PriceModel.PACKAGE, size=Decimal(1000), amount=Decimal("0.20"))
    figures = {
        (per_unit("0.0002"), 10_000): "244.9134",
        (package, 10_000): "245.00",
        (graduated(*bands), 10_000): "231.68505",
        (graduated(*bands, model=PriceModel.VOLUME), 10_000): "183.68505",
        (graduated(*bands), 0): "233.18505",
        (graduated(*bands, model=PriceModel.VOLUME), 0): "185.18505",
        (package, 0): "247.00",
    }
    for (price, included), expected in figures.items():
        overage = 1_234_567 - included
        pool = price_pool([used("v1", overage, {EVERYTHING: 1_234_567})], [charge(1, "v1", price)])
        assert pool.amount == Fraction(expected), price


def test_the_latest_usage_is_overage_first_and_priced_by_its_version():
    # 5,000 beyond the allowance before the change, 7,000 after it; the second band begins at 10,000 of the period.
    pool = price_pool(
        [used("v1", 5000), used("v2", 7000)],
        [
            charge("a", "v1", graduated((10_000, "0.002", 3), (None, "0.001", 4))),
            charge("b", "v2", graduated((10_000, "0.02", 30), (None, "0.01", 40))),
        ],
    )
    assert [(part.start, part.end, part.amount) for part in pool.parts] == [
        (0, 5000, 13),  # 5,000 × 0.002 + 3
        (5000, 12_000, 160),  # 5,000 × 0.02 + 2,000 × 0.01 + 40
    ]
    assert pool.parts[1].components[0].flat_amount == 0


@pytest.mark.parametrize(
    "price",
    [
        per_unit("0.3"),
        per_unit("0.3", amount_max=Decimal(9), percent_discount=Decimal(10)),
        flat(7),
        Price(PriceModel.PACKAGE, size=Decimal(9), amount=Decimal(2), free_units=Decimal(4)),
        graduated((10, 3, 5), (20, 2, 6), (None, 1, 7)),
        graduated((10, 3, 5), (20, 2, 6), (None, 1, 7), zero_usage=ZeroUsage.FIRST_TIER_FLAT),
        graduated((10, 3, 5), (20, 2, 6), (None, 1, 7), model=PriceModel.VOLUME),
        Price(PriceModel.DYNAMIC, multiplier=Decimal("1.2")),
        Price(PriceModel.PERCENTAGE, rate=Decimal(10), fixed_amount=Decimal(1), free_value=Decimal(8), free_events=3),
        Price(PriceModel.PERCENTAGE, rate=Decimal(10), minimum_per_event=Decimal(1), amount_max=Decimal(5)),
        graduated((10, 3, 5), (20, 2, 6), (None, 1, 7), model=PriceModel.GRADUATED_PERCENTAGE),
        graduated(
            (10, 3, 5), (None, 1, 7), model=PriceModel.GRADUATED_PERCENTAGE, zero_usage=ZeroUsage.FIRST_TIER_FLAT
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("quantities", [(0, 0, 0), (0, 12, 0), (7, 0, 18), (12, 4, 9), (0, 0, 25)])
def test_splitting_between_equal_versions_alters_nothing(price, quantities):
    segments = [
        used(version, quantity, events={EVERYTHING: quantity // 3}, clamped={EVERYTHING: Decimal(quantity) / 4})
        for version, quantity in zip(["v1", "v2", "v1"], quantities, strict=True)
    ]
    pool = price_pool(segments, [charge(1, "v1", price), charge(2, "v2", price)])

    total = sum(quantities)
    clamped = Decimal(total) / 4 if price.clamps_events else None
    whole = rate(price, total, events=sum(quantity // 3 for quantity in quantities), clamped=clamped)
    assert pool.amount == whole.amount
    assert sum(part.quantity for part in pool.parts) == total
    for part in pool.parts:
        assert part.amount == sum(component.total for component in part.components)


def test_a_version_that_comes_back_owes_one_sum():
    pool = price_pool(
        [used("v1", 10), used("v2", 10), used("v1", 5)], [charge(1, "v1", per_unit(2)), charge(2, "v2", per_unit(3))]
    )
    assert amounts(pool) == [(1, "v1", 20), (2, "v2", 30), (1, "v1", 10)]
    assert pool.owed() == {(1, "v1"): Owed(Fraction(15), Fraction(30)), (2, "v2"): Owed(Fraction(10), Fraction(30))}


def test_an_axis_counts_the_sets_that_its_charge_would_have_priced():
    # v1 has one price for all; v2 parts input from output. Of the 30 before the change, 10 were input.
    pool = price_pool(
        [used("v1", 30, {INPUT: 10, OUTPUT: 20}), used("v2", 12, {INPUT: 6, OUTPUT: 6})],
        [
            charge("all", "v1", graduated((40, 1, 0), (None, 2, 0))),
            charge("in", "v2", graduated((13, 1, 0), (None, 3, 0)), direction="input"),
            charge("out", "v2", per_unit(5)),
        ],
    )
    assert [(part.charge_id, part.start, part.end, part.amount) for part in pool.parts] == [
        ("all", 0, 30, 30),
        ("in", 10, 16, 3 * 1 + 3 * 3),
        ("out", 20, 26, 30),
    ]


FIRST_TIER_FLAT = graduated((10, 1, 9), (None, 1, 0), zero_usage=ZeroUsage.FIRST_TIER_FLAT)


@pytest.mark.parametrize("price", [flat(9), FIRST_TIER_FLAT])
def test_what_no_usage_costs_is_owed_once_in_the_first_version(price):
    charges = [charge(1, "v1", price), charge(2, "v2", flat(20))]
    assert amounts(price_pool([used("v1", 0, {})], charges)) == [(1, "v1", 9)]
    pool = price_pool([used("v1", 0, {}), used("v2", 0, {}), used("v1", 0, {})], charges)
    assert amounts(pool) == [(1, "v1", 9), (2, "v2", 0), (1, "v1", 0)]


def test_a_flat_amount_belongs_to_the_part_that_begins_the_axis():
    charges = [charge(1, "v1", flat(9)), charge(2, "v2", flat(20))]
    assert amounts(price_pool([used("v1", 3), used("v2", 4)], charges)) == [(1, "v1", 9), (2, "v2", 0)]
    assert amounts(price_pool([used("v1", 0), used("v2", 4)], charges)) == [(1, "v1", 0), (2, "v2", 20)]


def test_whole_values_are_priced_without_grants_and_free_ones_once():
    tenth = Price(
        PriceModel.PERCENTAGE, rate=Decimal(10), fixed_amount=Decimal(1), free_value=Decimal(50), free_events=2
    )
    segments = [
        used("v1", 0, {EVERYTHING: 80}, events={EVERYTHING: 1}),
        used("v2", 0, {EVERYTHING: 40}, events={EVERYTHING: 3}),
    ]
    pool = price_pool(segments, [charge(1, "v1", tenth), charge(2, "v2", tenth)])
    assert [(part.start, part.end, part.amount) for part in pool.parts] == [(0, 80, 3), (80, 120, 4 + 2)]
    assert [(each.kind, each.quantity, each.total) for each in pool.parts[1].components] == [
        ("value", 40, 4),
        ("free_events", 1, 0),
        ("events", 2, 2),
    ]


def test_a_flat_amount_of_a_whole_value_is_explained_once():
    price = graduated((10, 50, 5), (None, 10, 7), model=PriceModel.GRADUATED_PERCENTAGE)
    pool = price_pool([used("v1", 8), used("v2", 12)], [charge(1, "v1", price), charge(2, "v2", price)])
    assert amounts(pool) == [(1, "v1", 4 + 5), (2, "v2", 1 + 1 + 7)]
    explained = [(each.band, each.quantity, each.flat_amount, each.total) for each in pool.parts[1].components]
    assert explained == [(1, 2, 0, 1), (2, 10, 7, 8)]


def test_clamped_amounts_are_summed_not_rated_again():
    clamping = Price(PriceModel.PERCENTAGE, rate=Decimal("2.99"), minimum_per_event=Decimal("1.75"))
    segment = used("v1", 90, events={EVERYTHING: 2}, clamped={EVERYTHING: Decimal("4.142")})
    assert price_pool([segment], [charge(1, "v1", clamping)]).amount == Fraction("4.142")


def test_the_minimum_spend_of_the_last_version_tops_up_what_the_period_came_to():
    charges = [
        charge(1, "v1", per_unit(4, amount_min=Decimal(1000))),
        charge(2, "v2", per_unit(1, amount_min=Decimal(50))),
        charge(3, "v2", per_unit(1, amount_min=Decimal(5)), direction="input"),
    ]
    pool = price_pool([used("v1", 10), used("v2", 2)], charges)
    assert [(part.charge_id, part.amount, part.top_up) for part in pool.parts] == [(1, 40, 0), (2, 2, 8), (3, 0, 5)]


def test_a_pool_without_segments_or_charges_costs_nothing():
    assert price_pool([], [charge(1, "v1", flat(9))]).parts == ()
    assert price_pool([used("v1", 3)], []).unpriced == {EVERYTHING: 3}


def test_deltas_book_the_difference_and_then_nothing():
    first = overage_delta(Owed(Fraction(1000), Fraction(1, 3)), booked=Booked())
    assert first == OverageDelta(Decimal(1000), Decimal("0.333333333333333333"))
    booked = Booked(first.quantity, first.amount)
    assert not overage_delta(Owed(Fraction(1000), Fraction(1, 3)), booked=booked)

    second = overage_delta(Owed(Fraction(900), Fraction(1, 4)), booked=booked)
    assert second == OverageDelta(Decimal(-100), Decimal("-0.083333333333333333"))


def test_a_price_that_changed_alone_is_booked_too():
    assert overage_delta(Owed(Fraction(10), Fraction(5)), booked=Booked(Decimal(10), Decimal(7)))


def test_the_oracle_agrees_on_a_story_with_everything_in_it():
    start = datetime(2026, 6, 1, tzinfo=UTC)
    days = [start + timedelta(days=day) for day in range(31)]
    events = [
        oracle.Event(days[2], 60, {"direction": "input"}),
        oracle.Event(days[2], 60, {"direction": "output"}),
        oracle.Event(days[20], 90, {"direction": "input"}),
        oracle.Event(days[25], 30, {"direction": "output"}),
    ]
    grants = [
        oracle.Grant("allowance", 100, days[0], expires_at=days[30]),
        oracle.Grant("bought", 50, days[19], expires_at=days[24], paid=True),
    ]
    bands = [{"up_to": "25", "unit_amount": "1", "flat_amount": "2"}, {"up_to": None, "unit_amount": "0.5"}]
    versions = [
        oracle.Version("v1", days[0], [oracle.Charge("all", {"model": "graduated", "bands": bands})]),
        oracle.Version("v2", days[15], [oracle.Charge("all", {"model": "volume", "bands": bands})]),
    ]
    position = oracle.position(events, grants)
    assert (position.used, position.covered, position.overage) == (240, 150, 90)
    assert position.burns == {"allowance": 100, "bought": 50}
    # v1: [0, 20) at 1, and 2 for entering the first band. v2: [20, 90) at 0.5, the second band's price; no flat amount there.
    assert oracle.bill(events, grants, versions).amounts == {("v1", "all"): 22, ("v2", "all"): 35}


def test_the_same_story_by_segments():
    start = datetime(2026, 6, 1, tzinfo=UTC)
    days = [start + timedelta(days=day) for day in range(31)]
    grants = [
        Grant("allowance", Decimal(100), 0, days[0], days[30], None, GrantKind.ALLOWANCE, days[0]),
        Grant("bought", Decimal(50), 0, days[19], days[24], None, GrantKind.PURCHASED, days[0]),
    ]
    versions = [VersionSpan("v1", days[0]), VersionSpan("v2", days[15])]
    segments = cut(Period(days[0], days[30]), versions, grants)
    assert [segment.starts_at for segment in segments] == [days[0], days[15], days[19], days[24]]
    usage = [{INPUT: Decimal(60), OUTPUT: Decimal(60)}, {}, {INPUT: Decimal(90)}, {OUTPUT: Decimal(30)}]
    totals = [
        (segment.starts_at, sum(each.values(), Decimal(0))) for segment, each in zip(segments, usage, strict=True)
    ]
    position = walk(totals, grants)
    assert [burndown.overage for burndown in position.segments] == [20, 0, 40, 30]

    bands = ((25, 1, 2), (None, "0.5", 0))
    pool = price_pool(
        [
            SegmentUsage(segment.version_id, each, burndown.overage)
            for segment, each, burndown in zip(segments, usage, position.segments, strict=True)
        ],
        [
            charge("all", "v1", graduated(*bands)),
            charge("all", "v2", graduated(*bands, model=PriceModel.VOLUME)),
        ],
    )
    assert amounts(pool) == [("all", "v1", 22), ("all", "v2", 35)]
