"""Laws of playing the past again: usage is dealt to pools without loss, more allowance never costs more, and grants are burned once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from invoices.core.backtest import (
    BacktestTerms,
    FeeEntry,
    PastPeriod,
    TenantPast,
    replay,
)
from invoices.core.dealing import CountedBalance, CountedSegment, Late
from metering.core.burndown import Grant, GrantKind
from metering.core.overage import ChargeTerms
from metering.core.pools import Offer, pools_of
from subscriptions.core.periods import Period
from subscriptions.core.prices import Price, PriceModel
from subscriptions.core.proration import Share

START = datetime(2026, 6, 1, tzinfo=UTC)
MONTH = timedelta(days=30)
SETS = [(("model", name),) for name in ("", "haiku", "opus", "sonnet")]
ONE = Price(PriceModel.PER_UNIT, unit_amount=Decimal(1))

quantities = st.integers(0, 10_000).map(Decimal)
usages = st.dictionaries(st.sampled_from(SETS), quantities)
pasts = st.lists(
    st.tuples(usages, st.lists(st.tuples(st.sampled_from(SETS), quantities), max_size=3)), min_size=1, max_size=4
)
apart = st.sets(st.sampled_from(["haiku", "opus", "sonnet"]))


def terms(included="0", *, apart=(), rollover="0"):
    """Return terms at 1.00 a unit: a default charge, and pools of their own, without an allowance, for these models."""
    offers = [Offer(ChargeTerms(1, 7, {}, ONE), Decimal(included), "allow", None, rollover_max=Decimal(rollover))]
    for number, model in enumerate(sorted(apart), start=2):
        offers.append(Offer(ChargeTerms(number, 7, {"model": model}, ONE), Decimal(0), "allow", None))
    return BacktestTerms(Decimal(0), "USD", {1: pools_of(offers)}, {}, False, {1: "tokens"})


def past_of(periods, *, grants=()):
    """Return a past in one shared pool: the usage of each period in time, and what came late."""
    return TenantPast(1, [_period(number, *one) for number, one in enumerate(periods)], {(1, ""): list(grants)}, (), {})


def _period(number, usage, late):
    span = Period(START + number * MONTH, START + (number + 1) * MONTH)
    whole = dict(usage)
    for names, quantity in late:
        whole[names] = whole.get(names, Decimal(0)) + quantity
    segment = CountedSegment(span.starts_at, whole, {}, {}, [Late(names, quantity, 1) for names, quantity in late])
    balance = CountedBalance(1, "", True, (), (), [segment])
    return PastPeriod(number, 1, number, span, False, span.starts_at, {}, [balance], (), None, {})


def used(periods):
    return sum(
        (quantity for usage, late in periods for quantity in (*usage.values(), *(one for _, one in late))), Decimal(0)
    )


def cost(past, under):
    return sum((period.after for period in replay(past, under)), Decimal(0))


@given(periods=pasts, apart=apart)
def test_usage_is_dealt_to_whatever_pools_without_loss(periods, apart):
    assert cost(past_of(periods), terms(apart=apart)) == used(periods)


@given(periods=pasts, included=quantities, more=quantities, rollover=quantities, apart=apart)
def test_a_larger_allowance_never_costs_more(periods, included, more, rollover, apart):
    past = past_of(periods)
    lean = cost(past, terms(included, apart=apart, rollover=rollover))
    assert cost(past, terms(included + more, apart=apart, rollover=rollover)) <= lean
    assert cost(past, terms(included, apart=apart)) >= lean


@given(periods=pasts, quantity=quantities)
def test_a_grant_of_the_pool_covers_its_quantity_once_and_nothing_that_came_late(periods, quantity):
    grant = Grant(1, quantity, 0, START, None, None, GrantKind.PROMOTIONAL, START)
    in_time = sum((sum(usage.values(), Decimal(0)) for usage, _ in periods), Decimal(0))
    assert cost(past_of(periods, grants=[grant]), terms()) == used(periods) - min(quantity, in_time)


@given(share=st.integers(0, 30), again=st.integers(0, 30))
def test_credits_of_a_fee_never_give_back_more_than_it(share, again):
    fee = FeeEntry(1, Share(1, 1), Decimal("99"))
    credits = [FeeEntry(2, Share(share, 30), Decimal(0), fee), FeeEntry(3, Share(again, 30), Decimal(0), fee)]
    [period] = past_of([({}, [])]).periods
    paid = BacktestTerms(Decimal("50.01"), "USD", {}, {}, False, {})
    past = TenantPast(1, [replace(period, fees=[fee, *credits])], {}, (), {})
    assert 0 <= cost(past, paid) <= Decimal("50.01")
