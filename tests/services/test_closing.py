"""Closing: once, whole or not at all, the same invoice whoever runs it and whenever; and what comes after it."""

from datetime import timedelta
from decimal import Decimal

import pytest

from invoices.models import Invoice, InvoiceLine
from invoices.services import invoicing
from invoices.services.advancing import advance
from invoices.services.closing import PeriodStillOpen, bill_late_usage, book_balance, close_period, preview_closing
from invoices.services.subscribing import cancel_subscription
from metering.models import OverageCharge
from metering.services.reversing import reverse_event
from subscriptions.models import OutboxMessage, Subscription
from tests.races import together
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

CLOSES = at("2026-07-01 01:00")


@pytest.fixture(autouse=True)
def tokens(transactional_db):
    """Make the meter that every version here charges."""
    return make_meter()


def invoices(world):
    return list(Invoice.objects.filter(tenant=world.tenant).order_by("pk"))


def figures(world):
    """Return every invoice as plain values, without ids and the moments of their making."""
    return [
        (
            invoice.reason,
            invoice.status,
            invoice.subtotal,
            invoice.amount_due,
            [
                (line.kind, line.description, line.quantity, line.amount, line.amount_precise, line.components)
                for line in invoice.lines.all()
            ],
        )
        for invoice in invoices(world)
    ]


def first_period(world):
    return world.subscription.periods.get(sequence=1)


def world_with_overage(**terms):
    world = make_world(now=at("2026-06-20 00:00"), **terms)
    world.use(12_345, time=at("2026-06-05 00:00"))
    return world


class TestOnce:
    def test_a_period_is_open_until_its_grace_has_passed(self):
        world = world_with_overage()
        with pytest.raises(PeriodStillOpen):
            close_period(period_id=first_period(world).pk, now=CLOSES - timedelta(microseconds=1))
        assert len(invoices(world)) == 1
        assert first_period(world).closed_at is None

    def test_closing_bills_the_overage_and_the_next_fee_and_waits_for_late_usage(self):
        world = world_with_overage()
        invoice = close_period(period_id=first_period(world).pk, now=CLOSES)
        assert (invoice.reason, invoice.total, invoice.printed_number) == ("period", Decimal("99.47"), "TEST-000002")
        assert [line.description for line in invoice.lines.all()] == [
            f"{world.subscription.version.tier.name}, 1 July 2026 – 31 July 2026",
            "tokens beyond the 10,000 included, 1 June 2026 – 30 June 2026",
        ]
        period = first_period(world)
        assert (period.closed_at, period.due_at) == (CLOSES, at("2026-08-05 00:00"))
        assert world.subscription.periods.count() == 2

    def test_closing_again_returns_the_same_invoice_and_writes_nothing(self):
        world = world_with_overage()
        first = close_period(period_id=first_period(world).pk, now=CLOSES)
        before = (figures(world), OverageCharge.objects.count(), OutboxMessage.objects.count())
        again = close_period(period_id=first_period(world).pk, now=CLOSES + timedelta(days=3))
        assert again.pk == first.pk
        assert (figures(world), OverageCharge.objects.count(), OutboxMessage.objects.count()) == before

    def test_four_workers_at_once_make_one_invoice(self):
        world = world_with_overage()
        period_id = first_period(world).pk
        results = together(*[lambda: close_period(period_id=period_id, now=CLOSES)] * 4)
        assert len({invoice.pk for invoice in results}) == 1
        assert [invoice.printed_number for invoice in invoices(world)] == ["TEST-000001", "TEST-000002"]

    def test_closing_while_a_draft_is_finalised_gives_two_numbers_and_bills_each_thing_once(self):
        world = world_with_overage()
        opening = invoices(world)[0]
        invoicing.void(invoice_id=opening.pk, now=world.now, actor=ACTOR, reason="test")
        manual = invoicing.draft_unbilled(subscription_id=world.subscription.pk, now=world.now, actor=ACTOR)
        period_id = first_period(world).pk
        together(
            lambda: close_period(period_id=period_id, now=CLOSES),
            lambda: invoicing.finalize(invoice_id=manual.pk, now=CLOSES, actor=ACTOR),
        )
        assert sorted(invoice.number for invoice in invoices(world)) == [1, 2, 3]
        live = [invoice for invoice in invoices(world) if invoice.status != "void"]
        assert sum(invoice.total for invoice in live) == Decimal("198.47")

    def test_usage_recorded_while_the_period_closes_is_billed_exactly_once(self):
        world = world_with_overage()
        period_id = first_period(world).pk

        def late():
            return [world.use(1000, time=at("2026-06-19 23:00")).outcomes[0].status for _ in range(20)]

        statuses, _ = together(late, lambda: close_period(period_id=period_id, now=CLOSES))
        assert statuses == ["accepted"] * 20
        advance(clock_id=world.clock.pk, to=at("2026-08-01 02:00"), actor=ACTOR)
        june = InvoiceLine.objects.filter(period_id=period_id, kind="overage")
        assert sum(line.quantity for line in june) == 22_345
        assert sum(line.amount for line in june) == Decimal("4.47")

    def test_a_free_period_without_overage_closes_without_an_invoice(self):
        world = make_world(version=publish("free", fee="0"), now=at("2026-06-20 00:00"))
        assert close_period(period_id=first_period(world).pk, now=CLOSES) is None
        assert close_period(period_id=first_period(world).pk, now=CLOSES) is None
        assert first_period(world).closed_at == CLOSES
        assert invoices(world) == []


