"""Grants beyond the allowance: given for a time, burned in order, cut into what was counted already, taken back."""

from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction

from billing_site.database import sqlstate
from invoices.models import Invoice
from invoices.selectors.verifying import verify
from invoices.services.advancing import advance
from invoices.services.subscribing import cancel_subscription, start_subscription
from metering.models import CreditGrant, LedgerEntry, MeterBalance, SegmentTotal
from metering.selectors.grants import standing_of
from metering.services.grants import (
    GrantTerms,
    InvalidGrant,
    KeyTaken,
    NotVoidable,
    grant_credit,
    void_grant,
)
from metering.services.replaying import replay_events
from metering.services.reversing import reverse_event
from subscriptions.models import Meter
from subscriptions.selectors.clock import wall_now
from subscriptions.services import clocks, tenants
from tests.world import ACTOR, World, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

PER_TOKEN = {"model": "per_unit", "unit_amount": "0.0002"}


def terms(quantity, *, since=None, until=None, kind="promotional", priority=0, key="", dimensions=None, meter="tokens"):
    return GrantTerms(
        meter=Meter.objects.get(code=meter),
        dimensions=dimensions or {},
        kind=kind,
        quantity=Decimal(quantity),
        priority=priority,
        effective_at=since,
        expires_at=until,
        key=key,
    )


def give(world, quantity, **how):
    grant, _ = grant_credit(tenant=world.tenant, terms=terms(quantity, **how), now=world.now, actor=ACTOR)
    return grant


def void(world, grant):
    return void_grant(grant=grant, reason="why", now=world.now, actor=ACTOR)


def move(world, to):
    return advance(clock_id=world.clock.pk, to=at(to), actor=ACTOR)


def figures(grant):
    """Return what has become of a grant: burned, expired, voided, rolled over, remaining."""
    grant.refresh_from_db()
    return tuple(int(one) for one in (grant.burned, grant.expired, grant.voided, grant.rolled_over, grant.remaining))


def entries(kind, **conditions):
    found = LedgerEntry.objects.filter(kind=kind, **conditions).order_by("pk")
    return [(entry.segment_at, int(entry.quantity)) for entry in found]


def without_allowance(**further):
    make_meter()
    return publish(charges=[charge(included="0", **further)])


def of_period(world, sequence):
    balance = MeterBalance.objects.get(tenant=world.tenant, period__sequence=sequence)
    return int(balance.used), int(balance.covered)


class TestBurning:
    def test_usage_burns_the_allowance_first_and_then_a_grant_that_never_expires(self):
        world = make_world(now=at("2026-06-10 00:00"))
        grant = give(world, 500)
        [view] = world.use(10_200).balances
        assert world.position() == ("10200", "10200", "0")
        assert (view.included, view.remaining) == (10_500, 300)
        assert figures(grant) == (200, 0, 0, 0, 300)

    def test_a_grant_that_expires_sooner_burns_before_the_allowance(self):
        world = make_world(now=at("2026-06-10 00:00"))
        grant = give(world, 500, until=at("2026-06-20 00:00"))
        world.use(400)
        assert figures(grant) == (400, 0, 0, 0, 100)

    def test_priority_goes_before_expiry(self):
        world = make_world(version=without_allowance(), now=at("2026-06-10 00:00"))
        last = give(world, 100, until=at("2026-06-11 00:00"), priority=9)
        first = give(world, 100, priority=3)
        world.use(150)
        assert (figures(first)[0], figures(last)[0]) == (100, 50)

    def test_of_two_that_expire_together_what_was_paid_for_burns_last(self):
        world = make_world(version=without_allowance(), now=at("2026-06-10 00:00"))
        paid = give(world, 100, until=at("2026-06-20 00:00"), kind="purchased")
        promotional = give(world, 100, until=at("2026-06-20 00:00"))
        world.use(150)
        assert (figures(promotional)[0], figures(paid)[0]) == (100, 50)

    def test_two_grants_that_overlap_cover_an_early_event_that_comes_late(self):
        world = make_world(version=without_allowance())
        first = give(world, 100, until=at("2026-06-22 00:00"))
        second = give(world, 100, since=at("2026-06-15 00:00"), until=at("2026-06-25 00:00"))
        move(world, "2026-06-21 00:00")
        world.use(100, time=at("2026-06-20 00:00"))
        assert (figures(first)[0], figures(second)[0]) == (100, 0)
        world.use(100, time=at("2026-06-05 00:00"))
        assert world.position() == ("200", "200", "0")
        assert (figures(first)[0], figures(second)[0]) == (100, 100)

    def test_usage_outside_of_its_time_is_overage(self):
        world = make_world(version=without_allowance(), now=at("2026-06-20 00:00"))
        give(world, 1000, since=at("2026-06-10 00:00"), until=at("2026-06-21 00:00"))
        for when, covered in (("2026-06-09 23:59", 0), ("2026-06-10 00:00", 10), ("2026-06-20 00:00", 20)):
            world.use(10, time=at(when))
            assert world.balance().covered == covered
        move(world, "2026-06-22 00:00")
        world.use(10, time=at("2026-06-21 00:00"))
        assert world.balance().covered == 20

    def test_a_grant_of_a_pool_of_its_own_covers_no_other(self):
        make_meter(dimensions=["model"])
        version = publish(charges=[charge(included="0"), charge(included="5", dimensions={"model": "opus"})])
        world = make_world(version=version, now=at("2026-06-10 00:00"))
        grant = give(world, 100, dimensions={"model": "opus"})
        world.use(50, model="haiku")
        world.use(50, model="opus")
        assert figures(grant)[0] == 45
        assert world.balance(pool="").covered == 0

    def test_late_usage_after_closing_is_overage_though_the_grant_lives(self):
        world = make_world(version=without_allowance(), now=at("2026-06-10 00:00"))
        grant = give(world, 1000)
        world.use(100)
        move(world, "2026-07-01 02:00")
        world.use(50, time=at("2026-06-12 00:00"))
        assert of_period(world, 1) == (150, 100)
        assert figures(grant) == (100, 0, 0, 0, 900)


