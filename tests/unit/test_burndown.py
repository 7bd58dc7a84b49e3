"""Which grant burns first, for which usage, and what is left over."""

import doctest
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from metering.core import burndown
from metering.core.burndown import Burndown, Grant, GrantKind, burn_down, burn_order, split, walk
from metering.core.segments import VersionSpan, cut, segment_at
from subscriptions.core.periods import Period


def june(day, hour=0):
    return datetime(2026, 6, day, hour, tzinfo=UTC)


JUNE = june(1)
JULY = datetime(2026, 7, 1, tzinfo=UTC)
AUGUST = datetime(2026, 8, 1, tzinfo=UTC)


def grant(grant_id, quantity=100, starts_at=JUNE, expires_at=None, **fields):
    values = {"voided_at": None, "priority": 0, "kind": GrantKind.PROMOTIONAL, "created_at": JUNE, **fields}
    return Grant(id=grant_id, quantity=Decimal(quantity), effective_at=starts_at, expires_at=expires_at, **values)


def totals(events, grants, periods):
    """Place (instant, quantity) pairs in the segments of the periods, as ingestion does."""
    segments = [segment for period in periods for segment in cut(period, [VersionSpan(1, period.starts_at)], grants)]
    sums = {segment.starts_at: Decimal(0) for segment in segments}
    for occurred_at, quantity in events:
        sums[segment_at(segments, occurred_at).starts_at] += quantity
    return list(sums.items())


def test_examples_in_the_docstrings_hold():
    assert doctest.testmod(burndown).failed == 0


def test_priority_then_expiry_then_promotional_then_age_then_id():
    in_order = [
        grant(9, priority=1, expires_at=None, kind=GrantKind.PURCHASED, created_at=june(9)),
        grant(8, priority=2, expires_at=june(20), kind=GrantKind.PURCHASED, created_at=june(9)),
        grant(7, priority=2, expires_at=june(25), kind=GrantKind.ALLOWANCE, created_at=june(2)),
        grant(6, priority=2, expires_at=june(25), kind=GrantKind.PROMOTIONAL, created_at=june(3)),
        grant(5, priority=2, expires_at=june(25), kind=GrantKind.PURCHASED, created_at=june(1)),
        grant(3, priority=2, expires_at=None, kind=GrantKind.PURCHASED, created_at=june(4)),
        grant(4, priority=2, expires_at=None, kind=GrantKind.PURCHASED, created_at=june(4)),
    ]
    assert burn_order(reversed(in_order)) == in_order


def test_what_rolled_over_burns_before_the_allowance_that_it_meets_first():
    allowance = grant("allowance", expires_at=JULY, kind=GrantKind.ALLOWANCE)
    once = grant("once", expires_at=JULY, kind=GrantKind.ROLLOVER, created_at=june(2))
    lasting = grant("lasting", expires_at=AUGUST, kind=GrantKind.ROLLOVER, ranked_at=JULY, created_at=june(3))
    sooner = grant("sooner", expires_at=june(20))
    assert burn_order([lasting, allowance, sooner, once]) == [sooner, once, lasting, allowance]


def test_voiding_a_grant_does_not_change_what_burned_before_it():
    first, second = grant("first", expires_at=june(20)), grant("second", expires_at=june(25), voided_at=june(10))
    assert burn_order([second, first]) == [first, second]


def test_usage_burns_the_grants_in_force_at_its_time():
    grants = [grant("past", expires_at=june(10)), grant("now", starts_at=june(5)), grant("later", starts_at=june(20))]
    assert burn_down(Decimal(130), grants=grants, as_of=june(10)) == Burndown({"now": Decimal(100)}, Decimal(30))
    assert burn_down(Decimal(130), grants=grants, as_of=june(9)).burns == {"past": Decimal(100), "now": Decimal(30)}


