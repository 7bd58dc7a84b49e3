"""Trials: what they include, how they end, and that nothing of them is billed which their version does not bill."""

from datetime import timedelta
from decimal import Decimal

import pytest

from invoices.models import Invoice
from invoices.selectors.verifying import verify
from invoices.services.advancing import advance
from invoices.services.changing import NOW, PERIOD_END, Asked, change_tier
from invoices.services.subscribing import cancel_subscription, start_subscription
from invoices.services.trials import move_trial_end
from metering.models import CreditGrant, MeterBalance, OverageCharge
from metering.selectors.balances import balances_of_tenants
from metering.services.checking import check_call
from metering.services.ingest import record_events
from metering.services.requests import Authorize, NewEvent, Record
from metering.services.reversing import reverse_event
from subscriptions.models import AuditEntry, BillingPeriod, FeeItem, OutboxMessage, Subscription, TierVersion
from subscriptions.selectors.clock import wall_now
from subscriptions.services.agreement import (
    EndsInThePast,
    NoTrial,
    SubscriptionEnded,
    TrialTooLong,
    TrialUsed,
)
from subscriptions.services.tenants import create_tenant
from tests.races import together
from tests.services.test_authorize import asking, one, outcome
from tests.services.test_grants import give
from tests.world import ACTOR, JUNE, PER_TOKEN, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

FORTNIGHT = at("2026-06-15 00:00")


@pytest.fixture(autouse=True)
def tokens(transactional_db):
    """Make the meter that every version here charges."""
    return make_meter()


def tier(code="growth", *, charges=None, **terms):
    """Publish $99 a month with 10,000 tokens, and a trial of 14 days with 1,000."""
    given = {"trial_days": 14} | terms
    return publish(code, charges=charges or [charge(trial_included="1000")], **given)


def world_in_trial(**terms):
    return make_world(version=tier(**terms))


def go_on(world, to):
    return advance(clock_id=world.clock.pk, to=at(to) if isinstance(to, str) else to, actor=ACTOR)


def invoices(world):
    return [(one.reason, one.total) for one in Invoice.objects.filter(tenant=world.tenant).order_by("pk")]


def periods(world):
    rows = BillingPeriod.objects.filter(subscription=world.subscription).order_by("sequence")
    return [(one.kind, one.starts_at, one.ends_at) for one in rows]


def subscription_of(world):
    return Subscription.objects.get(pk=world.subscription.pk)


def start(world, version, **terms):
    given = {"starts_at": world.now, "anchor_at": None, "now": world.now, "actor": ACTOR}
    return start_subscription(tenant=world.tenant, version=version, **(given | terms))


def move(world, ends_at):
    return move_trial_end(
        subscription_id=world.subscription.pk,
        ends_at=at(ends_at) if isinstance(ends_at, str) else ends_at,
        now=world.now,
        actor=ACTOR,
    )


def change(world, version, *, when=NOW, **choices):
    return change_tier(
        subscription_id=world.subscription.pk,
        asked=Asked(to_version=version, when=when, choices=choices),
        now=world.now,
        actor=ACTOR,
        read=lambda done: (done.effective_at, [(one["before"], one["after"]) for one in done.allowances]),
    )[1]


def decided(world, quantity):
    """Return what the gate would say to a call, of which nothing is held."""
    asked = Authorize(world.tenant.code, "tokens", Decimal(quantity), "unused", {}, 300, world.now)
    return check_call(asked).decision.decision


