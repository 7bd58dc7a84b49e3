"""The ledger against the oracle: any order of usage, grants, voids, reversals and closings, over several periods."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invoices.models import Invoice
from invoices.selectors.books import breaches
from invoices.selectors.verifying import verify
from invoices.services.advancing import advance
from metering.models import CreditGrant, MeterBalance
from metering.services.grants import GrantTerms, grant_credit, void_grant
from metering.services.reversing import reverse_event
from subscriptions.models import Meter
from tests import oracle
from tests.world import ACTOR, JUNE, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

DAYS_OF_PERIOD = 10
ALLOWANCE = 20
GRACE = timedelta(hours=1)


def day(quarters):
    return JUNE + timedelta(days=quarters / 4)


quantities = st.integers(1, 40).map(Decimal)
# How far back, in quarters of a day: late within the period, or of an earlier one; -1 is five minutes ahead.
back = st.one_of(st.integers(-1, 3), st.integers(0, 60))
models = st.sampled_from(["opus", "haiku"])
actions = st.one_of(
    st.tuples(st.just("use"), back, quantities, models),
    st.tuples(st.just("use"), back, quantities, models),
    st.tuples(
        st.just("grant"),
        quantities,
        st.integers(-30, 30),
        st.one_of(st.none(), st.integers(1, 60)),
        st.integers(0, 1),
        st.sampled_from(["promotional", "purchased"]),
    ),
    st.tuples(st.just("void"), st.integers(0, 50)),
    st.tuples(st.just("reverse"), st.integers(0, 50)),
    st.tuples(st.just("wait"), st.integers(1, 24)),
)
stories = st.tuples(
    st.sampled_from(["plain", "rolls", "rolls twice"]),
    st.integers(0, 40),
    st.lists(actions, min_size=3, max_size=25),
)


class Story:
    """The same things done to the product and to the oracle."""

    def __init__(self, version, rollover, starts_at):
        self.world = make_world(version=version, now=JUNE)
        self.pool = oracle.Pool(ALLOWANCE, *rollover)
        self.events, self.grants = {}, {}
        self.open()
        self.wait(starts_at)

    def open(self):
        starts_at = JUNE + timedelta(days=DAYS_OF_PERIOD) * len(self.pool.periods)
        self.pool.open(starts_at, starts_at + timedelta(days=DAYS_OF_PERIOD))

    def wait(self, quarters):
        if not quarters:
            return
        to = self.world.now + timedelta(days=quarters / 4)
        advance(clock_id=self.world.clock.pk, to=to, actor=ACTOR)
        while self.pool.periods[-1][1] <= to:
            while self.pool.periods[self.pool.closed][1] + GRACE <= self.pool.periods[-1][1]:
                self.pool.close()
            self.open()
        while self.pool.periods[self.pool.closed][1] + GRACE <= to:
            self.pool.close()

    def use(self, quarters, quantity, model):
        ago = timedelta(days=quarters / 4) if quarters >= 0 else timedelta(minutes=-5)
        time = min(max(self.world.now - ago, JUNE), self.pool.periods[-1][1] - timedelta(seconds=1))
        [outcome] = self.world.use(quantity, time=time, model=model).outcomes
        assert outcome.status == "accepted"
        event = oracle.Event(time, quantity, {"id": str(outcome.event_id)})
        self.pool.receive(event)
        self.events[outcome.event_id] = event

    def grant(self, quantity, since, lasts, priority, kind):
        now = self.world.now
        first_open = self.pool.periods[self.pool.closed][0]
        effective_at = max(now + timedelta(days=since / 4), first_open)
        expires_at = None if lasts is None else effective_at + timedelta(days=lasts / 4)
        terms = GrantTerms(
            meter=Meter.objects.get(code="tokens"),
            dimensions={},
            kind=kind,
            quantity=quantity,
            priority=priority,
            effective_at=effective_at,
            expires_at=expires_at,
            key="",
        )
        grant, _ = grant_credit(tenant=self.world.tenant, terms=terms, now=now, actor=ACTOR)
        self.grants[grant.pk] = grant
        paid = kind == "purchased"
        self.pool.give(oracle.Grant(grant.pk, quantity, effective_at, expires_at, None, priority, paid))

    def void(self, number):
        now = self.world.now
        live = [
            grant
            for grant in self.grants.values()
            if not grant.voided_at and (grant.ends_at is None or grant.ends_at > now)
        ]
        if live:
            grant = live[number % len(live)]
            self.grants[grant.pk] = void_grant(grant=grant, reason="why", now=now, actor=ACTOR)
            self.pool.void(grant.pk, now)

    def reverse(self, number):
        open_ones = [key for key, event in self.events.items() if event in self.pool.in_time and self.is_open(event)]
        if open_ones:
            key = open_ones[number % len(open_ones)]
            reverse_event(event_id=key, reason="why", actor=ACTOR)
            self.pool.reverse(self.events.pop(key))

    def is_open(self, event):
        return self.pool.period_of(event) >= self.pool.closed

    def check(self):
        balances = MeterBalance.objects.filter(tenant=self.world.tenant).order_by("period__sequence")
        assert [(Fraction(one.used), Fraction(one.covered)) for one in balances] == self.pool.used_and_covered()
        burns = self.pool.position().burns
        for grant in CreditGrant.objects.filter(tenant=self.world.tenant).select_related(
            "balance__period", "rolled_from__balance__period"
        ):
            name = grant.pk
            if grant.kind == "allowance":
                name = f"allowance {grant.balance.period.sequence}"
            elif grant.kind == "rollover":
                name = f"rolled {grant.rolled_from.balance.period.sequence}"
                assert Fraction(grant.quantity) == Fraction(self.pool.grants[name].quantity)
            assert Fraction(grant.burned) == burns.pop(name), name
        assert not burns
        assert breaches() == []
        for invoice in Invoice.objects.filter(tenant=self.world.tenant):
            assert verify(invoice) == []


def test_any_order_of_events_over_any_grants_is_the_oracles_walk():
    make_meter(window_days=60, dimensions=["model"])
    opus = charge(included=None, dimensions={"model": "opus"}, price={"model": "per_unit", "unit_amount": "0.07"})
    versions = {
        name: publish(
            name.replace(" ", "-"),
            interval="day",
            interval_count=DAYS_OF_PERIOD,
            fee="0",
            charges=[charge(included=str(ALLOWANCE), rollover_max=str(most), rollover_periods=periods), opus],
        )
        for name, (most, periods) in ROLLOVERS.items()
    }

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(stories)
    def check(story):
        name, starts_at, steps = story
        with transaction.atomic():
            told = Story(versions[name], ROLLOVERS[name], starts_at)
            for what, *how in steps:
                getattr(told, what)(*how)
            told.check()
            transaction.set_rollback(True)

    check()


ROLLOVERS = {"plain": (0, 1), "rolls": (7, 1), "rolls twice": (30, 2)}