def test_a_fraction_of_a_unit_is_split_exactly():
    grants = [grant("small", "0.000000000001", expires_at=june(9)), grant("large", "999999999999999999")]
    burned = burn_down(Decimal("999999999999999999.999999999999"), grants=grants, as_of=june(1))
    assert burned.burns == {"small": Decimal("0.000000000001"), "large": Decimal("999999999999999999")}
    assert burned.overage == Decimal("0.999999999998")


def test_overlapping_grants_with_the_earlier_event_late_leave_nothing_uncovered():
    grants = [grant("A", starts_at=june(1), expires_at=june(22)), grant("B", starts_at=june(15), expires_at=june(25))]
    period = Period(june(1), JULY)
    on_time = totals([(june(20), Decimal(100))], grants, [period])
    assert walk(on_time, grants).remaining == {"A": Decimal(0), "B": Decimal(100)}

    with_the_late_one = totals([(june(20), Decimal(100)), (june(5), Decimal(100))], grants, [period])
    position = walk(with_the_late_one, grants)
    assert position.overage == 0
    assert position.remaining == {"A": Decimal(0), "B": Decimal(0)}
    assert [dict(segment.burns) for segment in position.segments] == [{"A": 100}, {"B": 100}, {}, {}]


def test_a_grant_over_two_periods_is_walked_over_both():
    bought = grant("bought", 150, kind=GrantKind.PURCHASED)
    grants = [grant("june", expires_at=JULY), grant("july", starts_at=JULY, expires_at=AUGUST), bought]
    periods = [Period(june(1), JULY), Period(JULY, AUGUST)]
    july_event = (datetime(2026, 7, 10, tzinfo=UTC), Decimal(180))

    position = walk(totals([july_event], grants, periods), grants)
    assert position.remaining == {"june": 100, "july": 0, "bought": 70}

    position = walk(totals([july_event, (june(10), Decimal(200))], grants, periods), grants)
    assert position.remaining == {"june": 0, "july": 0, "bought": 0}
    assert (position.used, position.covered, position.overage) == (380, 350, 30)


def test_what_an_expired_grant_has_left_stays_visible_for_late_events():
    position = walk([(june(1), Decimal(30)), (june(10), Decimal(50))], [grant("short", expires_at=june(10))])
    assert position.remaining == {"short": 70}
    assert position.overage == 50


def test_splitting_in_a_given_order_skips_what_is_empty():
    assert split(Decimal(0), [("a", Decimal(5))]) == ([], Decimal(0))
    assert split(Decimal(7), [("a", Decimal(0)), ("b", Decimal(5))]) == ([("b", Decimal(5))], Decimal(2))
    assert split(Decimal(7), []) == ([], Decimal(7))


@pytest.mark.parametrize(
    ("instant", "covers"),
    [(june(4, 23), False), (june(5), True), (june(9, 23), True), (june(10), False)],
)
def test_a_grant_covers_from_its_start_until_just_before_its_end(instant, covers):
    assert grant("a", starts_at=june(5), expires_at=june(10)).covers(instant) is covers
    assert grant("a", starts_at=june(5), voided_at=june(10)).covers(instant) is covers
    assert grant("a", starts_at=june(5), expires_at=june(10), voided_at=june(12)).covers(instant) is covers


def test_a_grant_that_nothing_ends_covers_for_ever():
    assert grant("a").ends_at is None
    assert grant("a").covers(datetime(9999, 1, 1, tzinfo=UTC))


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="negative quantity"):
        grant("a", -1)
    with pytest.raises(ValueError, match="not negative"):
        split(Decimal(-1), [])
    with pytest.raises(ValueError, match="time order"):
        walk([(june(2), Decimal(1)), (june(1), Decimal(1))], [])
    with pytest.raises(ValueError, match="time order"):
        walk([(june(1), Decimal(1)), (june(1), Decimal(1))], [])
    with pytest.raises(ValueError, match="twice"):
        walk([], [grant("a"), grant("a")])