class TestTheTrial:
    def test_it_costs_nothing_and_includes_what_trials_include(self):
        world = world_in_trial()
        assert periods(world) == [("trial", JUNE, FORTNIGHT)]
        assert (invoices(world), FeeItem.objects.count()) == ([], 0)
        assert subscription_of(world).trial_ends_at == subscription_of(world).due_at == FORTNIGHT
        world.use(400)
        assert world.position() == ("400", "400", "0")
        assert world.balance().grants.get().quantity == 1000

    def test_a_charge_that_says_nothing_of_trials_includes_what_it_includes(self):
        world = world_in_trial(charges=[charge()])
        assert world.balance().grants.get().quantity == 10_000

    def test_the_gate_is_closed_where_the_trials_allowance_ends(self):
        world = world_in_trial()
        assert (decided(world, 1000), decided(world, 1001)) == ("allow", "deny")
        assert outcome(one(asking(world, 1000))) == "allow"
        assert outcome(one(asking(world, 1))) == "deny"
        go_on(world, FORTNIGHT)
        assert decided(world, 10_001) == "allow_overage"

    def test_where_overage_is_billed_the_gate_is_as_the_charge_says(self):
        world = world_in_trial(trial_overage="bill")
        assert decided(world, 1001) == "allow_overage"

    def test_usage_beyond_it_is_recorded_and_not_billed(self):
        world = world_in_trial()
        world.use(5000)
        assert world.position() == ("5000", "1000", "4000")
        [view] = balances_of_tenants([world.tenant.code], wall=world.now)[world.tenant.code].views
        assert (view.state, view.overage_amount_precise) == ("overage", 0)
        go_on(world, "2026-06-16 00:00")
        assert invoices(world) == [("period", 99)]
        assert not OverageCharge.objects.exists()

    def test_usage_beyond_it_is_billed_where_the_version_says_so(self):
        world = world_in_trial(trial_overage="bill")
        world.use(6000)
        go_on(world, "2026-06-16 00:00")
        assert invoices(world) == [("period", 100)]  # 99 + 5,000 × 0.0002
        invoice = Invoice.objects.get()
        assert "beyond the 1,000 included" in invoice.lines.get(kind="overage").description
        assert verify(invoice) == []

    def test_a_trial_that_bills_overage_bills_no_minimum(self):
        price = PER_TOKEN | {"amount_min": "50"}
        world = world_in_trial(charges=[charge(price=price)], trial_overage="bill")
        go_on(world, "2026-06-16 00:00")
        assert invoices(world) == [("period", 99)]

    def test_prices_that_look_at_each_event_cost_nothing_either(self):
        price = {"model": "percentage", "rate": "1.5", "minimum_per_event": "0.50"}
        world = world_in_trial(charges=[charge(included="0", price=price)])
        world.use(1000)
        assert world.balance().segments.get().clamped == 0
        go_on(world, "2026-06-16 00:00")
        assert invoices(world) == [("period", 99)]

    def test_late_usage_of_a_trial_is_not_billed_either(self):
        world = world_in_trial()
        go_on(world, "2026-06-16 00:00")
        world.use(5000, time=at("2026-06-10 00:00"))
        go_on(world, "2026-07-16 00:00")
        assert invoices(world) == [("period", 99), ("period", 99)]

    def test_a_reversal_in_a_trial_makes_room_in_its_allowance(self):
        world = world_in_trial()
        [outcome] = world.use(5000).outcomes
        reverse_event(event_id=outcome.event_id, reason="a test", actor=ACTOR)
        assert world.position() == ("0", "0", "0")

    def test_nothing_rolls_over_out_of_a_trial(self):
        world = world_in_trial(charges=[charge(rollover_max="5000")])
        go_on(world, "2026-06-16 00:00")
        kinds = CreditGrant.objects.filter(tenant=world.tenant).values_list("kind", flat=True)
        assert sorted(kinds) == ["allowance", "allowance"]

    def test_thresholds_look_at_the_trials_allowance(self):
        world = world_in_trial(charges=[charge(trial_included="1000", thresholds=[{"percent": 80}])])
        world.use(800)
        assert OutboxMessage.objects.filter(type="usage.threshold_reached").count() == 1

    def test_windows_hold_in_a_trial_and_over_its_end(self):
        limits = [{"quantity": "500", "window": "PT5H"}]
        world = world_in_trial(charges=[charge(limits=limits)])
        go_on(world, "2026-06-14 23:00")
        world.use(450)
        assert decided(world, 51) == "deny"
        go_on(world, FORTNIGHT)
        assert (decided(world, 51), decided(world, 50)) == ("deny", "allow")


