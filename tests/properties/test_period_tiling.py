"""
The exhaustive law of periods: in every zone and from every anchor, boundaries are those of a slow twin, and periods tile.

The twin asks `zoneinfo` one thing, at which instants the offset of a zone changes. Zones that agree in that are one zone here; the long
form takes each by its name, from every month and day of the week, over two stretches of three years. Moves between zones, which keep the
current end, are tried in pairs.
"""

from bisect import bisect_left, bisect_right
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import pairwise, permutations, product
from zoneinfo import ZoneInfo, available_timezones

import pytest

from subscriptions.core.periods import (
    Alignment,
    Anchor,
    Cadence,
    Interval,
    Period,
    index_of,
    next_period,
    nth_boundary,
    nth_period,
    period_containing,
)

MONTHS = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.SEMIANNUAL: 6, Interval.YEAR: 12}
KINDS = [*MONTHS, Interval.WEEK, Interval.DAY, Alignment.CALENDAR]
ANCHOR_DAYS = [1, 15, 28, 29, 30, 31]
WALL_TIMES = [time(0), time(2, 30)]  # clocks that go forward skip the one or the other
FIRST_YEARS = [2011, 2023]  # each followed by a leap year; in the first, Apia skipped a day
DAY, MICROSECOND = timedelta(days=1), timedelta(microseconds=1)
LOOK = 5 * DAY  # no zone changes its offset and takes that back within
# From 11 hours behind UTC to 14 ahead, with half and quarter hours, and changes of the clocks in the north and in the south.
MOVES = [
    "America/New_York",
    "America/Santiago",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
    "Pacific/Chatham",
    "UTC",
]

# When clocks change in the north or the south, when Apia skips a day, and one time without any of it.
MOVED_AT = [datetime(2011, month, day, tzinfo=UTC) for month, day in [(3, 12), (5, 20), (10, 1), (11, 5), (12, 30)]]


@dataclass(frozen=True)
class Run:
    """Consecutive boundaries, from that of `first_index`, as the walls at which they should lie."""

    anchor: datetime
    cadence: Cadence
    first_index: int
    walls: list[datetime]


