"""
Billing periods: where they start and end, in the tenant's time zone.

Owns the arithmetic from an anchor to the boundaries of periods. Does not own which periods exist: those are stored rows, and once
stored they are not computed again. Everything is half-open, `[starts_at, ends_at)`, and every instant is UTC.
"""

import calendar
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Self
from zoneinfo import ZoneInfo


class Interval(StrEnum):
    """The unit in which a tier is billed."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    SEMIANNUAL = "semiannual"
    YEAR = "year"


class Alignment(StrEnum):
    """Whether boundaries follow the subscription's own anchor, or the calendar."""

    ANNIVERSARY = "anniversary"
    CALENDAR = "calendar"


_DAYS = {Interval.DAY: 1, Interval.WEEK: 7}
_MONTHS = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.SEMIANNUAL: 6, Interval.YEAR: 12}


@dataclass(frozen=True, slots=True)
class Period:
    """
    A half-open stretch of time. Aware instants of any zone are taken, and kept as UTC.

    Raises ValueError for a naive instant, or an end before the start.
    """

    starts_at: datetime
    ends_at: datetime

    def __post_init__(self) -> None:
        # Two instants of the same zone subtract by their wall clocks, an hour wrong across a change of daylight saving: hence UTC.
        object.__setattr__(self, "starts_at", _utc(self.starts_at))
        object.__setattr__(self, "ends_at", _utc(self.ends_at))
        if self.ends_at < self.starts_at:
            raise ValueError(f"the period ends at {self.ends_at}, before it starts at {self.starts_at}")

    def __contains__(self, instant: datetime) -> bool:
        return self.starts_at <= instant < self.ends_at

    @property
    def length(self) -> timedelta:
        """The elapsed time, so 23 or 25 hours for a day on which the clocks change."""
        return self.ends_at - self.starts_at


@dataclass(frozen=True, slots=True)
class Anchor:
    """
    The local date and time from which all boundaries are counted, and the zone in which they are read.

    Kept as wall time, so that a tenant who moves to another zone keeps "the 15th at midnight".
    """

    wall: datetime
    zone: str

    def __post_init__(self) -> None:
        if self.wall.tzinfo is not None:
            raise ValueError("an anchor is a local wall time, without an offset")

    @classmethod
    def at(cls, instant: datetime, zone: str) -> Self:
        """
        Return the anchor of something that starts at `instant` in `zone`.

        >>> Anchor.at(datetime(2024, 1, 31, 14, 59, tzinfo=UTC), "Asia/Tokyo").wall
        datetime.datetime(2024, 1, 31, 23, 59)
        """
        return cls(wall=_wall(instant, zone), zone=zone)


@dataclass(frozen=True, slots=True)
class Cadence:
    """
    How often a period ends: every `count` intervals, from the anchor or on the calendar.

    Stored codes ("month", "calendar") are taken as well. Raises ValueError for a count below 1 or an unknown code.
    """

    interval: Interval
    count: int = 1
    alignment: Alignment = Alignment.ANNIVERSARY

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", Interval(self.interval))
        object.__setattr__(self, "alignment", Alignment(self.alignment))
        if self.count < 1:
            raise ValueError(f"a period spans at least one interval, not {self.count}")


def resolve_wall(wall: datetime, zone: str) -> datetime:
    """
    Return the instant, in UTC, at which clocks in the zone show `wall`.

    A wall time that the zone skips moves forward by the gap; one that it repeats is its first occurrence. Raises ZoneInfoNotFoundError
    for an unknown zone.

    >>> resolve_wall(datetime(2024, 3, 10, 2, 30), "America/New_York")  # 02:30 does not exist: 03:30, four hours behind UTC
    datetime.datetime(2024, 3, 10, 7, 30, tzinfo=datetime.timezone.utc)
    >>> resolve_wall(datetime(2024, 11, 3, 1, 30), "America/New_York")  # 01:30 comes twice
    datetime.datetime(2024, 11, 3, 5, 30, tzinfo=datetime.timezone.utc)
    """
    # fold=0 is both rules at once: the earlier of two offsets, and before a gap the offset that was in force.
    return wall.replace(tzinfo=ZoneInfo(zone), fold=0).astimezone(UTC)


def nth_boundary(anchor: Anchor, cadence: Cadence, index: int) -> datetime:
    """
    Return the instant at which the period of that index starts, in UTC.

    Counted from the anchor each time, never from the previous boundary, so that an anchor on the 31st gives 31 Jan, 28 Feb, 31 Mar.
    Boundary 0 of an anniversary is the anchor; boundary 0 of the calendar is the start of the day, week (Monday), month, quarter, half
    or whole year in which the anchor lies. A negative index counts backwards. Raises ValueError or OverflowError outside years 1 to 9999.

    >>> anchor, monthly = Anchor(datetime(2023, 1, 31), "UTC"), Cadence(Interval.MONTH)
    >>> [nth_boundary(anchor, monthly, index).strftime("%d %b") for index in range(4)]
    ['31 Jan', '28 Feb', '31 Mar', '30 Apr']
    """
    return resolve_wall(_shift(_origin(anchor, cadence), cadence.interval, index * cadence.count), anchor.zone)


def nth_period(anchor: Anchor, cadence: Cadence, index: int) -> Period:
    """
    Return the period that starts `index` cadences after the anchor.

    Its length is never negative, and zero in one case only: a daily period on a day that the zone skipped (Pacific/Apia had no
    30 December 2011).
    """
    return Period(nth_boundary(anchor, cadence, index), nth_boundary(anchor, cadence, index + 1))


