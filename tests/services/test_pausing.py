"""Pausing, resuming, and taking up what has ended: what is given back, billed and counted, and what the gate says meanwhile."""

from datetime import timedelta
from decimal import Decimal

import pytest

from invoices.models import Invoice
from invoices.services.advancing import advance
from invoices.services.changing import Asked, change_tier
from invoices.services.invoicing import void
from invoices.services.pausing import pause_subscription, reactivate_subscription, resume_subscription
from invoices.services.subscribing import cancel_subscription, start_subscription
from invoices.services.undoing import undo
from metering.services.gate import perform
from subscriptions.models import AuditEntry, BillingPeriod, FeeItem, OutboxMessage, ScheduledChange
from subscriptions.services.agreement import (
    AlreadySubscribed,
    NothingToUndo,
    ReactivationTooLate,
    SubscriptionEnded,
    SubscriptionNotEnded,
    SubscriptionNotPaused,
    SubscriptionNotStarted,
    SubscriptionPaused,
)
from tests.races import together
from tests.services.test_authorize import asking
from tests.world import ACTOR, JUNE, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

MICROSECOND = timedelta(microseconds=1)


@pytest.fixture(autouse=True)
def tokens(transactional_db):
    """Make the meter that every version here charges."""
    return make_meter()


def go_to(world, text):
    return [entry.what for entry in advance(clock_id=world.clock.pk, to=at(text), actor=ACTOR)]


def on(world, service, **more):
    subscription = service(subscription_id=world.subscription.pk, now=world.now, actor=ACTOR, **more)
    world.subscription.refresh_from_db()
    return subscription


def pause(world, credit="unused"):
    return on(world, pause_subscription, credit=credit)


def resume(world):
    return on(world, resume_subscription)


def reactivate(world):
    return on(world, reactivate_subscription)


def cancel(world, when="now", credit="unused"):
    return on(world, cancel_subscription, when=when, credit=credit)


def invoices(world):
    return [
        (invoice.reason, invoice.subtotal) for invoice in Invoice.objects.filter(tenant=world.tenant).order_by("pk")
    ]


def periods(world):
    return [
        (f"{one.starts_at:%m-%d %H:%M}", f"{one.ends_at:%m-%d %H:%M}", one.kind)
        for one in world.subscription.periods.order_by("sequence")
    ]


def statuses(report):
    return [(outcome.status, outcome.code) for outcome in report.outcomes]


def decision(world):
    [answer] = perform([asking(world, 1)])
    return answer.decision.decision.value, answer.decision.reason