class TestHowLong:
    def test_days_are_local_over_a_change_of_the_clocks(self):
        # Berlin's clocks go back on 25 October 2026: the fortnight is an hour longer.
        world = make_world(version=tier(), starts_at=at("2026-10-19 10:00"), timezone="Europe/Berlin")
        [(_, starts_at, ends_at)] = periods(world)
        assert ends_at - starts_at == timedelta(days=14, hours=1)
        assert ends_at == at("2026-11-02 11:00")  # noon there, as at the start

    def test_boundaries_are_counted_from_its_end(self):
        world = world_in_trial()
        go_on(world, FORTNIGHT)
        assert periods(world)[1:] == [("regular", FORTNIGHT, at("2026-07-15 00:00"))]

    def test_boundaries_are_counted_from_an_anchor_that_was_named(self):
        world = make_world(version=tier(), anchor_at=JUNE)
        go_on(world, "2026-06-16 00:00")
        assert periods(world)[1:] == [("stub", FORTNIGHT, at("2026-07-01 00:00"))]
        assert invoices(world) == [("period", Decimal("52.80"))]  # 16 of 30 days of 99

    def test_days_that_are_asked_for_replace_those_of_the_version(self):
        assert periods(make_world(version=tier("a"), trial_days=3)) == [("trial", JUNE, at("2026-06-04 00:00"))]
        assert periods(make_world(version=tier("b"), trial_days=0))[0][0] == "regular"
        assert periods(make_world(version=publish("c"), trial_days=7)) == [("trial", JUNE, at("2026-06-08 00:00"))]

    def test_there_is_one_per_tenant_and_tier(self):
        version = tier()
        world = make_world(version=version)
        cancel_subscription(
            subscription_id=world.subscription.pk, when="now", credit="none", now=world.now, actor=ACTOR
        )
        go_on(world, "2026-06-02 00:00")
        with pytest.raises(TrialUsed):
            start(world, version, trial_days=14)
        again = start(world, version)
        assert (again.trial_ends_at, again.periods.get().kind) == (None, "regular")

    def test_a_tier_that_was_tried_by_a_change_was_tried(self):
        world, other = world_in_trial(), tier("other")
        change(world, other)
        cancel_subscription(
            subscription_id=world.subscription.pk, when="now", credit="none", now=world.now, actor=ACTOR
        )
        go_on(world, "2026-06-02 00:00")
        with pytest.raises(TrialUsed):
            start(world, other, trial_days=14)

    def test_a_trial_that_is_to_come_counts(self):
        world, version = make_world(version=publish("plain")), tier()
        cancel_subscription(
            subscription_id=world.subscription.pk, when="period_end", credit="none", now=world.now, actor=ACTOR
        )
        first = start(world, version, starts_at=at("2026-08-01 00:00"))
        Subscription.objects.filter(pk=first.pk).update(ends_at=at("2026-09-01 00:00"))
        with pytest.raises(TrialUsed):
            start(world, version, starts_at=at("2026-10-01 00:00"), trial_days=14)


class TestItsEnd:
    def test_it_converts_and_its_closing_invoice_carries_the_first_fee(self):
        world = world_in_trial()
        go_on(world, "2026-06-16 00:00")
        [line] = Invoice.objects.get().lines.all()
        assert (invoices(world), line.kind, line.amount) == ([("period", 99)], "fee", 99)
        go_on(world, "2026-07-16 00:00")
        assert invoices(world) == [("period", 99), ("period", 99)]

    def test_a_fee_in_arrears_is_first_billed_a_month_after_it(self):
        world = world_in_trial(fee_timing="arrears")
        go_on(world, "2026-06-16 00:00")
        assert invoices(world) == []
        go_on(world, "2026-07-16 00:00")
        assert invoices(world) == [("period", 99)]

    def test_a_yearly_fee_begins_with_its_end(self):
        world = world_in_trial(fee="990.00", fee_every=12)
        go_on(world, "2026-08-16 00:00")
        assert invoices(world) == [("period", 990)]
        assert FeeItem.objects.get().span_ends_at == at("2027-06-15 00:00")

    def test_it_pauses(self):
        world = world_in_trial(trial_end="pause")
        go_on(world, "2026-07-20 00:00")
        paused = subscription_of(world)
        assert (paused.paused_at, paused.ends_at, paused.due_at) == (FORTNIGHT, None, None)
        assert (periods(world), invoices(world)) == ([("trial", JUNE, FORTNIGHT)], [])
        assert OutboxMessage.objects.get(type="subscription.paused").payload == {
            "subscription": str(paused.public_id),
            "tier": "growth",
            "version": 1,
            "paused_at": "2026-06-15T00:00:00+00:00",
        }
        assert AuditEntry.objects.get(action="pause").actor == "system"

    def test_it_cancels_and_what_it_bills_stands_on_the_final_invoice(self):
        world = world_in_trial(trial_end="cancel", trial_overage="bill")
        world.use(6000)
        go_on(world, "2026-07-20 00:00")
        ended = subscription_of(world)
        assert (ended.ends_at, ended.due_at, periods(world)) == (FORTNIGHT, None, [("trial", JUNE, FORTNIGHT)])
        assert invoices(world) == [("final", 1)]
        assert OutboxMessage.objects.filter(type="subscription.cancelled").count() == 1

    def test_usage_after_a_trial_that_cancels_belongs_to_no_period(self):
        world = world_in_trial(trial_end="cancel")
        go_on(world, "2026-06-20 00:00")
        [outcome] = world.use(5).outcomes
        assert (outcome.status, outcome.code) == ("unmatched", "no_period")

    def test_cancelled_in_a_trial_nothing_is_given_back(self):
        world = world_in_trial()
        go_on(world, "2026-06-05 00:00")
        cancel_subscription(
            subscription_id=world.subscription.pk, when="period_end", credit="unused", now=world.now, actor=ACTOR
        )
        go_on(world, "2026-07-20 00:00")
        assert (subscription_of(world).ends_at, invoices(world)) == (FORTNIGHT, [])


