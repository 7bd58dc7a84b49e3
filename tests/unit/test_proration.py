"""Shares of a period, and what a change of tier credits, charges and includes."""

import doctest
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from subscriptions.core import proration
from subscriptions.core.periods import Period
from subscriptions.core.proration import (
    Grain,
    Share,
    credit_for,
    prorate,
    prorate_precise,
    prorated_allowance,
    remaining_share,
    share_of,
    unused_share,
    used_share,
)


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


JUNE = Period(utc(2024, 6, 1), utc(2024, 7, 1))


def test_examples_in_the_docstrings_hold():
    assert doctest.testmod(proration).failed == 0


class TestChangeInMidPeriod:
    """The golden figures of the semantics: 1 June to 1 July, $99 with 10,000 units to $499 with 100,000."""

    @pytest.mark.parametrize(
        ("change_at", "grain", "remaining", "credit", "charge", "net", "allowance"),
        [
            (utc(2024, 6, 15), Grain.DAY, Share(16, 30), "-52.80", "266.13", "213.33", "58000"),
            (utc(2024, 6, 14, 10), Grain.DAY, Share(17, 30), "-56.10", "282.77", "226.67", "61000"),
            (utc(2024, 6, 14, 10), Grain.SECOND, Share(1_432_800, 2_592_000), "-54.73", "275.84", "221.11", "59750"),
        ],
    )
    def test_credit_charge_and_allowance(self, change_at, grain, remaining, credit, charge, net, allowance):
        old_share = used_share(JUNE, change_at, grain=grain, zone="UTC")
        new_share = remaining_share(JUNE, change_at, grain=grain, zone="UTC")
        credited = credit_for(charged=Decimal("99.00"), share=new_share, already_credited=Decimal("0"), currency="USD")
        charged = prorate(Decimal("499.00"), new_share, currency="USD")

        assert new_share == remaining
        assert (str(credited), str(charged), str(credited + charged)) == (credit, charge, net)
        parts = [(Decimal("10000"), old_share), (Decimal("100000"), new_share)]
        assert str(prorated_allowance(parts, precision=0)) == allowance

    @pytest.mark.parametrize(
        ("currency", "charge"),
        [("JPY", "266"), ("KWD", "266.133"), ("USD", "266.13")],
    )
    def test_the_charge_is_as_fine_as_its_currency(self, currency, charge):
        assert str(prorate(Decimal("499"), Share(16, 30), currency=currency)) == charge


class TestShares:
    def test_the_day_of_a_change_belongs_to_the_new_tier_in_the_zone_of_the_tenant(self):
        period = Period(utc(2024, 5, 31, 15), utc(2024, 6, 30, 15))  # June in Tokyo
        change_at = utc(2024, 6, 14, 15, 30)  # 15 June there
        assert used_share(period, change_at, grain=Grain.DAY, zone="Asia/Tokyo") == Share(14, 30)
        assert remaining_share(period, change_at, grain=Grain.DAY, zone="Asia/Tokyo") == Share(16, 30)

    def test_a_day_of_23_hours_is_a_whole_day_by_day_and_less_by_second(self):
        period = Period(utc(2024, 3, 1, 5), utc(2024, 4, 1, 4))  # March in New York, 743 hours
        short_day = (utc(2024, 3, 10, 5), utc(2024, 3, 11, 4))
        assert share_of(*short_day, period, grain=Grain.DAY, zone="America/New_York") == Share(1, 31)
        assert share_of(*short_day, period, grain=Grain.SECOND, zone="America/New_York") == Share(23 * 3600, 743 * 3600)

    def test_microseconds_are_used_only_where_seconds_are_not_exact(self):
        half = utc(2024, 6, 1, 0, 0, 0, 500_000)
        assert share_of(JUNE.starts_at, half, JUNE, grain=Grain.SECOND, zone="UTC") == Share(500_000, 2_592_000_000_000)
        stub = Period(utc(2024, 6, 1), utc(2024, 6, 1, 0, 0, 2, 500_000))
        assert used_share(stub, utc(2024, 6, 1, 0, 0, 1), grain=Grain.SECOND, zone="UTC") == Share(1_000_000, 2_500_000)

    def test_time_outside_the_period_does_not_count(self):
        whole = share_of(utc(2024, 5, 1), utc(2024, 8, 1), JUNE, grain=Grain.DAY, zone="UTC")
        assert whole == Share(30, 30)
        assert share_of(utc(2024, 8, 1), utc(2024, 9, 1), JUNE, grain=Grain.DAY, zone="UTC") == Share(0, 30)

    @pytest.mark.parametrize("grain", list(Grain))
    def test_at_the_ends_of_the_period_one_tier_has_the_whole(self, grain):
        for change_at in (utc(2024, 5, 20), JUNE.starts_at):
            assert used_share(JUNE, change_at, grain=grain, zone="UTC").fraction == 0
            assert remaining_share(JUNE, change_at, grain=grain, zone="UTC").fraction == 1
        for change_at in (JUNE.ends_at, utc(2024, 7, 20)):
            assert used_share(JUNE, change_at, grain=grain, zone="UTC").fraction == 1
            assert remaining_share(JUNE, change_at, grain=grain, zone="UTC").fraction == 0

    def test_a_period_within_one_local_day_is_divided_by_elapsed_time(self):
        three_hours = Period(utc(2024, 6, 10, 9), utc(2024, 6, 10, 12))
        assert remaining_share(three_hours, utc(2024, 6, 10, 11), grain=Grain.DAY, zone="UTC") == Share(3600, 10_800)
        assert unused_share(three_hours, utc(2024, 6, 10, 11), grain=Grain.DAY, zone="UTC") == Share(3600, 10_800)

    def test_stored_codes_mean_the_same_as_their_enumerations(self):
        assert remaining_share(JUNE, utc(2024, 6, 14, 10), grain="day", zone="UTC") == Share(17, 30)
        with pytest.raises(ValueError, match="is not a valid Grain"):
            remaining_share(JUNE, utc(2024, 6, 14, 10), grain="hour", zone="UTC")

    def test_an_empty_period_has_no_parts(self):
        with pytest.raises(ValueError, match="empty"):
            share_of(
                utc(2024, 6, 1), utc(2024, 6, 2), Period(utc(2024, 6, 1), utc(2024, 6, 1)), grain=Grain.DAY, zone="UTC"
            )

    def test_an_end_before_the_start_is_refused(self):
        with pytest.raises(ValueError, match="before it starts"):
            share_of(utc(2024, 6, 3), utc(2024, 6, 2), JUNE, grain=Grain.DAY, zone="UTC")

    @pytest.mark.parametrize(("numerator", "divisor"), [(-1, 30), (31, 30), (0, 0), (1, 0), (-1, -1)])
    def test_a_share_is_between_nothing_and_the_whole(self, numerator, divisor):
        with pytest.raises(ValueError, match="between nothing and the whole"):
            Share(numerator, divisor)

    def test_a_share_is_not_reduced_but_its_fraction_is(self):
        assert (Share(16, 30).numerator, Share(16, 30).fraction) == (16, Fraction(8, 15))


