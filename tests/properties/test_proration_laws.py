"""Laws of proration: it telescopes, lies between nothing and the whole, and mints neither credit nor allowance."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from subscriptions.core.periods import Anchor, Cadence, Interval, nth_period
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

zones = st.sampled_from(
    [
        "UTC",
        "America/New_York",
        "America/St_Johns",
        "America/Sao_Paulo",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Europe/Berlin",
        "Pacific/Apia",
    ]
)
grains = st.sampled_from(Grain)
amounts = st.decimals(min_value=0, max_value=10**9, places=2)
currencies = st.sampled_from(["USD", "JPY", "KWD"])
shares = st.integers(min_value=1, max_value=4_000_000).flatmap(
    lambda divisor: st.builds(Share, st.integers(min_value=0, max_value=divisor), st.just(divisor))
)


@st.composite
def periods_with_instants(draw):
    """A period in some zone, and instants in it, in order."""
    zone = draw(zones)
    anchor = Anchor(draw(st.datetimes(min_value=datetime(2007, 1, 1), max_value=datetime(2030, 1, 1))), zone)
    cadence = Cadence(draw(st.sampled_from([Interval.WEEK, Interval.MONTH, Interval.YEAR])))
    period = nth_period(anchor, cadence, draw(st.integers(min_value=0, max_value=24)))
    spans = draw(st.lists(st.integers(min_value=0, max_value=10**6), max_size=6))
    return period, zone, sorted(period.starts_at + period.length * span // 10**6 for span in spans)


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
@given(low=st.integers(min_value=0, max_value=10**9), extra=st.integers(min_value=0, max_value=10**9), share=shares)
def test_an_allowance_over_two_versions_lies_between_theirs(low, extra, share):
    high = low + extra
    rest = Share(share.divisor - share.numerator, share.divisor)
    allowance = prorated_allowance([(Decimal(low), share), (Decimal(high), rest)], precision=0)
    assert low <= allowance <= high


def test_the_examples_are_instants_in_utc():
    assert nth_period(Anchor(datetime(2024, 6, 1), "Europe/Berlin"), Cadence(Interval.MONTH), 0).starts_at.tzinfo is UTC
