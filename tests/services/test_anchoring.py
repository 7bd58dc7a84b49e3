"""Moving the anchor, and undoing what is still to come: nothing happens before its time, and the figures are those of days."""

from datetime import timedelta
from decimal import Decimal

import pytest

from invoices.models import Invoice
from invoices.services.advancing import advance
from invoices.services.anchoring import CalendarAligned, move_anchor
from invoices.services.changing import Asked, change_tier
from invoices.services.pausing import pause_subscription
from invoices.services.subscribing import cancel_subscription
from invoices.services.undoing import SeveralToUndo, undo
from subscriptions.models import AuditEntry, FeeItem, OutboxMessage, ScheduledChange, TierChange
from subscriptions.services.agreement import (
    NothingToUndo,
    SubscriptionEnded,
    SubscriptionNotStarted,
    SubscriptionPaused,
)
from tests.world import ACTOR, JUNE, at, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def tokens(transactional_db):
    """Make the meter that every version here charges."""
    return make_meter()


def go_to(world, text):
    advance(clock_id=world.clock.pk, to=at(text), actor=ACTOR)


def on(world, service, **more):
    done = service(subscription_id=world.subscription.pk, now=world.now, actor=ACTOR, **more)
    world.subscription.refresh_from_db()
    return done


def change(world, version, when="period_end", **choices):
    asked = Asked(to_version=version, when=when, choices=choices)
    scheduled, _ = on(world, change_tier, asked=asked, read=lambda change: None)
    return scheduled


def invoices(world):
    return [
        (invoice.reason, invoice.subtotal) for invoice in Invoice.objects.filter(tenant=world.tenant).order_by("pk")
    ]


def periods(world):
    return [
        (f"{one.starts_at:%m-%d}", f"{one.ends_at:%m-%d}", one.kind)
        for one in world.subscription.periods.order_by("sequence")
    ]


class TestMovingTheAnchor:
    def test_the_next_period_is_a_stub_up_to_the_new_boundary_and_pays_for_its_days(self):
        world = make_world(now=at("2026-06-10 00:00"))
        on(world, move_anchor, anchor_at=at("2026-06-15 00:00"))
        assert periods(world) == [("06-01", "07-01", "regular")]
        go_to(world, "2026-07-15 02:00")
        assert periods(world)[1:] == [("07-01", "07-15", "stub"), ("07-15", "08-15", "regular")]
        # 14 of the 30 days from 15 June to 15 July.
        assert invoices(world) == [("opening", 99), ("period", Decimal("46.20")), ("period", 99)]
        assert not FeeItem.objects.filter(kind="credit").exists()
        [line] = Invoice.objects.filter(reason="period").first().lines.all()
        assert line.description.endswith("1 July 2026 – 14 July 2026 (14 of 30 days)")

    def test_a_day_that_not_every_month_has_is_clamped(self):
        world = make_world()
        on(world, move_anchor, anchor_at=at("2026-01-31 00:00"))
        go_to(world, "2026-10-01 00:00")
        assert [ends for _, ends, _ in periods(world)] == ["07-01", "07-31", "08-31", "09-30", "10-31"]

    def test_it_is_read_in_the_tenants_zone(self):
        world = make_world(timezone="America/New_York", starts_at=at("2026-06-01 04:00"))
        on(world, move_anchor, anchor_at=at("2026-06-15 04:00"))
        go_to(world, "2026-12-01 00:00")
        ends = [one.ends_at for one in world.subscription.periods.order_by("sequence")]
        assert (ends[1], ends[-1]) == (at("2026-07-15 04:00"), at("2026-12-15 05:00"))

    def test_a_running_yearly_fee_is_given_back_from_there_and_a_new_year_begins(self):
        world = make_world(version=publish("yearly", fee="3650.00", fee_every=12), now=at("2026-06-10 00:00"))
        on(world, move_anchor, anchor_at=at("2026-06-15 00:00"))
        assert FeeItem.objects.count() == 1
        go_to(world, "2026-07-01 02:00")
        # 335 of 365 days are left on 1 July; of the year from 15 June 349 days are to come.
        assert sorted(FeeItem.objects.values_list("kind", "share_numerator", "share_divisor", "amount")) == [
            ("credit", 335, 365, -3350),
            ("fee", 1, 1, 3650),
            ("fee", 349, 365, 3490),
        ]
        assert invoices(world) == [("opening", 3650), ("period", 140)]
        go_to(world, "2027-06-15 02:00")
        assert [one for one in invoices(world) if one[1]] == [("opening", 3650), ("period", 140), ("period", 3650)]

    def test_another_move_replaces_one_that_is_to_come(self):
        world = make_world()
        for day in (10, 20):
            on(world, move_anchor, anchor_at=JUNE + timedelta(days=day - 1))
        assert list(ScheduledChange.objects.order_by("pk").values_list("status", flat=True)) == ["undone", "scheduled"]
        go_to(world, "2026-07-01 02:00")
        assert periods(world)[1:] == [("07-01", "07-20", "stub")]

    @pytest.mark.parametrize("when", ["now", "period_end"])
    @pytest.mark.parametrize("order", ["before", "after"])
    def test_beside_a_change_of_tier_both_come_into_force(self, when, order):
        world = make_world(now=at("2026-06-10 00:00"))
        scale = publish("scale", fee="300.00")
        if order == "before":
            change(world, scale, when)
        on(world, move_anchor, anchor_at=at("2026-06-15 00:00"))
        if order == "after":
            change(world, scale, when)
        go_to(world, "2026-07-15 02:00")
        assert periods(world)[1:] == [("07-01", "07-15", "stub"), ("07-15", "08-15", "regular")]
        world.subscription.refresh_from_db()
        assert world.subscription.version_id == scale.pk
        assert invoices(world)[-1] == ("period", 300)
        fees = FeeItem.objects.filter(kind="fee").order_by("pk")
        assert [fee.amount for fee in fees] == [99, 140, 300]  # 300.00 × 14/30
        assert TierChange.objects.order_by("pk").last().to_version == scale

    def test_it_is_refused_where_no_boundary_is_to_come_or_the_calendar_sets_it(self):
        calendar = make_world(version=publish("calendar", alignment="calendar"))
        with pytest.raises(CalendarAligned):
            on(calendar, move_anchor, anchor_at=JUNE)
        later = make_world(starts_at=at("2026-06-10 00:00"), now=JUNE)
        with pytest.raises(SubscriptionNotStarted):
            on(later, move_anchor, anchor_at=JUNE)
        paused = make_world()
        on(paused, pause_subscription, credit="none")
        with pytest.raises(SubscriptionPaused):
            on(paused, move_anchor, anchor_at=JUNE)
        ending = make_world()
        on(ending, cancel_subscription, when="period_end", credit="none")
        with pytest.raises(SubscriptionEnded):
            on(ending, move_anchor, anchor_at=JUNE)
        assert not ScheduledChange.objects.exists()


