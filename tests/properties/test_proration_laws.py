"""Laws of proration: it telescopes, lies between nothing and the whole, and mints neither credit nor allowance."""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from zoneinfo import available_timezones

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from subscriptions.core.periods import (
    Alignment,
    Anchor,
    Cadence,
    Interval,
    Period,
    local_day,
    local_days,
    nth_period,
    resolve_wall,
)
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

LAWS = settings(deadline=None, max_examples=100)

# Where clocks change by half an hour, at midnight, or by a day; and any zone.
zones = st.sampled_from(
    [
        "America/New_York",
        "America/St_Johns",
        "America/Sao_Paulo",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Europe/Berlin",
        "Pacific/Apia",
        "UTC",
    ]
) | st.sampled_from(sorted(available_timezones()))
grains = st.sampled_from(Grain)
amounts = st.decimals(min_value=0, max_value=10**9, places=2)
currencies = st.sampled_from(["USD", "JPY", "KWD"])
shares = st.integers(min_value=1, max_value=4_000_000).flatmap(
    lambda divisor: st.builds(Share, st.integers(min_value=0, max_value=divisor), st.just(divisor))
)


@st.composite
def periods_with_instants(draw):
    """A period in some zone, whole, a stub, or a week in which its clocks change, and instants in it, in order."""
    zone = draw(zones)
    anchor = Anchor(draw(st.datetimes(min_value=datetime(2007, 1, 1), max_value=datetime(2030, 1, 1))), zone)
    cadence = Cadence(
        draw(st.sampled_from([Interval.DAY, Interval.WEEK, Interval.MONTH, Interval.YEAR])),
        alignment=draw(st.sampled_from(Alignment)),
    )
    period = nth_period(anchor, cadence, draw(st.integers(min_value=0, max_value=24)))
    if draw(st.booleans()):
        period = week_of_a_change(period.starts_at, zone) or period
    if draw(st.booleans()):
        period = Period(
            period.starts_at + period.length * draw(st.integers(min_value=0, max_value=99)) // 100, period.ends_at
        )
    assume(period.length)
    spans = draw(st.lists(st.integers(min_value=0, max_value=10**6), max_size=6))
    return period, zone, sorted(period.starts_at + period.length * span // 10**6 for span in spans)


def week_of_a_change(after, zone):
    """The first local week, of the year that begins then, that is not of 168 hours."""
    weekly = Cadence(Interval.WEEK, alignment=Alignment.CALENDAR)
    weeks = (nth_period(Anchor.at(after, zone), weekly, index) for index in range(53))
    return next((week for week in weeks if week.length != timedelta(days=7)), None)


@st.composite
def histories(draw):
    """A period, and the versions in force in it, each with its part: [(allowance, from, until), ...] without a gap."""
    period, zone, instants = draw(periods_with_instants())
    precision = draw(st.integers(min_value=0, max_value=12))
    units = st.integers(min_value=0, max_value=10**15)
    cuts = [period.starts_at, *instants, period.ends_at]
    return (
        period,
        zone,
        precision,
        [(Decimal(draw(units)).scaleb(-precision), starts_at, ends_at) for starts_at, ends_at in pairwise(cuts)],
    )


def allowance_of(history, period, zone, precision, grain):
    parts = [
        (allowance, share_of(starts_at, ends_at, period, grain=grain, zone=zone))
        for allowance, starts_at, ends_at in history
    ]
    return prorated_allowance(parts, precision=precision)


@LAWS
@given(drawn=periods_with_instants(), grain=grains)
def test_parts_of_a_period_sum_to_the_whole(drawn, grain):
    period, zone, instants = drawn
    cuts = [period.starts_at, *instants, period.ends_at]
    parts = [share_of(start, end, period, grain=grain, zone=zone) for start, end in pairwise(cuts)]
    assert sum(part.fraction for part in parts) == 1
    assert all(0 <= part.fraction <= 1 for part in parts)


@LAWS
@given(drawn=periods_with_instants(), grain=grains)
def test_what_was_used_and_what_remains_are_the_whole(drawn, grain):
    period, zone, instants = drawn
    for change_at in instants:
        used = used_share(period, change_at, grain=grain, zone=zone)
        remaining = remaining_share(period, change_at, grain=grain, zone=zone)
        unused = unused_share(period, change_at, grain=grain, zone=zone)
        assert used.fraction + remaining.fraction == 1
        assert used.divisor == remaining.divisor or grain is Grain.SECOND
        assert unused.fraction <= remaining.fraction


@LAWS
@given(drawn=periods_with_instants(), grain=grains)
def test_the_later_a_change_the_less_remains(drawn, grain):
    period, zone, instants = drawn
    remaining = [remaining_share(period, change_at, grain=grain, zone=zone).fraction for change_at in instants]
    assert remaining == sorted(remaining, reverse=True)


@LAWS
@given(drawn=periods_with_instants())
def test_by_second_a_share_is_elapsed_time(drawn):
    period, zone, instants = drawn
    microsecond = timedelta(microseconds=1)
    for change_at in instants:
        share = remaining_share(period, change_at, grain=Grain.SECOND, zone=zone)
        assert share.fraction == Fraction((period.ends_at - change_at) // microsecond, period.length // microsecond)


@LAWS
@given(amount=amounts, share=shares, currency=currencies)
def test_a_prorated_amount_lies_between_nothing_and_the_whole(amount, share, currency):
    whole = prorate(amount, Share(1, 1), currency=currency)
    assert 0 <= prorate(amount, share, currency=currency) <= whole
    assert 0 <= prorate_precise(amount, share) <= Fraction(amount)


@LAWS
@given(amount=amounts, drawn=periods_with_instants(), grain=grains)
def test_prorated_amounts_telescope(amount, drawn, grain):
    period, zone, instants = drawn
    cuts = [period.starts_at, *instants, period.ends_at]
    parts = [share_of(start, end, period, grain=grain, zone=zone) for start, end in pairwise(cuts)]
    assert sum(prorate_precise(amount, part) for part in parts) == Fraction(amount)
    rounded = sum(prorate(amount, part, currency="USD") for part in parts)
    assert abs(rounded - amount) <= Decimal("0.005") * len(parts)


@LAWS
@given(charged=amounts, unused=st.lists(shares, max_size=12))
def test_no_sequence_of_credits_gives_back_more_than_was_charged(charged, unused):
    credited = Decimal(0)
    for share in unused:
        credit = credit_for(charged=charged, share=share, already_credited=credited, currency="USD")
        assert credit <= 0
        assert -credit <= prorate(charged, share, currency="USD")
        credited -= credit
    assert credited <= charged


@LAWS
@given(
    allowance=st.integers(min_value=0, max_value=10**15),
    drawn=periods_with_instants(),
    grain=grains,
    precision=st.integers(min_value=0, max_value=12),
)
def test_changes_between_equal_versions_leave_the_allowance_whole(allowance, drawn, grain, precision):
    period, zone, instants = drawn
    cuts = [period.starts_at, *instants, period.ends_at]
    shares_in_force = [share_of(start, end, period, grain=grain, zone=zone) for start, end in pairwise(cuts)]
    parts = [(Decimal(allowance), share) for share in shares_in_force]
    assert prorated_allowance(parts, precision=precision) == allowance


@LAWS
@given(drawn=histories(), grain=grains)
def test_an_allowance_over_any_history_lies_between_the_least_and_the_largest(drawn, grain):
    period, zone, precision, history = drawn
    allowances = [allowance for allowance, _, _ in history]
    assert min(allowances) <= allowance_of(history, period, zone, precision, grain) <= max(allowances)


@LAWS
@given(drawn=histories(), grain=grains, data=st.data())
def test_a_change_between_equal_versions_alters_no_allowance_and_no_amount(drawn, grain, data):
    period, zone, precision, history = drawn
    place = data.draw(st.integers(min_value=0, max_value=len(history) - 1))
    version, starts_at, ends_at = history[place]
    changed_at = starts_at + (ends_at - starts_at) * data.draw(st.integers(min_value=0, max_value=100)) // 100
    split = [*history[:place], (version, starts_at, changed_at), (version, changed_at, ends_at), *history[place + 1 :]]

    assert allowance_of(split, period, zone, precision, grain) == allowance_of(history, period, zone, precision, grain)
    whole, *halves = [
        prorate_precise(version, share_of(*part, period, grain=grain, zone=zone))
        for part in [(starts_at, ends_at), (starts_at, changed_at), (changed_at, ends_at)]
    ]
    assert whole == sum(halves)


@LAWS
@given(drawn=histories(), grain=grains)
def test_going_up_and_back_on_one_day_by_day_or_at_one_instant_mints_no_allowance(drawn, grain):
    period, zone, precision, history = drawn
    version, starts_at, ends_at = history[-1]
    until = starts_at
    if grain is Grain.DAY and local_days(period.starts_at, period.ends_at, zone):
        tomorrow = resolve_wall(datetime.combine(local_day(starts_at, zone) + timedelta(days=1), time.min), zone)
        until = min(max(starts_at, tomorrow - timedelta(microseconds=1)), ends_at)
    there_and_back = [*history[:-1], (version + 10**12, starts_at, until), (version, until, ends_at)]
    allowance = allowance_of(there_and_back, period, zone, precision, grain)
    assert allowance == allowance_of(history, period, zone, precision, grain)


def test_the_examples_are_instants_in_utc():
    assert nth_period(Anchor(datetime(2024, 6, 1), "Europe/Berlin"), Cadence(Interval.MONTH), 0).starts_at.tzinfo is UTC