class TestPausing:
    def test_over_a_period_end_it_owes_nothing_and_is_billed_anew_when_it_is_resumed(self):
        world = make_world(now=at("2026-06-16 10:00"))
        pause(world)
        assert periods(world) == [("06-01 00:00", "06-16 10:00", "stub")]
        assert go_to(world, "2026-07-10 10:00") == ["close_period"]
        # 16 June counts as used: 14 of 30 days.
        assert invoices(world) == [("opening", 99), ("period", Decimal("-46.20"))]
        resume(world)
        assert periods(world)[1:] == [("07-10 10:00", "08-10 10:00", "regular")]
        opening = Invoice.objects.order_by("pk").last()
        assert (opening.reason, opening.total, opening.amount_due) == ("opening", 99, Decimal("52.80"))
        assert go_to(world, "2026-08-10 12:00") == ["bill_late_usage", "open_period", "close_period"]
        assert invoices(world)[2:] == [("opening", 99), ("period", 99)]

    def test_without_credit_nothing_is_given_back_in_any_run(self):
        world = make_world(now=at("2026-06-10 00:00"))
        pause(world, credit="none")
        go_to(world, "2026-06-12 00:00")
        resume(world)
        free = publish("free", fee="0")
        asked = Asked(to_version=free, when="now", choices={})
        change_tier(
            subscription_id=world.subscription.pk, asked=asked, now=world.now, actor=ACTOR, read=lambda change: None
        )
        cancel(world)
        # All of the second run's fee, and nothing of the first run's, which ran on beside it.
        assert [item.amount for item in FeeItem.objects.filter(kind="credit")] == [-99]

    def test_by_the_second_the_rest_of_the_day_is_given_back(self):
        world = make_world(version=publish("exact", change={"grain": "second"}), now=at("2026-06-14 10:00"))
        pause(world)
        assert FeeItem.objects.get(kind="credit").amount == Decimal("-54.73")  # 1,432,800 of 2,592,000 seconds

    def test_a_fee_in_arrears_is_billed_for_the_days_that_were_used(self):
        world = make_world(version=publish("arrears", fee_timing="arrears"), now=at("2026-06-15 10:00"))
        pause(world)
        go_to(world, "2026-06-15 12:00")
        assert invoices(world) == [("period", Decimal("49.50"))]

    def test_a_yearly_fee_is_given_back_for_the_rest_of_its_year_and_begins_again(self):
        world = make_world(version=publish("yearly", fee="3650.00", fee_every=12), now=at("2026-06-30 10:00"))
        pause(world)
        go_to(world, "2026-08-01 00:00")
        resume(world)
        go_to(world, "2026-10-01 02:00")
        assert invoices(world) == [("opening", 3650), ("period", -3350), ("opening", 3650)]

    def test_overage_until_then_is_billed_by_its_closing(self):
        world = make_world(now=at("2026-06-16 10:00"))
        world.use(10_500, time=at("2026-06-16 09:00"))
        pause(world, credit="none")
        go_to(world, "2026-06-16 12:00")
        assert invoices(world) == [("opening", 99), ("period", Decimal("0.10"))]

    def test_at_the_instant_of_a_boundary_the_new_period_is_given_back_but_for_its_first_day(self):
        world = make_world()
        go_to(world, "2026-07-01 00:00")
        pause(world)
        assert world.subscription.paused_at == at("2026-07-01 00:00") + MICROSECOND
        go_to(world, "2026-07-01 03:00")
        assert invoices(world) == [("opening", 99), ("period", 99), ("period", Decimal("-95.81"))]  # 30 of 31 days

    def test_where_an_early_event_has_opened_the_next_period_it_pauses_there(self):
        world = make_world(now=at("2026-06-30 23:55"))
        world.use(1, time=at("2026-07-01 00:02"))
        pause(world)
        assert world.subscription.paused_at == at("2026-07-01 00:00") + MICROSECOND
        assert world.position(period__sequence=2) == ("1", "1", "0")  # what was recorded stays so

    def test_what_was_scheduled_is_dropped(self):
        world = make_world(now=at("2026-06-10 00:00"))
        asked = Asked(to_version=publish("scale", fee="499.00"), when="period_end", choices={})
        change_tier(
            subscription_id=world.subscription.pk, asked=asked, now=world.now, actor=ACTOR, read=lambda change: None
        )
        pause(world)
        assert ScheduledChange.objects.get().status == "dropped"
        with pytest.raises(NothingToUndo):
            on(world, undo)

    def test_it_is_refused_where_nothing_runs_that_could_pause(self):
        later = make_world(starts_at=at("2026-06-10 00:00"), now=JUNE)
        with pytest.raises(SubscriptionNotStarted):
            pause(later)
        ending = make_world()
        cancel(ending, when="period_end")
        with pytest.raises(SubscriptionEnded):
            pause(ending)
        world = make_world()
        with pytest.raises(SubscriptionNotPaused):
            resume(world)
        pause(world)
        with pytest.raises(SubscriptionPaused):
            pause(world)

    def test_of_two_pauses_at_once_one_gives_credit(self):
        world = make_world(now=at("2026-06-16 10:00"))
        results = together(*[lambda: pause(world)] * 2)
        assert sorted(type(result).__name__ for result in results) == ["Subscription", "SubscriptionPaused"]
        assert FeeItem.objects.filter(kind="credit").count() == 1

    def test_it_is_written_down_and_told(self):
        world = make_world(now=at("2026-06-16 10:00"))
        pause(world)
        resume(world)
        cancel(world)
        reactivate(world)
        actions = AuditEntry.objects.filter(object_type="subscriptions.subscription").order_by("pk")
        assert [entry.action for entry in actions] == ["start", "pause", "resume", "cancel", "reactivate"]
        told = OutboxMessage.objects.filter(type__startswith="subscription.").order_by("pk")
        assert [message.type.partition(".")[2] for message in told] == ["paused", "resumed", "cancelled", "reactivated"]
        assert told[0].payload["paused_at"] == "2026-06-16T10:00:00+00:00"