class TestUndoing:
    def test_a_cancellation_at_the_periods_end_gives_back_nothing_before_and_nothing_when_undone(self):
        world = make_world(version=publish("yearly", fee="3650.00", fee_every=12), now=at("2026-06-10 00:00"))
        on(world, cancel_subscription, when="period_end", credit="unused")
        assert FeeItem.objects.count() == 1
        on(world, undo)
        assert (world.subscription.ends_at, world.subscription.due_at) == (None, at("2026-07-01 00:00"))
        go_to(world, "2026-07-10 00:00")
        assert invoices(world) == [("opening", 3650)]
        on(world, cancel_subscription, when="period_end", credit="unused")
        go_to(world, "2026-08-01 02:00")
        # 61 of 365 days are used.
        assert invoices(world) == [("opening", 3650), ("final", -3040)]

    def test_a_monthly_fee_goes_on_after_a_cancellation_that_was_undone(self):
        world = make_world(now=at("2026-06-10 00:00"))
        on(world, cancel_subscription, when="period_end", credit="unused")
        on(world, undo, change="cancel")
        go_to(world, "2026-08-01 02:00")
        assert invoices(world) == [("opening", 99), ("period", 99), ("period", 99)]

    def test_once_it_has_ended_it_is_too_late(self):
        world = make_world(now=at("2026-06-10 00:00"))
        on(world, cancel_subscription, when="period_end", credit="unused")
        go_to(world, "2026-07-01 00:00")
        with pytest.raises(NothingToUndo):
            on(world, undo)

    def test_a_cancellation_that_has_cut_a_period_is_not_undone(self):
        world = make_world()
        on(world, cancel_subscription, when="now", credit="unused")  # a microsecond ahead
        with pytest.raises(NothingToUndo):
            on(world, undo)

    def test_a_change_that_was_scheduled_never_comes(self):
        world = make_world(now=at("2026-06-10 00:00"))
        scale = publish("scale", fee="300.00")
        change(world, scale, at("2026-06-20 00:00"))
        on(world, undo)
        go_to(world, "2026-07-01 02:00")
        assert (ScheduledChange.objects.get().status, TierChange.objects.count()) == ("undone", 0)
        assert invoices(world) == [("opening", 99), ("period", 99)]

    def test_a_move_of_the_anchor_that_is_undone_leaves_the_boundaries(self):
        world = make_world()
        on(world, move_anchor, anchor_at=at("2026-06-15 00:00"))
        on(world, undo)
        go_to(world, "2026-07-01 02:00")
        assert periods(world)[1:] == [("07-01", "08-01", "regular")]

    def test_of_several_one_is_named_and_the_others_stay(self):
        world = make_world(now=at("2026-06-10 00:00"))
        scale = publish("scale", fee="300.00")
        scheduled = change(world, scale)
        on(world, move_anchor, anchor_at=at("2026-06-15 00:00"))
        on(world, cancel_subscription, when="period_end", credit="unused")
        with pytest.raises(SeveralToUndo, match=f"tier {scheduled.public_id}, anchor .*, cancel cancel"):
            on(world, undo)
        with pytest.raises(NothingToUndo):
            on(world, undo, change="nothing")
        on(world, undo, change="cancel")
        on(world, undo, change=str(scheduled.public_id))
        on(world, undo)
        with pytest.raises(NothingToUndo):
            on(world, undo)
        go_to(world, "2026-07-01 02:00")
        assert invoices(world) == [("opening", 99), ("period", 99)]

    def test_what_falls_due_at_that_instant_is_carried_out_first(self):
        world = make_world(now=at("2026-06-10 00:00"))
        change(world, publish("scale", fee="300.00"), at("2026-06-20 00:00"))
        world.clock.now = at("2026-06-20 00:00")
        world.clock.save()
        with pytest.raises(NothingToUndo):
            on(world, undo)

    def test_it_is_written_down_and_told(self):
        world = make_world()
        on(world, cancel_subscription, when="period_end", credit="unused")
        on(world, undo, reason="a slip")
        entry = AuditEntry.objects.get(action="undo")
        assert (entry.after, entry.reason) == ({"change": "cancel", "kind": "cancel"}, "a slip")
        assert OutboxMessage.objects.order_by("pk").last().type == "subscription.change_undone"