class TestCuttingAnew:
    def test_a_top_up_that_is_dated_back_covers_what_was_used_since(self):
        world = make_world(version=without_allowance(), now=at("2026-06-20 00:00"))
        for day, tokens in ((5, 100), (10, 200), (15, 400)):
            world.use(tokens, time=at(f"2026-06-{day:02} 00:00"))
        assert world.position() == ("700", "0", "700")
        grant = give(world, 1000, since=at("2026-06-10 00:00"), until=at("2026-06-15 00:00"))
        move(world, "2026-06-20 01:00")
        assert world.position() == ("700", "200", "500")
        assert figures(grant)[0] == 200
        totals = SegmentTotal.objects.order_by("segment_at").values_list("segment_at", "quantity", "events")
        assert [(segment_at.day, int(quantity), events) for segment_at, quantity, events in totals] == [
            (1, 100, 1),
            (10, 200, 1),
            (15, 400, 1),
        ]

    def test_the_ledger_takes_usage_out_of_one_segment_and_enters_it_in_the_other(self):
        world = make_world(version=without_allowance(), now=at("2026-06-20 00:00"))
        world.use(300, time=at("2026-06-10 00:00"))
        give(world, 1000, since=at("2026-06-05 00:00"), until=at("2026-06-22 00:00"))
        first, fifth = at("2026-06-01 00:00"), at("2026-06-05 00:00")
        assert sorted(entries("usage")) == [(first, -300), (first, 300), (fifth, 300)]
        moved = LedgerEntry.objects.filter(kind="usage", quantity__lt=0).get()
        assert moved.events == -1
        assert moved.posting.kind == "walk"

    def test_an_event_a_few_minutes_ahead_is_beyond_a_grant_that_is_given_now(self):
        world = make_world(version=without_allowance(), now=at("2026-06-10 00:00"))
        world.use(100, time=at("2026-06-10 00:05"))
        world.use(100, time=at("2026-06-09 00:05"))
        give(world, 500)
        assert world.position() == ("200", "100", "100")

    def test_what_was_taken_back_and_what_a_replay_counted_move_along(self):
        version = without_allowance()
        clock = clocks.create_clock(code="clock", now=at("2026-06-20 00:00"), actor=ACTOR)
        tenant = tenants.create_tenant(code="org_late", name="Org", actor=ACTOR, test_clock=clock.code)
        world = World(tenant, clock, None)
        report = world.use(70, time=at("2026-06-12 00:00"))
        assert report.outcomes[0].code == "no_period"
        start = at("2026-06-01 00:00")
        start_subscription(tenant=tenant, version=version, starts_at=start, anchor_at=start, now=world.now, actor=ACTOR)
        assert replay_events(now=wall_now()).counted == 1
        world.use(30, time=at("2026-06-12 00:00"))
        [taken_back] = world.use(11, time=at("2026-06-13 00:00")).outcomes
        reverse_event(event_id=taken_back.event_id, reason="why", actor=ACTOR)

        give(world, 1000, since=at("2026-06-10 00:00"), until=at("2026-06-21 00:00"))
        assert world.position() == ("100", "100", "0")
        totals = SegmentTotal.objects.filter(events__gt=0).values_list("segment_at", "quantity", "events")
        assert list(totals) == [(at("2026-06-10 00:00"), 100, 2)]

    def test_segments_price_each_dimension_set_by_its_share_of_their_own_overage(self):
        make_meter(dimensions=["model"])
        opus = charge(included=None, dimensions={"model": "opus"}, price=PER_TOKEN | {"unit_amount": "0.1"})
        haiku = charge(included="0", price=PER_TOKEN | {"unit_amount": "0.01"})
        world = make_world(version=publish(charges=[haiku, opus]), now=at("2026-06-20 00:00"))
        world.use(100, time=at("2026-06-05 00:00"), model="opus")
        world.use(100, time=at("2026-06-15 00:00"), model="haiku")
        give(world, 100, since=at("2026-06-10 00:00"), until=at("2026-06-21 00:00"))
        # Only haiku was used while the grant was in force: all that is left to pay is opus, 100 × 0.10, and not a share of both.
        [view] = world.use(0, model="opus").balances
        assert view.overage_amount_precise == 10
        move(world, "2026-07-01 02:00")
        [line] = Invoice.objects.get(reason="period").lines.filter(kind="overage")
        assert line.amount == 10

    def test_every_invoice_after_top_ups_rates_again_to_the_same(self):
        world = make_world(version=without_allowance(), now=at("2026-06-20 00:00"))
        world.use(50, time=at("2026-06-12 00:00"))
        move(world, "2026-06-20 00:10")
        # Booked as 50 of overage; covered afterwards, and 50 of overage again when it closes.
        give(world, 100, since=at("2026-06-11 00:00"), until=at("2026-06-21 00:00"))
        world.use(100, time=at("2026-06-13 00:00"))
        move(world, "2026-07-01 02:00")
        assert of_period(world, 1) == (150, 100)
        invoice = Invoice.objects.get(reason="period")
        assert invoice.lines.get(kind="overage").quantity == 50
        assert verify(invoice) == []