class TestMovingItsEnd:
    def test_extended_its_allowance_and_boundaries_move_with_it(self):
        world = world_in_trial()
        world.use(300)
        go_on(world, "2026-06-10 00:00")
        move(world, "2026-06-29 00:00")
        assert periods(world) == [("trial", JUNE, at("2026-06-29 00:00"))]
        assert world.balance().grants.get().expires_at == at("2026-06-29 00:00")
        go_on(world, "2026-06-20 00:00")
        world.use(700)
        assert world.position() == ("1000", "1000", "0")
        assert decided(world, 1) == "deny"
        go_on(world, "2026-06-30 00:00")
        assert periods(world)[1:] == [("regular", at("2026-06-29 00:00"), at("2026-07-29 00:00"))]
        assert invoices(world) == [("period", 99)]

    def test_ended_now_what_follows_begins_at_once(self):
        world = world_in_trial()
        go_on(world, "2026-06-10 00:00")
        world.use(5000)
        move(world, None)
        assert periods(world)[1:] == [("regular", at("2026-06-10 00:00"), at("2026-07-10 00:00"))]
        assert decided(world, 10_000) == "allow"
        go_on(world, "2026-06-11 00:00")
        assert invoices(world) == [("period", 99)]

    def test_ended_early_at_a_time_to_come_its_closing_moves(self):
        world = world_in_trial()
        move(world, "2026-06-03 00:00")
        assert [entry.what for entry in go_on(world, "2026-06-04 00:00")] == ["open_period", "close_period"]
        assert periods(world)[1:] == [("regular", at("2026-06-03 00:00"), at("2026-07-03 00:00"))]

    def test_ended_in_its_first_instant_it_was_a_moment_long(self):
        world = world_in_trial()
        move(world, None)
        moment = JUNE + timedelta(microseconds=1)
        assert periods(world)[0] == ("trial", JUNE, moment)
        assert periods(world)[1][:2] == ("regular", moment)

    def test_ended_now_it_pauses_or_cancels_at_once_where_that_is_the_policy(self):
        paused, cancelled = world_in_trial(code="a", trial_end="pause"), world_in_trial(code="b", trial_end="cancel")
        for world in (paused, cancelled):
            go_on(world, "2026-06-10 00:00")
            move(world, None)
        assert subscription_of(paused).paused_at == subscription_of(cancelled).ends_at == at("2026-06-10 00:00")

    def test_boundaries_from_a_named_anchor_stay(self):
        world = make_world(version=tier(), anchor_at=JUNE)
        move(world, "2026-06-21 00:00")
        go_on(world, "2026-06-22 00:00")
        assert periods(world)[1:] == [("stub", at("2026-06-21 00:00"), at("2026-07-01 00:00"))]

    def test_grants_of_the_pool_cut_an_extended_trial_where_they_end(self):
        world = world_in_trial()
        give(world, 500, until=at("2026-06-20 00:00"))
        assert world.balance().cuts == []
        move(world, "2026-06-29 00:00")
        assert world.balance().cuts == [at("2026-06-20 00:00")]

    @pytest.mark.parametrize(
        ("ends_at", "refusal"),
        [("2026-06-09 00:00", EndsInThePast), ("2028-06-01 00:00", TrialTooLong)],
    )
    def test_where_it_cannot_end(self, ends_at, refusal):
        world = world_in_trial()
        go_on(world, "2026-06-10 00:00")
        with pytest.raises(refusal):
            move(world, ends_at)
        assert periods(world) == [("trial", JUNE, FORTNIGHT)]

    def test_what_is_in_no_trial_has_no_end_of_one(self):
        regular, over = make_world(version=publish("plain")), world_in_trial()
        go_on(over, FORTNIGHT)
        for world in (regular, over):
            with pytest.raises(NoTrial):
                move(world, "2026-07-01 00:00")

    def test_once_the_next_minutes_have_opened_what_follows_it_stays(self):
        world = world_in_trial()
        go_on(world, "2026-06-14 23:55")
        world.use(1, time=at("2026-06-15 00:01"))
        with pytest.raises(NoTrial):
            move(world, "2026-07-01 00:00")

    def test_a_cancellation_is_undone_first(self):
        world = world_in_trial()
        cancel_subscription(
            subscription_id=world.subscription.pk, when="period_end", credit="none", now=world.now, actor=ACTOR
        )
        with pytest.raises(SubscriptionEnded):
            move(world, "2026-06-20 00:00")


