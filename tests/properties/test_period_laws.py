"""Laws of periods: they tile, in any zone, from any anchor, however they are walked. One by one: test_period_tiling."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import given, settings
from hypothesis import strategies as st

from subscriptions.core.periods import (
    Alignment,
    Anchor,
    Cadence,
    Interval,
    first_period,
    index_of,
    local_day,
    next_period,
    nth_boundary,
    nth_period,
    period_containing,
)

LAWS = settings(deadline=None, max_examples=120)

ZONES = sorted(available_timezones())
# Half-hour daylight saving, days skipped, midnights skipped, quarters of an hour, changes against the season, and UTC.
AWKWARD_ZONES = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/New_York",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
    "UTC",
]
ANCHOR_DAYS = [
    date(2011, 1, 1),
    date(2011, 1, 15),
    date(2011, 1, 28),
    date(2011, 1, 29),
    date(2011, 1, 30),
    date(2011, 1, 31),
    date(2008, 2, 29),
]
MICROSECOND = timedelta(microseconds=1)

zones = st.sampled_from(AWKWARD_ZONES) | st.sampled_from(ZONES)
cadences = st.builds(
    Cadence, st.sampled_from(Interval), st.integers(min_value=1, max_value=14), st.sampled_from(Alignment)
)
anchor_walls = st.datetimes(min_value=datetime(1995, 1, 1), max_value=datetime(2045, 12, 31)) | st.builds(
    datetime.combine,
    st.sampled_from(ANCHOR_DAYS),
    st.sampled_from(
        [datetime(1, 1, 1, hour, minute).time() for hour in (0, 1, 2, 3, 23) for minute in (0, 15, 30, 59)]
    ),
)
anchors = st.builds(Anchor, anchor_walls, zones)
instants = st.datetimes(
    min_value=datetime(1995, 1, 1), max_value=datetime(2045, 12, 31), timezones=st.just(UTC)
) | st.datetimes(min_value=datetime(2011, 12, 25), max_value=datetime(2012, 1, 5), timezones=st.just(UTC))


@LAWS
@given(anchor=anchors, cadence=cadences, index=st.integers(min_value=-40, max_value=40))
def test_each_period_ends_where_the_next_one_starts(anchor, cadence, index):
    assert nth_period(anchor, cadence, index).ends_at == nth_period(anchor, cadence, index + 1).starts_at


@LAWS
@given(anchor=anchors, cadence=cadences, instant=instants)
def test_every_instant_lies_in_exactly_one_period(anchor, cadence, instant):
    index = index_of(anchor, cadence, instant)
    period = nth_period(anchor, cadence, index)
    assert instant in period
    assert instant not in nth_period(anchor, cadence, index - 1)
    assert instant not in nth_period(anchor, cadence, index + 1)
    assert period_containing(anchor, cadence, period.starts_at) == period
    assert period_containing(anchor, cadence, period.ends_at - MICROSECOND) == period
    assert period_containing(anchor, cadence, period.ends_at).starts_at == period.ends_at


@LAWS
@given(anchor=anchors, cadence=cadences, starts_at=instants)
def test_a_run_walked_period_by_period_tiles_and_drifts_nowhere(anchor, cadence, starts_at):
    run = [first_period(anchor, cadence, starts_at)]
    for _ in range(15):
        run.append(next_period(anchor, cadence, run[-1].ends_at))

    assert run[0].starts_at == starts_at
    assert all(earlier.ends_at == later.starts_at for earlier, later in pairwise(run))
    assert all(period.length > timedelta(0) for period in run)
    assert all(period == period_containing(anchor, cadence, period.starts_at) for period in run[1:])


@LAWS
@given(instant=instants, zone=zones, interval=st.sampled_from(Interval), count=st.integers(min_value=1, max_value=6))
def test_a_subscription_on_its_own_anniversary_opens_at_its_start_and_has_no_stub(instant, zone, interval, count):
    cadence = Cadence(interval, count)
    anchor = Anchor.at(instant, zone)
    first = first_period(anchor, cadence, instant)
    assert first.starts_at == instant
    assert first.ends_at == nth_boundary(anchor, cadence, index_of(anchor, cadence, instant) + 1)
    # Where the zone repeats a stretch of time, the anchor's wall time is its first occurrence; no zone repeats more than three hours.
    assert timedelta(0) <= instant - nth_boundary(anchor, cadence, 0) <= timedelta(hours=3)


@LAWS
@given(anchor=anchors, cadence=cadences, new_zone=zones, index=st.integers(min_value=-10, max_value=10))
def test_after_a_change_of_zone_periods_tile_and_none_is_a_sliver(anchor, cadence, new_zone, index):
    end_before_the_change = nth_boundary(anchor, cadence, index)
    moved = Anchor(anchor.wall, new_zone)
    around = period_containing(moved, cadence, end_before_the_change)

    period = next_period(moved, cadence, end_before_the_change, rezoned=True)

    assert period.starts_at == end_before_the_change
    assert 2 * period.length >= around.length
    assert period.ends_at in {nth_boundary(moved, cadence, index + offset) for offset in range(-1, 4)}
    assert next_period(moved, cadence, period.ends_at).starts_at == period.ends_at
    assert next_period(moved, cadence, period.ends_at) == period_containing(moved, cadence, period.ends_at)


@LAWS
@given(anchor=anchors, cadence=cadences, index=st.integers(min_value=-10, max_value=10))
def test_saying_that_the_zone_changed_when_it_did_not_alters_nothing(anchor, cadence, index):
    boundary = nth_boundary(anchor, cadence, index)
    assert next_period(anchor, cadence, boundary, rezoned=True) == next_period(anchor, cadence, boundary)


@LAWS
@given(wall=anchor_walls, other_wall=anchor_walls, zone=zones, interval=st.sampled_from(Interval), instant=instants)
def test_the_calendar_does_not_depend_on_the_anchor(wall, other_wall, zone, interval, instant):
    cadence = Cadence(interval, alignment=Alignment.CALENDAR)
    found = period_containing(Anchor(wall, zone), cadence, instant)
    assert found == period_containing(Anchor(other_wall, zone), cadence, instant)


@LAWS
@given(
    anchor=anchors,
    interval=st.sampled_from([Interval.MONTH, Interval.QUARTER, Interval.SEMIANNUAL, Interval.YEAR]),
    count=st.integers(min_value=1, max_value=12),
    index=st.integers(min_value=-20, max_value=20),
)
def test_a_year_is_twelve_months_whatever_it_is_called(anchor, interval, count, index):
    months = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.SEMIANNUAL: 6, Interval.YEAR: 12}[interval]
    boundary = nth_boundary(anchor, Cadence(interval, count), index)
    assert boundary == nth_boundary(anchor, Cadence(Interval.MONTH), index * count * months)


@LAWS
@given(moments=st.lists(instants, min_size=2, max_size=2), zone=zones)
def test_local_days_never_run_backwards(moments, zone):
    earlier, later = sorted(moments)
    assert local_day(earlier, zone) <= local_day(later, zone)


@LAWS
@given(instant=instants, zone=st.sampled_from(AWKWARD_ZONES))
def test_a_local_day_is_the_date_on_the_wall(instant, zone):
    assert abs((local_day(instant, zone) - instant.astimezone(ZoneInfo(zone)).date()).days) <= (
        zone == "America/St_Johns"
    )
