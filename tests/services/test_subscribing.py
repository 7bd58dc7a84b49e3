"""Starting and cancelling: the opening invoice, credits for what is unused, and what happens at boundaries."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import transaction

from invoices.models import Invoice
from invoices.selectors.verifying import verify
from invoices.services import opening
from invoices.services.advancing import advance
from invoices.services.invoicing import lock_subscription
from invoices.services.subscribing import cancel_subscription, start_subscription
from metering.services.opening import open_due_periods
from subscriptions.models import AuditEntry, FeeItem, Subscription
from subscriptions.services.agreement import (
    AlreadySubscribed,
    CurrencyMismatch,
    StartsTooEarly,
    SubscriptionEnded,
    SubscriptionNotStarted,
)
from tests.races import together
from tests.world import ACTOR, JUNE, at, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def tokens(transactional_db):
    """Make the meter that every version here charges."""
    return make_meter()


def invoices(world):
    return list(Invoice.objects.filter(tenant=world.tenant).order_by("pk"))


def cancel(world, when="now", credit="unused"):
    return cancel_subscription(
        subscription_id=world.subscription.pk, when=when, credit=credit, now=world.now, actor=ACTOR
    )


def start(world, **terms):
    given = {"starts_at": world.now, "anchor_at": world.now, "now": world.now, "actor": ACTOR}
    return start_subscription(tenant=world.tenant, version=world.subscription.version, **(given | terms))


class TestStarting:
    def test_the_first_fee_is_billed_at_once(self):
        world = make_world()
        [opening] = invoices(world)
        assert (opening.reason, opening.status, opening.total) == ("opening", "open", 99)
        assert world.subscription.due_at == at("2026-07-01 00:00")
        assert AuditEntry.objects.filter(action="start", object_id=str(world.subscription.public_id)).exists()

    def test_a_later_start_is_carried_out_when_it_falls_due(self):
        world = make_world(starts_at=at("2026-06-10 00:00"), now=JUNE)
        assert (invoices(world), world.subscription.periods.count()) == ([], 0)
        advance(clock_id=world.clock.pk, to=at("2026-06-10 00:00"), actor=ACTOR)
        [opening] = invoices(world)
        assert (opening.reason, opening.finalized_at) == ("opening", at("2026-06-10 00:00"))

    def test_the_opening_invoice_is_made_whoever_opened_the_period(self):
        world = make_world(starts_at=at("2026-06-10 00:00"), now=JUNE)
        open_due_periods(subscription_id=world.subscription.pk, now=at("2026-06-10 00:00"))  # as ingestion does
        assert invoices(world) == []
        advance(clock_id=world.clock.pk, to=at("2026-06-10 00:00"), actor=ACTOR)
        assert [invoice.reason for invoice in invoices(world)] == ["opening"]
        assert Subscription.objects.get(pk=world.subscription.pk).due_at == at("2026-07-10 00:00")

    def test_a_start_in_the_past_opens_every_period_and_bills_them_in_order(self):
        world = make_world(starts_at=JUNE, now=at("2026-08-15 00:00"))
        assert [invoice.reason for invoice in invoices(world)] == ["opening"]
        assert world.subscription.periods.count() == 3
        advance(clock_id=world.clock.pk, to=at("2026-08-15 00:00"), actor=ACTOR)
        assert [(one.reason, one.total) for one in invoices(world)] == [("opening", 99), ("period", 99), ("period", 99)]

    def test_a_fee_in_arrears_and_a_free_tier_have_no_opening_invoice(self):
        for version in (publish("arrears", fee_timing="arrears"), publish("free", fee="0")):
            world = make_world(version=version)
            assert invoices(world) == []
            assert Subscription.objects.get(pk=world.subscription.pk).due_at == at("2026-07-01 00:00")

    def test_a_calendar_stub_pays_for_its_days(self):
        world = make_world(version=publish("calendar", alignment="calendar"), starts_at=at("2026-06-15 00:00"))
        [opening] = invoices(world)
        [line] = opening.lines.all()
        assert (line.amount, line.components[0]["numerator"], line.components[0]["divisor"]) == (
            Decimal("52.80"),
            16,
            30,
        )
        assert line.description.endswith("15 June 2026 – 30 June 2026 (16 of 30 days)")

    def test_refusals_leave_nothing(self):
        world = make_world()
        count = Subscription.objects.count()
        with pytest.raises(AlreadySubscribed):
            start(world)
        with pytest.raises(StartsTooEarly):
            start(world, starts_at=world.now - timedelta(days=4000))
        with pytest.raises(CurrencyMismatch):
            start_subscription(
                tenant=world.tenant,
                version=publish("euro", currency="EUR"),
                starts_at=world.now,
                anchor_at=world.now,
                now=world.now,
                actor=ACTOR,
            )
        assert (Subscription.objects.count(), len(invoices(world))) == (count, 1)

    def test_of_two_starts_at_once_one_is_made_and_billed(self):
        world = make_world()
        cancel(world)
        advance(clock_id=world.clock.pk, to=at("2026-06-02 00:00"), actor=ACTOR)
        results = together(*[lambda: start(world)] * 2)
        assert sorted(type(result).__name__ for result in results) == ["AlreadySubscribed", "Subscription"]
        assert [invoice.reason for invoice in invoices(world)] == ["opening", "final", "opening"]

    def test_a_start_whose_invoice_fails_has_not_happened(self, monkeypatch):
        def break_down(*_, **__):
            raise RuntimeError("the power fails")

        world = make_world()
        cancel(world)
        advance(clock_id=world.clock.pk, to=at("2026-06-02 00:00"), actor=ACTOR)
        monkeypatch.setattr(opening, "finalize_all", break_down)
        with pytest.raises(RuntimeError):
            start(world)
        assert Subscription.objects.filter(tenant=world.tenant).count() == 1


class TestCancelling:
    def test_the_unused_days_are_given_back_on_the_final_invoice(self):
        world = make_world(now=at("2026-06-16 10:00"))
        cancel(world)
        advance(clock_id=world.clock.pk, to=at("2026-06-16 12:00"), actor=ACTOR)
        final = invoices(world)[-1]
        [line] = final.lines.all()
        # 16 June counts as used: 14 of 30 days.
        assert (line.kind, line.amount) == ("proration", Decimal("-46.20"))
        assert "credit for unused time" in line.description

    def test_without_credit_nothing_is_given_back(self):
        world = make_world(now=at("2026-06-16 10:00"))
        cancel(world, credit="none")
        advance(clock_id=world.clock.pk, to=at("2026-06-16 12:00"), actor=ACTOR)
        assert [invoice.reason for invoice in invoices(world)] == ["opening"]
        assert world.subscription.periods.get().closed_at == at("2026-06-16 11:00")

    def test_at_the_periods_end_it_runs_on_and_bills_no_further_fee(self):
        world = make_world(now=at("2026-06-16 10:00"))
        cancel(world, when="period_end")
        world.use(10_500, time=at("2026-06-16 09:00"))
        advance(clock_id=world.clock.pk, to=at("2026-07-05 00:00"), actor=ACTOR)
        assert [(one.reason, one.total) for one in invoices(world)] == [("opening", 99), ("final", Decimal("0.10"))]
        assert world.subscription.periods.count() == 1

    def test_an_end_is_brought_forward_and_never_put_off(self):
        world = make_world(now=at("2026-06-16 10:00"))
        cancel(world, when="period_end")
        with pytest.raises(SubscriptionEnded):
            cancel(world, when="period_end")
        assert cancel(world).ends_at == at("2026-06-16 10:00")
        with pytest.raises(SubscriptionEnded):
            cancel(world)

    @pytest.mark.parametrize("boundary", ["2026-06-01 00:00", "2026-07-01 00:00"])
    def test_an_end_at_the_instant_of_a_start_is_final_too(self, boundary):
        """It lies a microsecond ahead, and asking again at the same instant neither moves it nor gives credit."""
        world = make_world()
        advance(clock_id=world.clock.pk, to=at(boundary), actor=ACTOR)
        ended = cancel(world, credit="none").ends_at
        for when in ("now", "period_end"):
            with pytest.raises(SubscriptionEnded):
                cancel(world, when=when)
        world.subscription.refresh_from_db()
        assert world.subscription.ends_at == ended
        assert not FeeItem.objects.filter(kind="credit").exists()

    def test_before_the_start_there_is_nothing_to_end(self):
        world = make_world(starts_at=at("2026-06-10 00:00"), now=JUNE)
        with pytest.raises(SubscriptionNotStarted):
            cancel(world)

    def test_at_the_very_boundary_the_new_period_is_given_back_but_for_its_first_day(self):
        world = make_world()
        advance(clock_id=world.clock.pk, to=at("2026-07-01 00:00"), actor=ACTOR)
        cancel(world)
        advance(clock_id=world.clock.pk, to=at("2026-07-01 03:00"), actor=ACTOR)
        assert [(one.reason, one.subtotal) for one in invoices(world)] == [
            ("opening", 99),
            ("period", 99),
            ("final", Decimal("-95.81")),  # 30 of 31 days
        ]

    def test_within_the_grace_both_periods_close_and_each_thing_is_billed_once(self):
        world = make_world()
        advance(clock_id=world.clock.pk, to=at("2026-07-01 00:30"), actor=ACTOR)
        world.use(10_500, time=at("2026-06-30 09:00"))
        cancel(world)
        advance(clock_id=world.clock.pk, to=at("2026-07-01 03:00"), actor=ACTOR)
        assert [(one.reason, one.subtotal) for one in invoices(world)] == [
            ("opening", 99),
            ("period", Decimal("99.10")),
            ("final", Decimal("-95.81")),
        ]

    def test_a_yearly_fee_is_given_back_for_the_rest_of_its_year(self):
        world = make_world(version=publish("yearly", fee="3650.00", fee_every=12), now=at("2026-06-30 10:00"))
        cancel(world)
        advance(clock_id=world.clock.pk, to=at("2026-06-30 12:00"), actor=ACTOR)
        assert invoices(world)[-1].subtotal == Decimal("-3350.00")  # 335 of 365 days

    def test_a_yearly_fee_is_given_back_from_the_end_of_a_month_on(self):
        world = make_world(version=publish("yearly", fee="3650.00", fee_every=12), now=at("2026-06-10 10:00"))
        cancel(world, when="period_end")
        assert not FeeItem.objects.filter(kind="credit").exists()  # until the end has come it may be undone
        advance(clock_id=world.clock.pk, to=at("2026-07-01 02:00"), actor=ACTOR)
        credit = FeeItem.objects.get(kind="credit")
        # June is used, all 30 days of it, and no day of July: 335 of 365 days are left.
        assert (credit.share_numerator, credit.share_divisor, credit.amount) == (335, 365, -3350)
        assert invoices(world)[-1].subtotal == -3350

    def test_what_happens_before_the_end_does_not_let_it_forget_what_to_give_back(self):
        world = make_world(version=publish("yearly", fee="3650.00", fee_every=12), now=at("2026-06-10 10:00"))
        cancel(world, when="period_end")
        with transaction.atomic():
            opening.open_due(subscriptions=[lock_subscription(world.subscription.pk)], now=world.now)
        advance(clock_id=world.clock.pk, to=at("2026-07-01 02:00"), actor=ACTOR)
        assert [item.amount for item in FeeItem.objects.filter(kind="credit")] == [-3350]

    def test_an_end_that_is_brought_forward_gives_back_more(self):
        world = make_world(version=publish("yearly", fee="3650.00", fee_every=12), now=at("2026-06-10 10:00"))
        cancel(world, when="period_end")
        cancel(world)
        # Brought forward into the 10th, which counts as used: 355 of 365 days.
        assert [item.amount for item in FeeItem.objects.filter(kind="credit").order_by("pk")] == [-3550]

    def test_a_fee_in_arrears_is_billed_for_the_days_that_were_used(self):
        world = make_world(version=publish("arrears", fee_timing="arrears"), now=at("2026-06-15 10:00"))
        cancel(world)
        advance(clock_id=world.clock.pk, to=at("2026-06-15 12:00"), actor=ACTOR)
        [final] = invoices(world)
        [line] = final.lines.all()
        # 15 June counts as used. What was never billed is not given back, but billed for less.
        assert (line.kind, line.amount) == ("fee", Decimal("49.50"))
        assert line.description == "Arrears, 1 June 2026 00:00 – 15 June 2026 10:00 (15 of 30 days)"
        assert verify(final) == []

    def test_of_two_cancellations_at_once_one_gives_credit(self):
        world = make_world(now=at("2026-06-16 10:00"))
        results = together(*[lambda: cancel(world)] * 2)
        assert sorted(type(result).__name__ for result in results) == ["Subscription", "SubscriptionEnded"]
        assert FeeItem.objects.filter(kind="credit").count() == 1

    def test_it_is_written_down_who_cancelled_and_how(self):
        world = make_world(now=at("2026-06-16 10:00"))
        cancel(world)
        entry = AuditEntry.objects.get(action="cancel")
        assert (entry.before, entry.after["credit"]) == ({"ends_at": None}, "unused")


def test_opening_what_is_due_again_changes_nothing():
    world = make_world()
    with transaction.atomic():
        assert opening.open_due(subscriptions=[lock_subscription(world.subscription.pk)], now=world.now) == []
    assert len(invoices(world)) == 1