class TestTakingBack:
    def test_from_now_on_it_covers_nothing_and_what_it_covered_stays_covered(self):
        world = make_world(version=without_allowance(), now=at("2026-06-10 00:00"))
        grant = give(world, 1000)
        world.use(300)
        move(world, "2026-06-11 00:00")
        void(world, grant)
        [view] = world.use(50).balances
        assert world.position() == ("350", "300", "50")
        assert (view.included, view.remaining) == (0, 0)
        standing = standing_of(CreditGrant.objects.get(pk=grant.pk), at=world.now)
        assert (standing.status, standing.voided, standing.remaining) == ("voided", 700, 0)

    def test_events_of_its_time_that_come_late_still_burn_it_and_closing_posts_what_is_left(self):
        world = make_world(version=without_allowance(), now=at("2026-06-10 00:00"))
        grant = give(world, 1000)
        move(world, "2026-06-20 00:00")
        void(world, grant)
        world.use(300, time=at("2026-06-19 00:00"))
        assert figures(grant) == (300, 0, 0, 0, 700)
        move(world, "2026-07-01 02:00")
        assert figures(grant) == (300, 0, 700, 0, 0)
        assert entries("void") == [(at("2026-06-10 00:00"), 700)]

    def test_one_that_has_not_begun_is_gone_at_once(self):
        world = make_world(now=at("2026-06-10 00:00"))
        grant = give(world, 1000, since=at("2026-06-15 00:00"))
        assert world.balance().cuts == [at("2026-06-15 00:00")]
        void(world, grant)
        assert figures(grant) == (0, 0, 1000, 0, 0)
        assert world.balance().cuts == []
        assert standing_of(grant, at=world.now).status == "voided"

    def test_without_a_subscription_it_is_gone_at_once(self):
        clock = clocks.create_clock(code="clock", now=at("2026-06-20 00:00"), actor=ACTOR)
        tenant = tenants.create_tenant(code="org_none", name="Org", actor=ACTOR, test_clock=clock.code)
        make_meter()
        world = World(tenant, clock, None)
        grant = give(world, 40)
        void(world, grant)
        assert figures(grant) == (0, 0, 40, 0, 0)

    def test_it_happens_once(self):
        world = make_world(now=at("2026-06-10 00:00"))
        grant = give(world, 1000)
        void(world, grant)
        move(world, "2026-06-12 00:00")
        assert void(world, grant).voided_at == at("2026-06-10 00:00")
        with pytest.raises(IntegrityError), transaction.atomic():
            CreditGrant.objects.filter(pk=grant.pk).update(voided_at=None)

    def test_allowances_and_what_has_expired_cannot_be_taken_back(self):
        world = make_world(now=at("2026-06-10 00:00"))
        with pytest.raises(NotVoidable):
            void(world, CreditGrant.objects.get())
        grant = give(world, 1000, until=at("2026-06-11 00:00"))
        move(world, "2026-06-11 00:00")
        with pytest.raises(NotVoidable):
            void(world, grant)


