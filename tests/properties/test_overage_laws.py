"""The laws of pricing overage across versions and dimension sets, against the oracle."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from metering.core.burndown import Grant, GrantKind, walk
from metering.core.overage import (
    Booked,
    ChargeTerms,
    Owed,
    SegmentUsage,
    overage_delta,
    price_pool,
    price_units,
    spread,
)
from metering.core.pools import Offer, pools_of
from metering.core.segments import VersionSpan, cut, segment_at
from subscriptions.core.periods import Period
from subscriptions.core.price_documents import parse_price
from subscriptions.core.pricing import rate
from tests import oracle

START = datetime(2026, 6, 1, tzinfo=UTC)
DAYS = 12


def day(number):
    return START + timedelta(days=number)


PERIOD = Period(START, day(DAYS))
MODELS, DIRECTIONS = ("opus", "haiku"), ("in", "out")
DIMENSION_SETS = [(("direction", direction), ("model", model)) for model in MODELS for direction in DIRECTIONS]

quantities = st.one_of(st.integers(0, 40).map(Decimal), st.decimals(min_value=0, max_value=50, places=12))
rates = st.integers(0, 50).map(lambda cents: str(Decimal(cents) / 10))


@st.composite
def band_lists(draw):
    limits = sorted(draw(st.sets(st.integers(1, 60), max_size=3)))
    return [
        {"up_to": None if limit is None else str(limit), "unit_amount": draw(rates), "flat_amount": draw(rates)}
        for limit in [*limits, None]
    ]


prices = st.one_of(
    st.fixed_dictionaries({"model": st.just("per_unit"), "unit_amount": rates}),
    st.fixed_dictionaries({"model": st.just("flat"), "amount": rates}),
    st.fixed_dictionaries(
        {"model": st.just("package"), "size": st.integers(1, 9).map(str), "amount": rates},
        optional={"free_units": st.integers(0, 9).map(str)},
    ),
    st.fixed_dictionaries(
        {"model": st.sampled_from(["graduated", "volume"]), "bands": band_lists()},
        optional={"zero_usage": st.sampled_from(["zero", "first_tier_flat"])},
    ),
)
# Three levels that never tie: everything, one model, one model in one direction.
wishes = st.sets(st.sampled_from([(), ("opus",), ("haiku",), ("opus", "out"), ("haiku", "in")]))


@st.composite
def charge_lists(draw):
    return [
        oracle.Charge(id=number, price=draw(prices), dimensions=dict(zip(("model", "direction"), wish, strict=False)))
        for number, wish in enumerate(sorted(draw(wishes)))
    ]


@st.composite
def version_lists(draw):
    starts = [0, *sorted(draw(st.sets(st.integers(1, DAYS - 1), max_size=3)))]
    offers = draw(st.lists(charge_lists(), min_size=2, max_size=2))
    # Versions may come back, so there are fewer of them than spans.
    numbers = draw(st.lists(st.integers(0, 1), min_size=len(starts), max_size=len(starts)))
    return [
        oracle.Version(f"v{number}", day(start), offers[number]) for start, number in zip(starts, numbers, strict=True)
    ]


grant_lists = st.lists(
    st.tuples(st.integers(0, DAYS - 1), st.integers(1, DAYS), quantities, st.booleans()), max_size=3
).map(
    lambda rows: [
        oracle.Grant(number, quantity, day(start), expires_at=day(start + length), paid=paid)
        for number, (start, length, quantity, paid) in enumerate(rows)
    ]
)
event_lists = st.lists(
    st.builds(
        oracle.Event,
        occurred_at=st.integers(0, DAYS * 2 - 1).map(lambda half: day(half / 2)),
        quantity=quantities,
        dimensions=st.sampled_from(DIMENSION_SETS).map(dict),
    ),
    max_size=10,
)
segment_lists = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(DIMENSION_SETS), st.integers(0, 40).map(Decimal)),
        st.fractions(0, 1, max_denominator=10),
    ),
    min_size=1,
    max_size=5,
)


def terms(charges, version_id):
    return [ChargeTerms(each.id, version_id, each.dimensions, parse_price(each.price)) for each in charges]


def product_grant(grant):
    kind = GrantKind.PURCHASED if grant.paid else GrantKind.ALLOWANCE
    return Grant(
        grant.id, grant.quantity, grant.priority, grant.effective_at, grant.expires_at, None, kind, grant.effective_at
    )


def segment_usages(events, grants, versions):
    """Measure a story by segments: the way of the ledger."""
    grants = [product_grant(grant) for grant in grants]
    segments = cut(PERIOD, [VersionSpan(version.id, version.starts_at) for version in versions], grants)
    usage = {segment.starts_at: {} for segment in segments}
    for event in events:
        sums = usage[segment_at(segments, event.occurred_at).starts_at]
        dimension_set = tuple(sorted(event.dimensions.items()))
        sums[dimension_set] = sums.get(dimension_set, Decimal(0)) + event.quantity
    position = walk([(starts_at, sum(sums.values(), Decimal(0))) for starts_at, sums in usage.items()], grants)
    return [
        SegmentUsage(segment.version_id, usage[segment.starts_at], burndown.overage)
        for segment, burndown in zip(segments, position.segments, strict=True)
    ]


@given(event_lists, grant_lists, version_lists(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=200)
def test_the_price_of_a_period_is_that_of_the_oracle_in_any_order_of_events(events, grants, versions, random):
    random.shuffle(events)
    charges = {version.id: terms(version.charges, version.id) for version in versions}
    pool = price_pool(segment_usages(events, grants, versions), [each for them in charges.values() for each in them])
    expected = oracle.bill(events, grants, versions)
    owed = {key: owed.amount for key, owed in pool.owed().items() if owed.amount}
    assert owed == {(charge, version): amount for (version, charge), amount in expected.amounts.items() if amount}
    assert pool.unpriced == expected.unpriced


@given(event_lists, grant_lists, version_lists())
@settings(deadline=None)
def test_priced_and_unpriced_quantities_are_the_overage(events, grants, versions):
    segments = segment_usages(events, grants, versions)
    pool = price_pool(segments, [each for version in versions for each in terms_once(version, versions)])
    quantity = sum((part.quantity for part in pool.parts), Fraction(0)) + sum(pool.unpriced.values(), Fraction(0))
    assert quantity == sum((Fraction(segment.overage) for segment in segments), Fraction(0))
    for part in pool.parts:
        assert part.amount == sum((component.total for component in part.components), Fraction(0))


def terms_once(version, versions):
    """The terms of a version where it is named for the first time."""
    first = next(each for each in versions if each.id == version.id)
    return terms(version.charges, version.id) if first is version else []


@given(segment_lists, charge_lists(), st.data())
@settings(deadline=None)
def test_splitting_between_equal_versions_alters_nothing(segments, charges, data):
    def priced(version_ids):
        usages = [
            SegmentUsage(version_id, usage, overage_of(usage, part))
            for version_id, (usage, part) in zip(version_ids, segments, strict=True)
        ]
        every = [each for version_id in set(version_ids) for each in terms(charges, version_id)]
        return price_pool(usages, every)

    version_ids = data.draw(st.lists(st.integers(1, 3), min_size=len(segments), max_size=len(segments)))
    split, whole = priced(version_ids), priced([1] * len(segments))
    assert split.amount == whole.amount
    assert split.unpriced == whole.unpriced
    by_charge = dict.fromkeys((charge.id for charge in charges), Fraction(0))
    for part in split.parts:
        by_charge[part.charge_id] += part.amount
    assert by_charge == {part.charge_id: part.amount for part in whole.parts}


def overage_of(usage, part):
    """A part of the usage, in whole units."""
    return Decimal(int(sum(usage.values(), Decimal(0)) * part.numerator / part.denominator))


@given(segment_lists, prices)
@settings(deadline=None)
def test_one_charge_for_everything_costs_what_its_price_says_of_the_sum(segments, price):
    usages = [SegmentUsage("v1", usage, overage_of(usage, part)) for usage, part in segments]
    pool = price_pool(usages, terms([oracle.Charge(1, price)], "v1"))
    assert pool.amount == rate(parse_price(price), sum(usage.overage for usage in usages)).amount


@given(segment_lists, prices)
@settings(deadline=None)
def test_booking_in_steps_comes_to_booking_once_and_twice_books_nothing(segments, price):
    booked = Booked()
    charges = terms([oracle.Charge(1, price)], "v1")
    usages = [SegmentUsage("v1", usage, overage_of(usage, part)) for usage, part in segments]
    for count in range(1, len(usages) + 1):
        owed = price_pool(usages[:count], charges).owed()[1, "v1"]
        # A third of it, so that most amounts have no end as decimals.
        delta = overage_delta(Owed(owed.quantity, owed.amount / 3), booked=booked)
        booked = Booked(booked.quantity + delta.quantity, booked.amount + delta.amount)
        assert not overage_delta(Owed(owed.quantity, owed.amount / 3), booked=booked)
    once = overage_delta(Owed(owed.quantity, owed.amount / 3), booked=Booked())
    assert (booked.quantity, booked.amount) == (once.quantity, once.amount)


@given(st.dictionaries(st.sampled_from(DIMENSION_SETS), quantities), st.fractions(0, 1, max_denominator=100))
@settings(deadline=None)
def test_shares_sum_to_the_overage_and_none_exceeds_its_usage(usage, part):
    overage = overage_of(usage, part)
    shares = spread(overage, usage)
    assert sum(shares.values(), Fraction(0)) == Fraction(overage)
    assert all(0 <= share <= Fraction(usage[each]) for each, share in shares.items())


@given(st.decimals(min_value=0, max_value=10**9, places=12), st.integers(0, 10**6), st.sampled_from([None, "50"]))
def test_where_each_unit_costs_the_same_the_pool_says_so_and_rating_agrees(overage, price, amount_min):
    document = {"model": "per_unit", "unit_amount": str(Decimal(price) / 10**4)}
    if amount_min:
        document["amount_min"] = amount_min
    terms = ChargeTerms(1, 1, {}, parse_price(document))
    [pool] = pools_of([Offer(terms, Decimal(5), "allow", None)]).by_key.values()
    used = {(("model", "opus"),): overage + 5}
    segment = SegmentUsage(version_id=1, usage=used, overage=overage)
    assert pool.unit_amount is not None
    assert Fraction(overage) * Fraction(pool.unit_amount) == price_pool([segment], [terms]).amount
    assert price_units(terms, overage) == price_pool([segment], [terms])


@given(prices)
def test_a_price_with_any_option_is_looked_at_closer(document):
    terms = ChargeTerms(1, 1, {}, parse_price(document))
    [pool] = pools_of([Offer(terms, Decimal(5), "allow", None)]).by_key.values()
    assert (pool.unit_amount is not None) == (set(document) == {"model", "unit_amount"})