class TestUsageMeanwhile:
    def test_events_have_no_period_and_the_gate_denies_until_it_is_resumed(self):
        world = make_world(now=at("2026-06-16 10:00"))
        assert decision(world) == ("allow", "within_allowance")
        pause(world)
        assert statuses(world.use(5)) == [("unmatched", "no_period")]
        assert decision(world) == ("deny", "no_period")
        go_to(world, "2026-06-20 00:00")
        assert statuses(world.use(5)) == [("unmatched", "no_period")]
        assert decision(world) == ("deny", "no_period")
        resume(world)
        assert statuses(world.use(7)) == [("accepted", "")]
        # The time of the pause belongs to no run.
        assert statuses(world.use(5, time=at("2026-06-18 00:00"))) == [("unmatched", "no_period")]
        assert world.position() == ("7", "7", "0")
        assert decision(world) == ("allow", "within_allowance")

    def test_usage_that_comes_later_than_the_closing_is_billed_once_its_window_has_passed(self):
        world = make_world(now=at("2026-06-16 10:00"))
        world.use(10_000, time=at("2026-06-16 09:00"))
        pause(world, credit="none")
        go_to(world, "2026-06-20 00:00")
        assert statuses(world.use(500, time=at("2026-06-16 09:30"))) == [("accepted", "")]
        go_to(world, "2026-07-22 00:00")
        assert invoices(world) == [("opening", 99), ("late", Decimal("0.10"))]

    def test_usage_that_comes_late_is_billed_with_the_run_that_was_resumed(self):
        world = make_world(now=at("2026-06-16 10:00"))
        world.use(10_000, time=at("2026-06-16 09:00"))
        pause(world, credit="none")
        go_to(world, "2026-06-20 00:00")
        resume(world)
        world.use(500, time=at("2026-06-16 09:30"))
        go_to(world, "2026-07-20 02:00")
        assert invoices(world) == [("opening", 99), ("opening", 99), ("period", Decimal("99.10"))]

    def test_what_a_voided_invoice_had_billed_is_billed_again(self):
        world = make_world(now=at("2026-06-16 10:00"))
        world.use(10_500, time=at("2026-06-16 09:00"))
        pause(world, credit="none")
        go_to(world, "2026-06-17 00:00")
        closing = Invoice.objects.get(reason="period")
        void(invoice_id=closing.pk, now=world.now, actor=ACTOR, reason="test")
        go_to(world, "2026-06-17 01:00")
        assert invoices(world)[2:] == [("late", Decimal("0.10"))]

    def test_usage_of_both_runs_has_an_allowance_of_its_own(self):
        world = make_world(now=at("2026-06-16 10:00"))
        world.use(9_000)
        pause(world)
        go_to(world, "2026-06-20 00:00")
        resume(world)
        world.use(9_000)
        assert [world.position(period__sequence=sequence) for sequence in (1, 2)] == [("9000", "9000", "0")] * 2


class TestResuming:
    def test_before_the_paused_period_has_closed_each_thing_is_billed_once(self):
        world = make_world(now=at("2026-06-16 10:00"))
        world.use(10_500, time=at("2026-06-16 09:00"))
        pause(world)
        go_to(world, "2026-06-16 10:30")
        resume(world)
        go_to(world, "2026-06-16 12:00")
        # The credit stands on the first invoice that comes: 99.00 − 46.20.
        assert invoices(world) == [("opening", 99), ("opening", Decimal("52.80")), ("period", Decimal("0.10"))]

    def test_at_the_very_instant_of_the_pause_a_run_ends_and_another_begins(self):
        world = make_world(now=at("2026-06-16 10:00"))
        pause(world)
        resume(world)
        assert periods(world) == [("06-01 00:00", "06-16 10:00", "stub"), ("06-16 10:00", "07-16 10:00", "regular")]
        assert statuses(world.use(1)) == [("accepted", "")]
        go_to(world, "2026-06-16 12:00")
        assert invoices(world) == [("opening", 99), ("opening", Decimal("52.80"))]

    def test_any_number_of_pauses_at_one_instant_leave_the_smallest_periods(self):
        world = make_world()
        for _ in range(3):
            pause(world)
            resume(world)
        spans = list(BillingPeriod.objects.order_by("sequence").values_list("starts_at", "ends_at"))
        assert spans[:3] == [(JUNE + n * MICROSECOND, JUNE + (n + 1) * MICROSECOND) for n in range(3)]
        assert spans[3][0] == JUNE + 3 * MICROSECOND
        # On day grain the first day is used each time.
        go_to(world, "2026-06-01 02:00")
        amounts = FeeItem.objects.order_by("pk").values_list("amount", flat=True)
        assert list(amounts) == [99, Decimal("-95.70"), 99, Decimal("-95.70"), 99, Decimal("-95.70"), 99]
        assert sum(subtotal for _, subtotal in invoices(world)) == sum(amounts)

    def test_on_the_calendar_it_begins_with_a_stub(self):
        world = make_world(version=publish("calendar", alignment="calendar"), now=at("2026-06-10 00:00"))
        pause(world)
        go_to(world, "2026-07-17 00:00")
        resume(world)
        assert periods(world)[1:] == [("07-17 00:00", "08-01 00:00", "stub")]
        assert FeeItem.objects.filter(kind="fee").last().amount == Decimal("47.90")  # 15 of 31 days

    def test_of_two_at_once_one_begins_a_run(self):
        world = make_world()
        pause(world)
        go_to(world, "2026-06-20 00:00")
        results = together(*[lambda: resume(world)] * 2)
        assert sorted(type(result).__name__ for result in results) == ["Subscription", "SubscriptionNotPaused"]
        assert [reason for reason, _ in invoices(world)] == ["opening", "period", "opening"]

    def test_one_that_is_paused_may_be_cancelled_and_does_not_resume(self):
        world = make_world(now=at("2026-06-16 10:00"))
        world.use(10_000)
        pause(world)
        go_to(world, "2026-06-20 00:00")
        cancel(world, when="period_end")
        assert (world.subscription.ends_at, FeeItem.objects.filter(kind="credit").count()) == (world.now, 1)
        with pytest.raises(SubscriptionEnded):
            resume(world)
        world.use(500, time=at("2026-06-16 09:30"))
        go_to(world, "2026-07-22 00:00")
        assert invoices(world)[2:] == [("late", Decimal("0.10"))]