class TestCancelling:
    @pytest.mark.parametrize(
        ("ended_at", "unused"),
        [
            (utc(2024, 6, 8), Share(22, 30)),  # also at its first instant, the day counts as used
            (utc(2024, 6, 8, 12), Share(22, 30)),
            (utc(2024, 6, 1), Share(29, 30)),
            (utc(2024, 6, 30, 23), Share(0, 30)),
            (utc(2024, 7, 1), Share(0, 30)),
        ],
    )
    def test_the_day_of_cancelling_counts_as_used(self, ended_at, unused):
        assert unused_share(JUNE, ended_at, grain=Grain.DAY, zone="UTC") == unused

    def test_by_second_the_rest_is_unused(self):
        assert unused_share(JUNE, utc(2024, 6, 16), grain=Grain.SECOND, zone="UTC") == Share(1_296_000, 2_592_000)

    def test_on_the_last_morning_of_a_period_that_ends_at_ten_nothing_is_left(self):
        period = Period(utc(2024, 6, 15, 10), utc(2024, 7, 15, 10))
        assert unused_share(period, utc(2024, 7, 15, 9), grain=Grain.DAY, zone="UTC") == Share(0, 30)


class TestCredit:
    @pytest.mark.parametrize(
        ("charged", "share", "already_credited", "credit"),
        [
            ("99.00", Share(16, 30), "0", "-52.80"),
            ("99.00", Share(16, 30), "46.20", "-52.80"),
            ("99.00", Share(16, 30), "46.21", "-52.79"),
            ("99.00", Share(30, 30), "99.00", "0.00"),
            ("99.00", Share(30, 30), "120.00", "0.00"),
            ("0", Share(1, 1), "0", "0.00"),
            ("99.00", Share(0, 30), "0", "0.00"),
        ],
    )
    def test_it_is_the_unused_part_and_at_most_what_is_left(self, charged, share, already_credited, credit):
        credited = credit_for(
            charged=Decimal(charged), share=share, already_credited=Decimal(already_credited), currency="USD"
        )
        assert str(credited) == credit

    @pytest.mark.parametrize(("charged", "already_credited"), [("-99", "0"), ("99", "-10")])
    def test_negative_amounts_are_refused(self, charged, already_credited):
        with pytest.raises(ValueError, match="positive amounts"):
            credit_for(
                charged=Decimal(charged), share=Share(1, 2), already_credited=Decimal(already_credited), currency="USD"
            )


class TestAllowance:
    def test_it_is_rounded_once_on_the_total(self):
        thirds = [(Decimal("100"), Share(1, 3))] * 3
        assert prorated_allowance(thirds, precision=0) == Decimal("100")

    @pytest.mark.parametrize(
        ("precision", "allowance"),
        [(0, "17"), (2, "16.67"), (12, "16.666666666667")],
    )
    def test_it_is_as_fine_as_the_meter(self, precision, allowance):
        assert str(prorated_allowance([(Decimal("100"), Share(5, 30))], precision=precision)) == allowance

    def test_halves_are_rounded_up(self):
        assert prorated_allowance([(Decimal("1"), Share(1, 2))], precision=0) == Decimal("1")

    def test_no_version_includes_nothing(self):
        assert prorated_allowance([], precision=0) == Decimal("0")


def test_amounts_stay_exact_until_they_are_a_line():
    assert prorate_precise(Decimal("499"), Share(16, 30)) == Fraction(3992, 15)


def test_a_hundred_changes_in_a_day_credit_nothing_that_was_not_charged():
    total = running = Decimal("99.00")
    for change in range(100):
        change_at = utc(2024, 6, 14) + timedelta(minutes=14 * change)
        remaining = remaining_share(JUNE, change_at, grain=Grain.DAY, zone="UTC")
        unused = remaining if change == 0 else Share(1, 1)  # a fee charged earlier on the same day is unused in full
        credited = credit_for(charged=running, share=unused, already_credited=Decimal("0"), currency="USD")
        running = prorate(Decimal("499.00") if change % 2 == 0 else Decimal("99.00"), remaining, currency="USD")
        total += credited + running
    assert total == Decimal("99.00")  # back on the old tier, as if nothing had happened