class TestChangingTierInATrial:
    def test_it_stays_a_trial_without_fees_on_the_other_versions_terms(self):
        world, big = world_in_trial(), tier("big", fee="499.00", charges=[charge(trial_included="3000")])
        go_on(world, "2026-06-08 00:00")
        assert change(world, big) == (at("2026-06-08 00:00"), [("1000", "2000")])  # 7 of 14 days each
        assert (periods(world), FeeItem.objects.count()) == ([("trial", JUNE, FORTNIGHT)], 0)
        assert (decided(world, 2000), decided(world, 2001)) == ("allow", "deny")
        world.use(5000)
        go_on(world, "2026-06-16 00:00")
        assert invoices(world) == [("period", 499)]
        assert world.balance().grants.get().quantity == 10_000

    def test_another_rhythm_does_not_end_it(self):
        world, yearly = world_in_trial(), tier("yearly", interval="year", fee="999.00")
        change(world, yearly)
        go_on(world, "2026-06-16 00:00")
        assert periods(world)[1:] == [("regular", FORTNIGHT, at("2027-06-15 00:00"))]
        assert invoices(world) == [("period", 999)]

    def test_overage_is_billed_of_the_part_whose_version_bills_it(self):
        world = world_in_trial()
        billing = tier("billing", charges=[charge(trial_included="1000")], trial_overage="bill")
        world.use(1500)
        go_on(world, "2026-06-08 00:00")
        change(world, billing)
        world.use(5000)
        go_on(world, "2026-06-16 00:00")
        # The allowance stays 1,000, which the first version's usage has burned: all 5,000 of the second's are overage.
        assert verify(Invoice.objects.get()) == []
        assert Invoice.objects.get().total == Decimal("100.00")

    def test_a_reset_ends_it_and_goes_on_whatever_its_end_would_have_done(self):
        world = world_in_trial(trial_end="cancel")
        big = tier("big", fee="499.00", trial_end="cancel", charges=[charge(included="20000", trial_included="3000")])
        go_on(world, "2026-06-05 00:00")
        assert change(world, big, allowance="reset") == (at("2026-06-05 00:00"), [("1000", "20000")])
        assert periods(world)[1:] == [("regular", at("2026-06-05 00:00"), at("2026-07-05 00:00"))]
        go_on(world, "2026-06-06 00:00")
        assert invoices(world) == [("period", 499)]

    def test_a_change_at_its_end_comes_with_what_follows(self):
        world, big = world_in_trial(), publish("big", fee="499.00", charges=[charge(included="20000")])
        change(world, big, when=PERIOD_END)
        go_on(world, "2026-06-16 00:00")
        assert (invoices(world), world.balance().grants.get().quantity) == ([("period", 499)], 20_000)


class TestMeanwhile:
    def test_what_a_process_remembers_of_a_trial_is_read_again_when_that_ends(self):
        make_world(version=tier())
        tenant = create_tenant(code="live", name="Live", actor=ACTOR)
        now = wall_now()
        version = TierVersion.objects.get()
        subscription = start_subscription(
            tenant=tenant, version=version, starts_at=now, anchor_at=None, now=now, actor=ACTOR
        )

        def use(number):
            data = {"total_tokens": Decimal(700)}
            record_events([Record([NewEvent("live", "test", f"e{number}", "llm.completion", None, data)], wall_now())])

        use(1)
        use(2)
        move_trial_end(subscription_id=subscription.pk, ends_at=None, now=wall_now(), actor=ACTOR)
        use(3)
        figures = MeterBalance.objects.filter(tenant=tenant).order_by("pk").values_list("used", "covered")
        assert list(figures) == [(1400, 1000), (700, 700)]

    def test_extending_it_while_usage_comes_in_loses_nothing_of_either(self):
        world = world_in_trial()
        events = [world.event(10, id=f"at-once-{number}") for number in range(40)]
        ends = [at(f"2026-06-{day} 00:00") for day in range(16, 26)]
        results = together(
            *[lambda some=events[thread::4]: [world.record(event) for event in some] for thread in range(4)],
            *[lambda some=ends[thread::2]: [move(world, ends_at) for ends_at in some] for thread in range(2)],
        )
        assert [result for result in results if isinstance(result, Exception)] == []
        [grant] = world.balance().grants.all()
        trial_ends_at = subscription_of(world).trial_ends_at
        assert world.position() == ("400", "400", "0")
        assert grant.expires_at == trial_ends_at == periods(world)[0][2]
        assert trial_ends_at in ends
