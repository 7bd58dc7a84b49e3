"""Boundaries of periods, and what zones do to them."""

import doctest
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

from subscriptions.core import periods
from subscriptions.core.periods import (
    Alignment,
    Anchor,
    Cadence,
    Interval,
    Period,
    first_period,
    index_of,
    local_day,
    local_days,
    next_period,
    nth_boundary,
    nth_period,
    period_containing,
    resolve_wall,
)

DAILY = Cadence(Interval.DAY)
MONTHLY = Cadence(Interval.MONTH)
YEARLY = Cadence(Interval.YEAR)
CALENDAR_MONTHS = Cadence(Interval.MONTH, alignment=Alignment.CALENDAR)


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def local_starts(anchor, cadence, indexes):
    zone = ZoneInfo(anchor.zone)
    return [nth_boundary(anchor, cadence, index).astimezone(zone).strftime("%Y-%m-%d %H:%M") for index in indexes]


def test_examples_in_the_docstrings_hold():
    assert doctest.testmod(periods).failed == 0


class TestPeriod:
    def test_the_start_is_inside_and_the_end_is_not(self):
        june = Period(utc(2024, 6, 1), utc(2024, 7, 1))
        assert june.starts_at in june
        assert june.ends_at - timedelta(microseconds=1) in june
        assert june.ends_at not in june

    def test_instants_of_any_zone_are_kept_as_utc(self):
        berlin = ZoneInfo("Europe/Berlin")
        day_of_23_hours = Period(datetime(2024, 3, 31, tzinfo=berlin), datetime(2024, 4, 1, tzinfo=berlin))
        assert day_of_23_hours == Period(utc(2024, 3, 30, 23), utc(2024, 3, 31, 22))
        assert day_of_23_hours.starts_at.tzinfo is UTC
        assert day_of_23_hours.length == timedelta(hours=23)

    def test_a_naive_instant_is_refused(self):
        with pytest.raises(ValueError, match="no offset"):
            Period(datetime(2024, 6, 1), utc(2024, 7, 1))

    def test_an_end_before_the_start_is_refused(self):
        with pytest.raises(ValueError, match="before it starts"):
            Period(utc(2024, 7, 1), utc(2024, 6, 1))


class TestValues:
    def test_an_anchor_with_an_offset_is_refused(self):
        with pytest.raises(ValueError, match="wall time"):
            Anchor(utc(2024, 1, 1), "UTC")

    @pytest.mark.parametrize("count", [0, -1])
    def test_a_cadence_of_no_interval_is_refused(self, count):
        with pytest.raises(ValueError, match="at least one interval"):
            Cadence(Interval.MONTH, count)

    def test_stored_codes_mean_the_same_as_their_enumerations(self):
        assert Cadence("month", 1, "anniversary") == MONTHLY
        assert Cadence("month", alignment="calendar").alignment is Alignment.CALENDAR
        for codes in [("fortnight", 1, "anniversary"), ("month", 1, "lunar")]:
            with pytest.raises(ValueError, match="is not a valid"):
                Cadence(*codes)

    def test_an_anchor_is_read_in_its_zone(self):
        assert Anchor.at(utc(2024, 2, 29, 18, 30), "Asia/Kolkata") == Anchor(datetime(2024, 3, 1), "Asia/Kolkata")

    def test_codes_are_those_of_the_interface(self):
        assert [str(interval) for interval in Interval] == ["day", "week", "month", "quarter", "semiannual", "year"]
        assert [str(alignment) for alignment in Alignment] == ["anniversary", "calendar"]


class TestResolveWall:
    @pytest.mark.parametrize(
        ("wall", "zone", "instant"),
        [
            (datetime(2024, 3, 10, 2, 30), "America/New_York", utc(2024, 3, 10, 7, 30)),  # skipped: becomes 03:30
            (datetime(2024, 11, 3, 1, 30), "America/New_York", utc(2024, 11, 3, 5, 30)),  # repeated: the first
            (
                datetime(2024, 10, 6, 2, 15),
                "Australia/Lord_Howe",
                utc(2024, 10, 5, 15, 45),
            ),  # a gap of half an hour: 02:45
            (datetime(2024, 4, 7, 1, 45), "Australia/Lord_Howe", utc(2024, 4, 6, 14, 45)),  # half an hour repeated
            (datetime(2018, 11, 4, 0, 0), "America/Sao_Paulo", utc(2018, 11, 4, 3, 0)),  # midnight skipped: 01:00
            (
                datetime(2011, 12, 30, 10, 0),
                "Pacific/Apia",
                utc(2011, 12, 30, 20, 0),
            ),  # a day skipped: 31 December, 10:00
            (datetime(2024, 6, 1, 0, 0), "Asia/Kathmandu", utc(2024, 5, 31, 18, 15)),
        ],
    )
    def test_skipped_times_move_by_the_gap_and_repeated_ones_are_the_first(self, wall, zone, instant):
        assert resolve_wall(wall, zone) == instant
        assert resolve_wall(wall.replace(fold=1), zone) == instant

    def test_an_unknown_zone_is_refused(self):
        with pytest.raises(ZoneInfoNotFoundError):
            resolve_wall(datetime(2024, 1, 1), "Europe/Atlantis")