class TestWheneverItRuns:
    def test_three_months_closed_late_and_in_disorder_give_the_invoices_that_would_have_been_made_in_time(self):
        in_time, late = world_with_overage(), world_with_overage()
        version_name = late.subscription.version.tier.name
        advance(clock_id=in_time.clock.pk, to=at("2026-09-01 01:00"), actor=ACTOR)

        now = at("2026-09-01 01:00")
        close_period(period_id=first_period(late).pk, now=now)
        for sequence in (3, 2):
            close_period(period_id=late.subscription.periods.get(sequence=sequence).pk, now=now)

        expected = repr(figures(in_time)).replace(in_time.subscription.version.tier.name, version_name)
        assert repr(figures(late)) == expected
        assert len(invoices(late)) == 4

    def test_the_preview_is_the_invoice_and_leaves_no_trace(self):
        world = world_with_overage()
        before = (figures(world), OverageCharge.objects.count(), world.subscription.periods.count())

        def read(invoice):
            return invoice.reason, invoice.total, [line.amount for line in invoice.lines.all()]

        previewed = preview_closing(period_id=first_period(world).pk, now=world.now, read=read)
        assert (figures(world), OverageCharge.objects.count(), world.subscription.periods.count()) == before
        assert previewed == ("period", Decimal("99.47"), [Decimal("99.00"), Decimal("0.47")])
        assert read(close_period(period_id=first_period(world).pk, now=CLOSES)) == previewed


class TestWhatTheInvoiceSays:
    def test_a_minimum_spend_is_topped_up_on_the_last_line_and_once(self):
        price = {"model": "per_unit", "unit_amount": "0.0002", "amount_min": "5"}
        world = world_with_overage(version=publish("minimum", charges=[charge(price=price)]))
        invoice = close_period(period_id=first_period(world).pk, now=CLOSES)
        assert [(line.kind, line.amount) for line in invoice.lines.all()] == [
            ("fee", 99),
            ("overage", Decimal("0.47")),
            ("minimum", Decimal("4.53")),
        ]

    def test_a_fee_in_arrears_is_billed_by_the_closing_of_its_own_period(self):
        world = world_with_overage(version=publish("arrears", fee_timing="arrears"))
        assert invoices(world) == []
        invoice = close_period(period_id=first_period(world).pk, now=CLOSES)
        fee = invoice.lines.get(kind="fee")
        assert fee.period == first_period(world)
        assert "1 June 2026 – 30 June 2026" in fee.description

    def test_a_yearly_fee_on_monthly_periods_is_billed_once_a_year(self):
        world = make_world(version=publish("yearly", fee="1188.00", fee_every=12), now=at("2026-06-20 00:00"))
        advance(clock_id=world.clock.pk, to=at("2027-06-01 02:00"), actor=ACTOR)
        assert [(invoice.reason, invoice.total) for invoice in invoices(world)] == [("opening", 1188), ("period", 1188)]

    def test_yen_are_billed_without_decimals(self):
        price = {"model": "per_unit", "unit_amount": "0.3"}
        version = publish("yen", currency="JPY", fee="499", charges=[charge(price=price)])
        world = make_world(version=version, currency="JPY", now=at("2026-06-20 00:00"))
        world.use(10_005, time=at("2026-06-05 00:00"))
        invoice = close_period(period_id=first_period(world).pk, now=CLOSES)
        assert (invoice.currency, invoice.total) == ("JPY", 501)  # 5 × 0.3 = 1.5, half up