class TestOverSeveralPeriods:
    def test_what_one_period_leaves_the_next_one_burns(self):
        world = make_world(version=without_allowance(), now=at("2026-06-10 00:00"))
        grant = give(world, 1000, until=at("2026-08-15 00:00"))
        world.use(300)
        move(world, "2026-07-05 00:00")
        [view] = world.use(500).balances
        assert (view.included, view.remaining, view.used) == (700, 200, 500)
        assert (of_period(world, 1), of_period(world, 2)) == ((300, 300), (500, 500))
        grant.refresh_from_db()
        assert (grant.settled, grant.burned) == (300, 800)

    def test_late_usage_of_a_period_in_its_grace_takes_from_the_next_one(self):
        world = make_world(version=with_grace(48), now=at("2026-06-10 00:00"))
        give(world, 1000)
        move(world, "2026-07-02 00:00")
        world.use(900)
        assert of_period(world, 2) == (900, 900)
        world.use(300, time=at("2026-06-20 00:00"))
        assert (of_period(world, 1), of_period(world, 2)) == ((300, 300), (900, 700))
        [taken_back] = world.use(50, time=at("2026-06-21 00:00")).outcomes
        reverse_event(event_id=taken_back.event_id, reason="why", actor=ACTOR)
        assert (of_period(world, 1), of_period(world, 2)) == ((300, 300), (900, 700))

    def test_it_expires_when_the_last_period_that_it_touches_closes(self):
        world = make_world(version=without_allowance(), now=at("2026-06-10 00:00"))
        grant = give(world, 1000, until=at("2026-07-10 00:00"))
        move(world, "2026-07-20 00:00")
        assert figures(grant) == (0, 0, 0, 0, 1000)
        assert standing_of(grant, at=world.now).status == "expired"
        world.use(100, time=at("2026-07-09 00:00"))
        assert of_period(world, 2) == (100, 100)
        move(world, "2026-08-01 02:00")
        assert figures(grant) == (100, 900, 0, 0, 0)
        assert entries("expire") == [(at("2026-06-10 00:00"), 900)]

    def test_a_reversal_after_closing_makes_nothing_available_again(self):
        world = make_world(version=without_allowance(), now=at("2026-06-10 00:00"))
        grant = give(world, 1000)
        [outcome] = world.use(300).outcomes
        move(world, "2026-07-05 00:00")
        world.use(100)
        reverse_event(event_id=outcome.event_id, reason="why", actor=ACTOR)
        assert figures(grant) == (100, 300, 0, 0, 600)
        world.use(650)
        assert of_period(world, 2) == (750, 700)

    def test_a_grant_given_before_a_subscription_covers_its_first_period(self):
        version = without_allowance()
        clock = clocks.create_clock(code="clock", now=at("2026-06-20 00:00"), actor=ACTOR)
        tenant = tenants.create_tenant(code="org_first", name="Org", actor=ACTOR, test_clock=clock.code)
        world = World(tenant, clock, None)
        grant = give(world, 40)
        start = at("2026-06-20 00:00")
        start_subscription(tenant=tenant, version=version, starts_at=start, anchor_at=start, now=world.now, actor=ACTOR)
        world.use(50)
        assert (world.position(), figures(grant)[0]) == (("50", "40", "10"), 40)

    def test_what_is_left_outlives_a_cancellation(self):
        version = without_allowance()
        world = make_world(version=version, now=at("2026-06-10 00:00"))
        grant = give(world, 1000)
        world.use(300)
        move(world, "2026-06-11 00:00")
        cancel_subscription(
            subscription_id=world.subscription.pk, when="now", credit="none", now=world.now, actor=ACTOR
        )
        move(world, "2026-06-12 00:00")
        start_subscription(
            tenant=world.tenant, version=version, starts_at=world.now, anchor_at=world.now, now=world.now, actor=ACTOR
        )
        world.use(800)
        assert figures(grant) == (1000, 0, 0, 0, 0)
        newest = MeterBalance.objects.latest("pk")
        assert (newest.used, newest.covered) == (800, 700)