class TestBoundaries:
    @pytest.mark.parametrize(
        ("wall", "cadence", "starts"),
        [
            (datetime(2024, 1, 31), MONTHLY, ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30"]),
            (datetime(2023, 1, 29), MONTHLY, ["2023-01-29", "2023-02-28", "2023-03-29", "2023-04-29"]),
            (datetime(2024, 2, 29), YEARLY, ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
            (datetime(2024, 2, 29), MONTHLY, ["2024-02-29", "2024-03-29", "2024-04-29"]),
            (
                datetime(2024, 8, 31),
                Cadence(Interval.QUARTER),
                ["2024-08-31", "2024-11-30", "2025-02-28", "2025-05-31"],
            ),
            (datetime(2024, 8, 31), Cadence(Interval.SEMIANNUAL), ["2024-08-31", "2025-02-28", "2025-08-31"]),
            (datetime(2024, 2, 29), Cadence(Interval.YEAR, 4), ["2024-02-29", "2028-02-29", "2032-02-29"]),
            (datetime(2024, 1, 31), Cadence(Interval.MONTH, 2), ["2024-01-31", "2024-03-31", "2024-05-31"]),
            (datetime(2024, 12, 30), Cadence(Interval.WEEK, 2), ["2024-12-30", "2025-01-13", "2025-01-27"]),
            (datetime(2024, 2, 28), DAILY, ["2024-02-28", "2024-02-29", "2024-03-01"]),
        ],
    )
    def test_they_are_counted_from_the_anchor_and_clamped_to_the_month(self, wall, cadence, starts):
        found = [nth_boundary(Anchor(wall, "UTC"), cadence, index) for index in range(len(starts))]
        assert [boundary.date().isoformat() for boundary in found] == starts

    def test_a_negative_index_counts_backwards(self):
        anchor = Anchor(datetime(2024, 2, 29, 9), "UTC")
        assert nth_boundary(anchor, MONTHLY, -1) == utc(2024, 1, 29, 9)
        assert nth_boundary(anchor, YEARLY, -1) == utc(2023, 2, 28, 9)
        assert nth_boundary(anchor, YEARLY, -4) == utc(2020, 2, 29, 9)
        assert nth_boundary(anchor, Cadence(Interval.MONTH, 5), -5) == utc(2022, 1, 29, 9)

    def test_the_local_time_of_day_survives_changes_of_the_clocks(self):
        anchor = Anchor(datetime(2024, 2, 10, 2, 30), "America/New_York")
        starts = local_starts(anchor, MONTHLY, range(3))
        assert starts == ["2024-02-10 02:30", "2024-03-10 03:30", "2024-04-10 02:30"]

    def test_half_an_hour_of_daylight_saving(self):
        anchor = Anchor(datetime(2024, 9, 6, 2, 15), "Australia/Lord_Howe")
        starts = local_starts(anchor, MONTHLY, range(3))
        assert starts == ["2024-09-06 02:15", "2024-10-06 02:45", "2024-11-06 02:15"]

    def test_years_that_the_calendar_lacks_are_refused(self):
        with pytest.raises((ValueError, OverflowError)):
            nth_boundary(Anchor(datetime(2024, 1, 1), "UTC"), YEARLY, 10_000)


class TestCalendar:
    @pytest.mark.parametrize(
        ("interval", "starts"),
        [
            (Interval.DAY, ["2024-08-14 00:00", "2024-08-15 00:00"]),
            (Interval.WEEK, ["2024-08-12 00:00", "2024-08-19 00:00"]),
            (Interval.MONTH, ["2024-08-01 00:00", "2024-09-01 00:00"]),
            (Interval.QUARTER, ["2024-07-01 00:00", "2024-10-01 00:00"]),
            (Interval.SEMIANNUAL, ["2024-07-01 00:00", "2025-01-01 00:00"]),
            (Interval.YEAR, ["2024-01-01 00:00", "2025-01-01 00:00"]),
        ],
    )
    def test_periods_start_where_the_calendar_says(self, interval, starts):
        anchor = Anchor(datetime(2024, 8, 14, 17, 45), "Asia/Tokyo")
        assert local_starts(anchor, Cadence(interval, alignment=Alignment.CALENDAR), [0, 1]) == starts

    def test_several_intervals_are_counted_from_the_one_of_the_anchor(self):
        every_two_months = Cadence(Interval.MONTH, 2, Alignment.CALENDAR)
        anchor = Anchor(datetime(2024, 8, 14), "UTC")
        assert local_starts(anchor, every_two_months, [-1, 0, 1]) == [
            "2024-06-01 00:00",
            "2024-08-01 00:00",
            "2024-10-01 00:00",
        ]

    def test_the_first_period_is_a_stub_up_to_the_next_boundary(self):
        anchor = Anchor(datetime(2024, 6, 15, 10), "Europe/Berlin")
        stub = first_period(anchor, CALENDAR_MONTHS, utc(2024, 6, 15, 8))
        assert stub == Period(utc(2024, 6, 15, 8), utc(2024, 6, 30, 22))
        assert period_containing(anchor, CALENDAR_MONTHS, stub.starts_at) == Period(
            utc(2024, 5, 31, 22), utc(2024, 6, 30, 22)
        )
        assert next_period(anchor, CALENDAR_MONTHS, stub.ends_at) == Period(utc(2024, 6, 30, 22), utc(2024, 7, 31, 22))

    def test_a_start_on_a_boundary_opens_a_whole_period(self):
        anchor = Anchor(datetime(2024, 6, 1), "UTC")
        assert first_period(anchor, CALENDAR_MONTHS, utc(2024, 6, 1)) == Period(utc(2024, 6, 1), utc(2024, 7, 1))


class TestFinding:
    def test_an_instant_on_a_boundary_belongs_to_the_new_period(self):
        anchor = Anchor(datetime(2026, 1, 31, 10), "UTC")
        boundary = utc(2026, 4, 30, 10)
        assert index_of(anchor, MONTHLY, boundary) == 3
        assert index_of(anchor, MONTHLY, boundary - timedelta(microseconds=1)) == 2

    def test_the_anchor_may_lie_in_the_future(self):
        anchor = Anchor(datetime(2026, 12, 15, 12), "UTC")
        assert period_containing(anchor, Cadence(Interval.YEAR, 2), utc(2025, 6, 20)) == Period(
            utc(2024, 12, 15, 12), utc(2026, 12, 15, 12)
        )
        assert index_of(anchor, DAILY, utc(2026, 12, 15, 11, 59)) == -1

    def test_the_second_ten_past_one_comes_after_the_first_half_past_one(self):
        anchor = Anchor(datetime(2024, 11, 1, 1, 30), "America/New_York")
        assert index_of(anchor, DAILY, utc(2024, 11, 3, 5, 29)) == 1
        assert index_of(anchor, DAILY, utc(2024, 11, 3, 5, 30)) == 2
        assert index_of(anchor, DAILY, utc(2024, 11, 3, 6, 10)) == 2

    def test_instants_of_other_zones_are_the_same_instants(self):
        anchor = Anchor(datetime(2024, 6, 1), "UTC")
        still_may = datetime(2024, 6, 1, 1, tzinfo=timezone(timedelta(hours=2)))
        assert period_containing(anchor, MONTHLY, still_may) == Period(utc(2024, 5, 1), utc(2024, 6, 1))

    def test_a_naive_instant_is_refused(self):
        with pytest.raises(ValueError, match="no offset"):
            period_containing(Anchor(datetime(2024, 6, 1), "UTC"), MONTHLY, datetime(2024, 6, 1))


class TestRuns:
    def test_a_start_in_the_repeated_hour_is_kept_to_the_second(self):
        second_half_past_one = utc(2024, 11, 3, 6, 30)
        anchor = Anchor.at(second_half_past_one, "America/New_York")
        assert nth_boundary(anchor, MONTHLY, 0) == utc(2024, 11, 3, 5, 30)
        assert first_period(anchor, MONTHLY, second_half_past_one) == Period(
            second_half_past_one, utc(2024, 12, 3, 6, 30)
        )

    def test_a_billing_day_opens_with_a_stub(self):
        anchor = Anchor(datetime(2024, 6, 20), "UTC")
        assert first_period(anchor, MONTHLY, utc(2024, 6, 5)) == Period(utc(2024, 6, 5), utc(2024, 6, 20))

    def test_a_day_that_the_zone_skipped_is_an_empty_period_and_nobody_is_in_it(self):
        anchor = Anchor(datetime(2011, 12, 28, 10), "Pacific/Apia")
        skipped = nth_period(anchor, DAILY, 2)
        assert skipped.length == timedelta(0)
        assert index_of(anchor, DAILY, skipped.starts_at) == 3
        before = period_containing(anchor, DAILY, skipped.starts_at - timedelta(microseconds=1))
        assert next_period(anchor, DAILY, before.ends_at) == nth_period(anchor, DAILY, 3)
        assert before.length == next_period(anchor, DAILY, before.ends_at).length == timedelta(days=1)


class TestRezoned:
    """The tenant's zone changes: the current end stays, and no period of a few hours comes of it."""

    @pytest.mark.parametrize(
        ("new_zone", "ends_at"),
        [
            ("America/New_York", utc(2024, 8, 1, 4)),  # New York's midnight is six hours after the end: too near
            ("Asia/Tokyo", utc(2024, 7, 31, 15)),  # Tokyo's was seven hours before
            ("Europe/Berlin", utc(2024, 7, 31, 22)),  # moved and back again
        ],
    )
    def test_a_month_stays_about_a_month(self, new_zone, ends_at):
        midnight_in_berlin = utc(2024, 6, 30, 22)
        period = next_period(Anchor(datetime(2024, 6, 1), new_zone), MONTHLY, midnight_in_berlin, rezoned=True)
        assert period == Period(midnight_in_berlin, ends_at)

    def test_without_the_change_the_first_boundary_ends_the_period(self):
        period = next_period(Anchor(datetime(2024, 6, 1), "America/New_York"), MONTHLY, utc(2024, 6, 30, 22))
        assert period.ends_at == utc(2024, 7, 1, 4)

    @pytest.mark.parametrize(
        ("new_zone", "hours"),
        [
            ("Etc/GMT+11", 35),  # eleven hours behind UTC: the next midnight comes 11 hours later, less than half a day
            ("Etc/GMT+12", 12),  # twelve hours: exactly half a day is enough
            ("Etc/GMT-13", 35),
            ("Etc/GMT-1", 23),
        ],
    )
    def test_a_day_is_between_half_a_day_and_a_day_and_a_half(self, new_zone, hours):
        period = next_period(Anchor(datetime(2024, 6, 1), new_zone), DAILY, utc(2024, 6, 10), rezoned=True)
        assert period.length == timedelta(hours=hours)

    def test_a_month_on_the_calendar(self):
        period = next_period(
            Anchor(datetime(2024, 6, 9), "America/New_York"), CALENDAR_MONTHS, utc(2024, 6, 30, 22), rezoned=True
        )
        assert period.ends_at == utc(2024, 8, 1, 4)


class TestLocalDays:
    @pytest.mark.parametrize(
        ("starts_at", "ends_at", "zone", "days"),
        [
            (utc(2024, 3, 10, 5), utc(2024, 3, 11, 4), "America/New_York", 1),  # 23 hours
            (utc(2024, 11, 3, 4), utc(2024, 11, 4, 5), "America/New_York", 1),  # 25 hours
            (utc(2024, 6, 1, 23, 59), utc(2024, 6, 2, 0, 1), "UTC", 1),  # two minutes, one midnight
            (utc(2024, 6, 1, 0, 1), utc(2024, 6, 1, 23, 59), "UTC", 0),
            (utc(2024, 6, 1), utc(2024, 7, 1), "Asia/Kolkata", 30),
            (utc(2024, 6, 2), utc(2024, 6, 1), "UTC", -1),
            (utc(2024, 2, 1), utc(2024, 3, 1), "UTC", 29),
        ],
    )
    def test_local_dates_are_counted_not_hours(self, starts_at, ends_at, zone, days):
        assert local_days(starts_at, ends_at, zone) == days

    def test_days_never_run_backwards_where_clocks_go_back_over_midnight(self):
        # St John's, 1 November 2009: at one minute past midnight the clocks went back to 23:01 of 31 October.
        just_past_midnight, half_past_eleven_again = utc(2009, 11, 1, 2, 30), utc(2009, 11, 1, 3, 0)
        assert half_past_eleven_again.astimezone(ZoneInfo("America/St_Johns")).date() == date(2009, 10, 31)
        assert local_day(just_past_midnight, "America/St_Johns") == date(2009, 11, 1)
        assert local_day(half_past_eleven_again, "America/St_Johns") == date(2009, 11, 1)

    def test_a_midnight_that_was_skipped_begins_the_day_an_hour_late(self):
        assert local_day(utc(2018, 11, 4, 3), "America/Sao_Paulo") == date(2018, 11, 4)
        assert local_day(utc(2018, 11, 4, 2, 59), "America/Sao_Paulo") == date(2018, 11, 3)

    def test_a_day_whose_midnight_lies_within_a_gap_begins_when_the_gap_has_passed(self):
        # Toronto, 30 March 1919: at half past eleven at night the clocks went on to half past midnight.
        assert local_day(utc(1919, 3, 31, 4, 59), "America/Toronto") == date(1919, 3, 30)
        assert local_day(utc(1919, 3, 31, 5), "America/Toronto") == date(1919, 3, 31)