class TestAfterTheEnd:
    def cancelled(self, *, credit="none"):
        world = world_with_overage()
        cancel_subscription(
            subscription_id=world.subscription.pk, when="now", credit=credit, now=world.now, actor=ACTOR
        )
        advance(clock_id=world.clock.pk, to=at("2026-06-20 02:00"), actor=ACTOR)
        return world

    def test_the_last_period_closes_with_a_final_invoice(self):
        world = self.cancelled()
        final = invoices(world)[-1]
        assert (final.reason, final.total) == ("final", Decimal("0.47"))
        assert Subscription.objects.get(pk=world.subscription.pk).due_at is None

    def test_late_usage_is_billed_once_when_the_window_has_passed(self):
        world = self.cancelled()
        world.use(500, time=at("2026-06-06 00:00"))
        advance(clock_id=world.clock.pk, to=at("2026-07-01 00:00"), actor=ACTOR)
        world.use(500, time=at("2026-06-07 00:00"))
        advance(clock_id=world.clock.pk, to=at("2026-07-24 23:59"), actor=ACTOR)
        assert [invoice.reason for invoice in invoices(world)] == ["opening", "final"]
        advance(clock_id=world.clock.pk, to=at("2026-07-25 00:00"), actor=ACTOR)
        late = invoices(world)[-1]
        assert (late.reason, late.sequence, late.total) == ("late", 1, Decimal("0.20"))
        assert first_period(world).due_at is None
        assert bill_late_usage(period_id=first_period(world).pk, now=at("2026-08-25 00:00")) is None

    def test_a_voided_final_invoice_is_billed_again_at_once_and_late_usage_still_later(self):
        world = self.cancelled()
        invoicing.void(invoice_id=invoices(world)[-1].pk, now=world.now, actor=ACTOR, reason="wrong address")
        advance(clock_id=world.clock.pk, to=at("2026-06-20 03:00"), actor=ACTOR)
        again = invoices(world)[-1]
        assert (again.reason, again.total) == ("late", Decimal("0.47"))
        world.use(500, time=at("2026-06-06 00:00"))
        advance(clock_id=world.clock.pk, to=at("2026-07-25 00:00"), actor=ACTOR)
        assert [(one.reason, one.sequence, one.total) for one in invoices(world)[-2:]] == [
            ("late", 1, Decimal("0.47")),
            ("late", 2, Decimal("0.10")),
        ]

    def test_usage_taken_back_after_everything_becomes_the_tenants_credit(self):
        world = world_with_overage()
        taken_back = world.use(1000, time=at("2026-06-06 00:00")).outcomes[0].event_id
        cancel_subscription(
            subscription_id=world.subscription.pk, when="now", credit="none", now=world.now, actor=ACTOR
        )
        advance(clock_id=world.clock.pk, to=at("2026-08-01 00:00"), actor=ACTOR)
        assert first_period(world).due_at is None

        reverse_event(event_id=taken_back, reason="test", actor=ACTOR)
        advance(clock_id=world.clock.pk, to=at("2026-08-01 02:00"), actor=ACTOR)
        late = invoices(world)[-1]
        assert (late.reason, late.subtotal, late.total, late.status) == ("late", Decimal("-0.20"), 0, "paid")
        assert [(entry.kind, entry.amount) for entry in late.credit_entries.all()] == [("surplus", Decimal("0.20"))]

    def test_a_look_at_a_period_that_is_not_closed_is_refused(self):
        world = world_with_overage()
        with pytest.raises(PeriodStillOpen):
            bill_late_usage(period_id=first_period(world).pk, now=world.now)

    def test_booking_an_open_balance_arms_nothing(self):
        world = world_with_overage()
        book_balance(balance_id=world.balance().pk, now=world.now)
        assert book_balance(balance_id=world.balance().pk, now=world.now) == []
        assert first_period(world).due_at == CLOSES