def with_grace(hours):
    make_meter()
    return publish(charges=[charge(included="0")], grace_hours=hours)


class TestRefusals:
    @pytest.mark.parametrize(
        ("how", "fault"),
        [
            ({"since": at("2026-07-02 00:00"), "until": at("2026-07-02 00:00")}, ("expires_at", "invalid")),
            ({"since": at("2026-06-02 00:00"), "until": at("2026-06-03 00:00")}, ("effective_at", "period_closed")),
            ({"since": at("2026-07-12 00:00"), "until": at("2026-07-12 00:00")}, ("expires_at", "invalid")),
            ({"since": at("2026-06-30 00:00")}, ("effective_at", "period_closed")),
            ({"meter": "peak"}, ("meter", "not_additive")),
            ({"meter": "value"}, ("meter", "rates_whole_value")),
            ({"dimensions": {"color": "red"}}, ("dimensions.color", "not_a_dimension")),
            ({"dimensions": {"model": "opus"}}, ("dimensions", "no_such_pool")),
        ],
    )
    def test_a_grant_that_would_cover_nothing_is_refused(self, how, fault):
        make_meter(dimensions=["model"])
        make_meter("peak", aggregation="max")
        make_meter("value")
        percent = {"model": "percentage", "rate": "1"}
        version = publish(charges=[charge(), charge(meter="value", included="0", price=percent)])
        world = make_world(version=version, now=at("2026-07-10 00:00"), starts_at=at("2026-06-01 00:00"))
        move(world, "2026-07-10 00:01")
        with pytest.raises(InvalidGrant) as refused:
            give(world, 100, **how)
        assert [(one.path, one.code) for one in refused.value.errors] == [fault]
        assert not CreditGrant.objects.filter(kind="promotional").exists()

    def test_the_same_key_is_the_same_grant(self):
        world = make_world(now=at("2026-06-10 00:00"))
        first = give(world, 100, key="a")
        move(world, "2026-06-11 00:00")
        assert give(world, 100, key="a").pk == first.pk
        with pytest.raises(KeyTaken):
            give(world, 101, key="a")
        assert give(world, 100, key="b").pk != first.pk

    def test_what_a_grant_is_never_changes(self):
        world = make_world(now=at("2026-06-10 00:00"))
        grant = give(world, 100)
        for change in ({"quantity": 101}, {"priority": 1}, {"pool": "x"}, {"effective_at": at("2026-06-09 00:00")}):
            with pytest.raises(IntegrityError) as refused, transaction.atomic():
                CreditGrant.objects.filter(pk=grant.pk).update(**change)
            assert sqlstate(refused.value) == "23001"

    def test_one_that_has_expired_before_any_open_period_is_refused(self):
        clock = clocks.create_clock(code="clock", now=at("2026-06-20 00:00"), actor=ACTOR)
        tenant = tenants.create_tenant(code="org_none", name="Org", actor=ACTOR, test_clock=clock.code)
        make_meter()
        with pytest.raises(InvalidGrant) as refused:
            give(World(tenant, clock, None), 5, since=at("2026-06-01 00:00"), until=at("2026-06-20 00:00"))
        assert [one.path for one in refused.value.errors] == ["expires_at"]
