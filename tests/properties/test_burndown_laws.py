"""The laws of burning grants, against the oracle that walks single events."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from metering.core.burndown import Grant, GrantKind, burn_down, split, walk
from metering.core.segments import VersionSpan, cut, segment_at
from subscriptions.core.periods import Period
from tests import oracle

START = datetime(2026, 6, 1, tzinfo=UTC)
DAYS = 20
PERIODS = [
    Period(START, START + timedelta(days=DAYS // 2)),
    Period(START + timedelta(days=DAYS // 2), START + timedelta(days=DAYS)),
]


def day(number):
    return START + timedelta(days=number)


# Small whole numbers meet each other often; the others have the digits of a real quantity.
quantities = st.one_of(
    st.integers(0, 30).map(Decimal),
    st.decimals(min_value=0, max_value=Decimal("999999999999999999"), places=12),
)
events = st.lists(
    st.builds(
        oracle.Event,
        occurred_at=st.integers(0, DAYS * 4 - 1).map(lambda quarter: day(quarter / 4)),
        quantity=quantities,
    ),
    max_size=12,
)


@st.composite
def grant_lists(draw, *, size=6):
    grants = []
    for grant_id in range(draw(st.integers(0, size))):
        starts = draw(st.integers(-3, DAYS + 1))
        end = st.one_of(st.none(), st.integers(starts - 2, DAYS + 3).map(day))
        grants.append(
            Grant(
                id=grant_id,
                quantity=draw(quantities),
                priority=draw(st.integers(0, 2)),
                effective_at=day(starts),
                expires_at=draw(end),
                voided_at=draw(end),
                kind=draw(st.sampled_from(GrantKind)),
                created_at=day(draw(st.integers(-3, 0))),
                ranked_at=draw(st.one_of(st.none(), st.integers(0, DAYS).map(day))),
            )
        )
    return grants


def for_the_oracle(grant):
    return oracle.Grant(
        id=grant.id,
        quantity=grant.quantity,
        effective_at=grant.effective_at,
        expires_at=grant.expires_at,
        voided_at=grant.voided_at,
        priority=grant.priority,
        paid=grant.kind == GrantKind.PURCHASED,
        created_at=grant.created_at,
        rolled=grant.kind == GrantKind.ROLLOVER,
        ranked_at=grant.ranked_at,
    )


def segments_of(grants):
    return [segment for period in PERIODS for segment in cut(period, [VersionSpan(1, START)], grants)]


def totals(events, grants):
    """Sum events into segments, in whatever order they come."""
    segments = segments_of(grants)
    sums = {segment.starts_at: Fraction(0) for segment in segments}
    for event in events:
        sums[segment_at(segments, event.occurred_at).starts_at] += Fraction(event.quantity)
    return [(starts_at, to_decimal(total)) for starts_at, total in sums.items()]


def to_decimal(fraction):
    return Decimal(f"{int(fraction * 10**12)}E-12")


@given(events, grant_lists(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=200)
def test_events_in_any_order_give_the_position_of_walking_them_one_by_one(events, grants, random):
    random.shuffle(events)
    position = walk(totals(events, grants), grants)
    expected = oracle.position(events, [for_the_oracle(grant) for grant in grants])
    assert Fraction(position.used) == expected.used
    assert Fraction(position.covered) == expected.covered
    assert Fraction(position.overage) == expected.overage
    burned = {grant.id: Fraction(grant.quantity) - Fraction(position.remaining[grant.id]) for grant in grants}
    assert burned == expected.burns


@given(events, grant_lists())
@settings(deadline=None)
def test_covered_and_overage_are_what_was_used(events, grants):
    position = walk(totals(events, grants), grants)
    burns = [burned for segment in position.segments for burned in segment.burns.values()]
    assert sum(map(Fraction, burns)) == Fraction(position.covered)
    assert sum(Fraction(segment.overage) for segment in position.segments) == Fraction(position.overage)
    assert Fraction(position.covered) + Fraction(position.overage) == Fraction(position.used)
    assert all(burned > 0 for burned in burns)
    assert all(remaining >= 0 for remaining in position.remaining.values())


@given(quantities, grant_lists(), st.integers(-4, DAYS + 4), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_in_which_grants_are_given_does_not_matter(usage, grants, instant, random):
    in_order = burn_down(usage, grants=grants, as_of=day(instant))
    random.shuffle(grants)
    assert burn_down(usage, grants=grants, as_of=day(instant)) == in_order
    assert sum(map(Fraction, in_order.burns.values())) + Fraction(in_order.overage) == Fraction(usage)


@given(events, st.lists(quantities, min_size=1, max_size=5), grant_lists())
@settings(deadline=None)
def test_appending_to_the_newest_segment_in_steps_is_walking_again(events, appended, grants):
    before = totals(events, grants)
    newest = segments_of(grants)[-1]
    left = walk(before, grants).remaining
    burned, overage = dict.fromkeys(left, Fraction(0)), Fraction(walk(before, grants).overage)
    for quantity in appended:
        in_order = [(grant.id, to_decimal(Fraction(left[grant.id]) - burned[grant.id])) for grant in newest.grants]
        burns, uncovered = split(quantity, in_order)
        overage += Fraction(uncovered)
        for grant_id, amount in burns:
            burned[grant_id] += Fraction(amount)

    together = to_decimal(Fraction(before[-1][1]) + sum(map(Fraction, appended)))
    after = walk([*before[:-1], (newest.starts_at, together)], grants)
    assert Fraction(after.overage) == overage
    assert {each: Fraction(after.remaining[each]) + burned[each] for each in left} == {
        each: Fraction(left[each]) for each in left
    }


@given(events, grant_lists())
@settings(deadline=None)
def test_freezing_a_closed_period_and_walking_on_is_walking_both(events, grants):
    both = totals(events, grants)
    closed = [total for total in both if total[0] in PERIODS[0]]
    first = walk(closed, grants)
    rest = [replace(grant, quantity=first.remaining[grant.id]) for grant in grants]
    second = walk(both[len(closed) :], rest)
    whole = walk(both, grants)
    assert second.remaining == whole.remaining
    assert first.segments + second.segments == whole.segments


@given(grant_lists(), st.lists(st.tuples(st.integers(-2, DAYS), st.integers(1, 3)), max_size=4))
@settings(deadline=None)
def test_segments_tile_the_period_and_each_is_as_long_as_can_be(grants, changes):
    spans = {-3: 0, **dict(changes)}
    period = Period(START, day(DAYS))
    segments = cut(period, [VersionSpan(version, day(number)) for number, version in spans.items()], grants)
    assert segments[0].starts_at == period.starts_at
    assert segments[-1].ends_at == period.ends_at
    for before, after in pairwise(segments):
        assert before.ends_at == after.starts_at
        assert (before.version_id, before.grants) != (after.version_id, after.grants)
    for quarter in range(DAYS * 4):
        segment = segment_at(segments, day(quarter / 4))
        assert {grant.id for grant in segment.grants} == {
            grant.id for grant in grants if for_the_oracle(grant).is_live(day(quarter / 4))
        }
        assert segment.version_id == spans[max(number for number in spans if number <= quarter / 4)]