def index_of(anchor: Anchor, cadence: Cadence, instant: datetime) -> int:
    """
    Return the index of the period that contains the instant; negative before the anchor.

    An instant on a boundary belongs to the period that starts there.

    >>> anchor, monthly = Anchor(datetime(2026, 1, 31, 10), "UTC"), Cadence(Interval.MONTH)
    >>> index_of(anchor, monthly, datetime(2026, 4, 30, 9, tzinfo=UTC)), index_of(anchor, monthly, datetime(2026, 4, 30, 10, tzinfo=UTC))
    (2, 3)
    """
    # The wall clock alone is off by one around month ends and changes of the clocks; the boundaries themselves decide.
    index = _steps_between(_origin(anchor, cadence), _wall(instant, anchor.zone), cadence.interval) // cadence.count
    while nth_boundary(anchor, cadence, index) > instant:
        index -= 1
    while nth_boundary(anchor, cadence, index + 1) <= instant:
        index += 1
    return index


def period_containing(anchor: Anchor, cadence: Cadence, instant: datetime) -> Period:
    """Return the period in which the instant lies: starts_at <= instant < ends_at. The anchor may lie in the future."""
    return nth_period(anchor, cadence, index_of(anchor, cadence, instant))


def first_period(anchor: Anchor, cadence: Cadence, starts_at: datetime) -> Period:
    """
    Return the period that opens a run: from `starts_at` to the first boundary after it.

    A whole period where the run starts at its anchor. On the calendar, or where the anchor is another day (a billing day), it is a stub,
    whose fee is prorated by its share of `period_containing(anchor, cadence, starts_at)`.

    >>> anchor = Anchor(datetime(2024, 3, 5, 14), "UTC")
    >>> stub = first_period(anchor, Cadence(Interval.MONTH, alignment=Alignment.CALENDAR), datetime(2024, 3, 5, 14, tzinfo=UTC))
    >>> stub.starts_at.isoformat(), stub.ends_at.isoformat()
    ('2024-03-05T14:00:00+00:00', '2024-04-01T00:00:00+00:00')
    """
    return next_period(anchor, cadence, starts_at)


def next_period(anchor: Anchor, cadence: Cadence, after: datetime, *, rezoned: bool = False) -> Period:
    """
    Return the period that starts at `after`, the end of the one before it, and ends at the first boundary after that.

    `rezoned` says that the tenant's zone has changed since the period before was opened. Boundaries then lie some hours off `after`, and
    the period ends at the first that is at least half a period later, so that no sliver of a few hours is billed as a month.

    >>> anchor, after = Anchor(datetime(2024, 6, 1), "America/New_York"), datetime(2024, 6, 30, 22, tzinfo=UTC)  # midnight in Berlin
    >>> next_period(anchor, Cadence(Interval.MONTH), after, rezoned=True).ends_at.isoformat()
    '2024-08-01T04:00:00+00:00'
    """
    index = index_of(anchor, cadence, after)
    around = nth_period(anchor, cadence, index)
    ends_at = around.ends_at
    while rezoned and 2 * (ends_at - after) < around.length:
        index += 1
        ends_at = nth_boundary(anchor, cadence, index + 1)
    return Period(after, ends_at)


def local_day(instant: datetime, zone: str) -> date:
    """
    Return the date on which the instant falls in the zone: the latest day whose midnight has passed.

    Where clocks go back over midnight, the hour that repeats belongs to the day that had already begun, so that days never run backwards.
    """
    day = _wall(instant, zone).date()
    while _midnight(day, zone) > instant:
        day -= timedelta(days=1)
    while _midnight(day + timedelta(days=1), zone) <= instant:
        day += timedelta(days=1)
    return day


def local_days(starts_at: datetime, ends_at: datetime, zone: str) -> int:
    """
    Return the number of days from the local date of `starts_at` to that of `ends_at`.

    The day of the start counts whole, the day of the end not at all, whatever the times of day. Negative when the end is on an earlier day.

    >>> local_days(datetime(2024, 3, 10, 5, tzinfo=UTC), datetime(2024, 3, 11, 4, tzinfo=UTC), "America/New_York")  # a day of 23 hours
    1
    """
    return (local_day(ends_at, zone) - local_day(starts_at, zone)).days


def _utc(instant: datetime) -> datetime:
    if instant.utcoffset() is None:
        raise ValueError(f"{instant} has no offset, so it is no instant")
    return instant.astimezone(UTC)


def _wall(instant: datetime, zone: str) -> datetime:
    return _utc(instant).astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)


def _midnight(day: date, zone: str) -> datetime:
    return resolve_wall(datetime.combine(day, time.min), zone)


def _origin(anchor: Anchor, cadence: Cadence) -> datetime:
    """Return the wall time of boundary 0."""
    if cadence.alignment is Alignment.ANNIVERSARY:
        return anchor.wall
    day = anchor.wall.date()
    if cadence.interval is Interval.WEEK:
        day -= timedelta(days=day.weekday())
    elif cadence.interval is not Interval.DAY:
        months = _MONTHS[cadence.interval]
        day = day.replace(month=day.month - (day.month - 1) % months, day=1)
    return datetime.combine(day, time.min)


def _shift(wall: datetime, interval: Interval, steps: int) -> datetime:
    if interval in _DAYS:
        return wall + timedelta(days=_DAYS[interval] * steps)
    year, month = divmod(wall.year * 12 + wall.month - 1 + _MONTHS[interval] * steps, 12)
    days_in_month = calendar.monthrange(year, month + 1)[1]
    return wall.replace(year=year, month=month + 1, day=min(wall.day, days_in_month))


def _steps_between(start: datetime, end: datetime, interval: Interval) -> int:
    if interval in _DAYS:
        return (end - start).days // _DAYS[interval]
    return (end.year * 12 + end.month - start.year * 12 - start.month) // _MONTHS[interval]