class TestReactivating:
    def test_within_the_grace_time_a_new_run_begins_on_the_same_version(self):
        world = make_world(now=at("2026-06-16 10:00"))
        cancel(world)
        go_to(world, "2026-07-16 10:00")
        reactivate(world)
        assert (world.subscription.ends_at, world.subscription.end_credit) == (None, "")
        assert periods(world)[1:] == [("07-16 10:00", "08-16 10:00", "regular")]
        assert invoices(world) == [("opening", 99), ("final", Decimal("-46.20")), ("opening", 99)]
        assert statuses(world.use(5, time=at("2026-07-01 00:00"))) == [("unmatched", "no_period")]

    def test_later_or_earlier_it_is_refused(self):
        world = make_world(now=at("2026-06-16 10:00"))
        with pytest.raises(SubscriptionNotEnded):
            reactivate(world)
        cancel(world, when="period_end")
        with pytest.raises(SubscriptionNotEnded):
            reactivate(world)
        go_to(world, "2026-07-31 00:00")
        advance(clock_id=world.clock.pk, to=world.now + MICROSECOND, actor=ACTOR)
        with pytest.raises(ReactivationTooLate):
            reactivate(world)

    def test_a_tenant_that_has_another_subscription_since_keeps_that(self):
        world = make_world(now=at("2026-06-16 10:00"))
        cancel(world)
        go_to(world, "2026-06-17 00:00")
        start_subscription(
            tenant=world.tenant,
            version=world.subscription.version,
            starts_at=world.now,
            anchor_at=world.now,
            now=world.now,
            actor=ACTOR,
        )
        with pytest.raises(AlreadySubscribed):
            reactivate(world)
        assert world.subscription.ends_at == at("2026-06-16 10:00")

    def test_one_that_ended_at_the_instant_of_its_start_is_taken_up_at_that_instant(self):
        world = make_world()
        cancel(world)
        reactivate(world)
        assert [one.starts_at - JUNE for one in world.subscription.periods.order_by("sequence")] == [
            timedelta(0),
            MICROSECOND,
        ]

    def test_one_that_was_paused_when_it_ended_runs_again(self):
        world = make_world()
        pause(world)
        cancel(world)
        go_to(world, "2026-06-20 00:00")
        reactivate(world)
        assert (world.subscription.paused_at, len(periods(world))) == (None, 2)


def test_a_pause_takes_the_allowance_and_what_it_lets_roll_over_with_it():
    rolling = publish("rolling", charges=[charge(rollover_max="5000")])
    world = make_world(version=rolling, now=at("2026-06-16 10:00"))
    pause(world)
    go_to(world, "2026-06-20 00:00")
    resume(world)
    world.use(10_001)
    assert world.position() == ("10001", "10000", "1")