@cache
def changes_of_offset(zone, first_year):
    """The offset of a zone a year before the three years, and each change of it until a year after them, with its instant."""

    def offset_at(instant):
        return instant.astimezone(ZoneInfo(zone)).utcoffset()

    look = datetime(first_year - 1, 1, 1, tzinfo=UTC)
    changes = [(look, offset_at(look))]
    while look.year < first_year + 4:
        while (offset := changes[-1][1]) != offset_at(look + LOOK):
            since = max(look, changes[-1][0])
            seconds = range(LOOK // timedelta(seconds=1))
            passed = bisect_left(
                seconds, True, key=lambda second: offset_at(since + timedelta(seconds=second)) != offset
            )
            changes.append((since + timedelta(seconds=passed), offset_at(since + timedelta(seconds=passed))))
        look += LOOK
    return tuple(changes)


@cache
def zones_that_differ(first_year):
    """One zone for each way in which offsets change in these years; so of those that keep their offset, one."""
    found = {}
    for zone in sorted(available_timezones()):
        found.setdefault(changes_of_offset(zone, first_year)[1:], zone)
    return list(found.values())


class Twin:
    """Where walls of a zone lie in time, by the instants at which its offset changes."""

    def __init__(self, changes):
        self.offsets = [offset for _, offset in changes]
        # At a change clocks show one wall, then at once another. What lies before the later of the two is read with the offset before:
        # it came before the change, or its first occurrence did, or it is skipped and moves forward by the gap.
        self.read_anew_from = [
            (instant + max(before, after)).replace(tzinfo=None) for (_, before), (instant, after) in pairwise(changes)
        ]
        self.skips_a_day = any(after - before >= DAY for before, after in pairwise(self.offsets))

    def instant(self, wall):
        return wall.replace(tzinfo=UTC) - self.offsets[bisect_right(self.read_anew_from, wall)]


def run_of_months(anchor, interval, first_year, alignment=Alignment.ANNIVERSARY):
    """The run of the three years: on the anchor's day, or the last of a month that has no such day; or where the calendar starts."""
    step, origin = MONTHS[interval], anchor
    if alignment == Alignment.CALENDAR:
        origin = datetime(anchor.year, (anchor.month - 1) // step * step + 1, 1)
    months = [month for month in range(1, 13) if (month - origin.month) % step == 0]
    walls = [
        origin.replace(year=year, month=month, day=min(origin.day, monthrange(year, month)[1]))
        for year in range(first_year, first_year + 3)
        for month in months
    ]
    first_index = ((first_year - origin.year) * 12 + months[0] - origin.month) // step
    return Run(anchor, Cadence(interval, alignment=alignment), first_index, walls)


def run_of_days(anchor, interval, first_index, count, alignment=Alignment.ANNIVERSARY):
    """The run of so many days, or weeks, counted from the anchor, or from midnight of its day, or of the Monday of its week."""
    step, origin = 7 if interval is Interval.WEEK else 1, anchor
    if alignment == Alignment.CALENDAR:
        origin = datetime.combine(anchor.date(), time(0))
        if interval is Interval.WEEK:
            origin -= anchor.weekday() * DAY
    walls = [origin + step * index * DAY for index in range(first_index, first_index + count)]
    return Run(anchor, Cadence(interval, alignment=alignment), first_index, walls)


def anniversaries(interval, first_year, start_months):
    for at in WALL_TIMES:
        for month in start_months:
            for day in ANCHOR_DAYS:
                if day <= monthrange(first_year, month)[1]:
                    yield run_of_months(datetime.combine(date(first_year, month, day), at), interval, first_year)
        yield run_of_months(datetime.combine(date(first_year + 1, 2, 29), at), interval, first_year)


def weeks(first_year, anchor_days):
    for at in WALL_TIMES:
        for day in anchor_days:
            yield run_of_days(datetime.combine(date(first_year + 1, 2, day), at), Interval.WEEK, -60, 157)


def days_around(changes, first_year):
    for at in WALL_TIMES:
        for alignment in Alignment:
            anchor = datetime.combine(date(first_year, 1, 31), at)
            for instant, _ in changes[1:]:
                index = (instant.date() - anchor.date()).days
                yield run_of_days(anchor, Interval.DAY, index - 3, 7, alignment)


def calendars(first_year):
    anchor = datetime(first_year + 1, 8, 15, 14, 30)
    for interval in MONTHS:
        yield run_of_months(anchor, interval, first_year, Alignment.CALENDAR)
    yield run_of_days(anchor, Interval.WEEK, -84, 157, Alignment.CALENDAR)


def runs(kind, changes, first_year, *, every=False):
    """The runs of a kind in a zone with these changes: from January, and one day of the week; or from every one."""
    if kind in MONTHS:
        return anniversaries(kind, first_year, range(1, MONTHS[kind] + 1) if every else [1])
    if kind == Interval.WEEK:
        return weeks(first_year, range(23, 30) if every else [29])
    if kind == Interval.DAY:
        return days_around(changes, first_year)
    return calendars(first_year)


def check(run, zone, twin):
    anchor, cadence, where = Anchor(run.anchor, zone), run.cadence, (zone, run.anchor, run.cadence)
    indexes = range(run.first_index, run.first_index + len(run.walls))
    boundaries = [nth_boundary(anchor, cadence, index) for index in indexes]

    assert boundaries == [twin.instant(wall) for wall in run.walls], where
    for index, (starts_at, ends_at) in zip(indexes, pairwise(boundaries), strict=False):
        if starts_at < ends_at:
            assert index_of(anchor, cadence, starts_at) == index, where
            assert index_of(anchor, cadence, ends_at - MICROSECOND) == index, where
        else:
            assert starts_at == ends_at, where
            assert cadence.interval is Interval.DAY, where
            assert twin.skips_a_day, where
    assert nth_period(anchor, cadence, indexes[0]) == Period(boundaries[0], boundaries[1]), where


def test_the_twin_knows_when_clocks_change():
    apia = changes_of_offset("Pacific/Apia", 2011)
    assert (datetime(2011, 12, 30, 10, tzinfo=UTC), timedelta(hours=14)) in apia
    assert Twin(apia).skips_a_day
    assert Twin(apia).instant(datetime(2011, 12, 30, 2, 30)) == datetime(2011, 12, 30, 12, 30, tzinfo=UTC)

    new_york = Twin(changes_of_offset("America/New_York", 2023))
    assert not new_york.skips_a_day
    assert new_york.instant(datetime(2024, 3, 10, 1, 59)) == datetime(2024, 3, 10, 6, 59, tzinfo=UTC)
    assert new_york.instant(datetime(2024, 3, 10, 2, 30)) == datetime(2024, 3, 10, 7, 30, tzinfo=UTC)  # skipped
    assert new_york.instant(datetime(2024, 3, 10, 3)) == datetime(2024, 3, 10, 7, tzinfo=UTC)
    assert new_york.instant(datetime(2024, 11, 3, 1, 30)) == datetime(2024, 11, 3, 5, 30, tzinfo=UTC)  # comes twice
    assert new_york.instant(datetime(2024, 11, 3, 2)) == datetime(2024, 11, 3, 7, tzinfo=UTC)


@pytest.mark.parametrize("kind", KINDS)
def test_periods_tile_in_zones_of_every_kind(kind):
    for zone in zones_that_differ(FIRST_YEARS[0]):
        changes = changes_of_offset(zone, FIRST_YEARS[0])
        twin = Twin(changes)
        for run in runs(kind, changes, FIRST_YEARS[0]):
            check(run, zone, twin)


@pytest.mark.long
@pytest.mark.parametrize("first_year", FIRST_YEARS)
@pytest.mark.parametrize("kind", KINDS)
def test_periods_tile_in_every_zone_by_name(kind, first_year):
    for zone in sorted(available_timezones()):
        changes = changes_of_offset(zone, first_year)
        twin = Twin(changes)
        for run in runs(kind, changes, first_year, every=True):
            check(run, zone, twin)


@pytest.mark.parametrize("interval", Interval)
def test_after_every_move_between_zones_periods_tile_and_none_is_shorter_than_half(interval):
    for old_zone, new_zone in permutations(MOVES, 2):
        for alignment, at, moved_at in product(Alignment, WALL_TIMES, MOVED_AT):
            cadence = Cadence(interval, alignment=alignment)
            anchor = Anchor(datetime.combine(date(2011, 1, 31), at), old_zone)
            current_end = period_containing(anchor, cadence, moved_at).ends_at
            for zone in (new_zone, old_zone):  # there, and in the next period back
                moved = Anchor(anchor.wall, zone)
                current_end = check_move(moved, cadence, current_end)


def check_move(moved, cadence, current_end):
    """The period after a move ends at the first boundary of the new zone that is half an interval off; then periods are whole again."""
    where = (moved, cadence, current_end)
    interval_around = period_containing(moved, cadence, current_end).length
    period = next_period(moved, cadence, current_end, rezoned=True)
    before = nth_boundary(moved, cadence, index_of(moved, cadence, period.ends_at - MICROSECOND))
    following = next_period(moved, cadence, period.ends_at)

    assert period.starts_at == current_end, where
    assert 2 * (before - current_end) < interval_around <= 2 * period.length, where
    assert following == period_containing(moved, cadence, period.ends_at), where
    return period.ends_at
