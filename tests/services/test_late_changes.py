"""A change that was scheduled for a date, and whose worker comes late: what is as if it had been in time, and what is not."""

from decimal import Decimal

import pytest

from invoices.models import Invoice
from invoices.services.advancing import advance
from invoices.services.changing import Asked, change_tier
from invoices.services.due import run_due
from subscriptions.models import TestClock, TierChange, TierVersion
from tests.world import ACTOR, JUNE, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db


@pytest.fixture
def world():
    make_meter()
    publish("scale", fee="499.00", charges=[charge(included="100000")])
    return make_world(version=publish("growth"))


def schedule(world, when, **choices):
    change_tier(
        subscription_id=world.subscription.pk,
        asked=Asked(to_version=TierVersion.objects.get(tier__code="scale"), when=at(when), choices=choices),
        now=world.now,
        actor=ACTOR,
        read=lambda change: None,
    )


def nobody_works_until(world, when):
    """Let time pass without a worker."""
    TestClock.objects.filter(pk=world.clock.pk).update(now=at(when))


def a_worker_comes(world):
    run_due(until=world.now, clock=TestClock.objects.get(pk=world.clock.pk))


def close_june(world):
    advance(clock_id=world.clock.pk, to=at("2026-07-20 00:00"), actor=ACTOR)
    return [(invoice.reason, invoice.total) for invoice in Invoice.objects.order_by("pk")]


def test_a_dated_change_is_carried_out_as_of_its_date(world):
    schedule(world, "2026-06-15 00:00")
    nobody_works_until(world, "2026-06-20 00:00")
    world.use(60_000)
    assert world.position() == ("60000", "10000", "50000")
    a_worker_comes(world)
    assert TierChange.objects.get().effective_at == at("2026-06-15 00:00")
    assert world.position() == ("60000", "58000", "2000")
    assert close_june(world) == [("opening", Decimal("99")), ("period", Decimal("712.73"))]


def test_also_when_the_period_has_ended_meanwhile(world):
    schedule(world, "2026-06-15 00:00")
    nobody_works_until(world, "2026-07-03 00:00")
    world.use(60_000, time=at("2026-06-20 00:00"))
    world.use(1)  # opens July
    a_worker_comes(world)
    assert TierChange.objects.get().effective_at == at("2026-06-15 00:00")
    assert close_june(world) == [("opening", Decimal("99")), ("period", Decimal("712.73"))]


def test_a_reset_leaves_usage_in_the_period_in_which_it_was_counted(world):
    schedule(world, "2026-06-15 00:00", allowance="reset")
    nobody_works_until(world, "2026-06-20 00:00")
    world.use(60_000)
    a_worker_comes(world)
    first, second = world.subscription.periods.order_by("sequence")
    assert first.ends_at == second.starts_at == at("2026-06-15 00:00")
    assert world.position() == ("0", "0", "0")
    assert close_june(world) == [("opening", Decimal("99")), ("period", Decimal("456.20")), ("period", Decimal("499"))]


def test_a_reset_comes_with_the_next_period_where_that_was_opened_meanwhile(world):
    schedule(world, "2026-06-15 00:00", allowance="reset")
    nobody_works_until(world, "2026-07-03 00:00")
    world.use(1)  # opens July
    a_worker_comes(world)
    assert TierChange.objects.get().effective_at == at("2026-07-01 00:00")
    assert [period.starts_at for period in world.subscription.periods.order_by("sequence")] == [
        JUNE,
        at("2026-07-01 00:00"),
    ]
