"""Rollover: what is left of an allowance moves into the next period, once, when its own closes."""

import pytest

from invoices.services.advancing import advance
from invoices.services.closing import close_periods
from invoices.services.subscribing import cancel_subscription
from metering.models import CreditGrant
from subscriptions.models import BillingPeriod
from tests.services.test_grants import entries, figures, give, move, of_period
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db


def rolling(most, *, periods=1, included="100", **terms):
    make_meter()
    return publish(
        charges=[charge(included=included, rollover_max=str(most), rollover_periods=periods)],
        **({"grace_hours": 48} | terms),
    )


def rolled(sequence=1):
    return CreditGrant.objects.get(kind="rollover", rolled_from__balance__period__sequence=sequence)


@pytest.mark.parametrize(("used", "moved", "expired"), [(10, 50, 40), (60, 40, 0), (100, 0, 0), (120, 0, 0)])
def test_up_to_the_maximum_moves_and_the_rest_expires(used, moved, expired):
    # The first is OpenMeter's "om-reset-max": min(50, max(0, 90)) = 50.
    world = make_world(version=rolling(50), now=at("2026-06-10 00:00"))
    world.use(used)
    move(world, "2026-07-03 01:00")
    allowance = CreditGrant.objects.get(kind="allowance", balance__period__sequence=1)
    assert figures(allowance) == (min(used, 100), expired, 0, moved, 0)
    assert sum(quantity for _, quantity in entries("rollover")) == moved
    assert [int(grant.quantity) for grant in CreditGrant.objects.filter(kind="rollover")] == ([moved] if moved else [])


def test_rolled_units_burn_first_also_what_was_used_before_the_closing():
    world = make_world(version=rolling(50), now=at("2026-06-10 00:00"))
    move(world, "2026-07-02 00:00")
    world.use(70)
    july = CreditGrant.objects.get(kind="allowance", balance__period__sequence=2)
    assert figures(july)[0] == 70
    move(world, "2026-07-03 01:00")
    assert (figures(rolled())[0], figures(july)[0]) == (50, 20)
    [view] = world.use(0).balances
    assert (view.included, view.remaining) == (150, 80)


def test_what_rolled_over_expires_with_the_next_period_and_never_rolls_again():
    world = make_world(version=rolling(50), now=at("2026-06-10 00:00"))
    move(world, "2026-08-03 01:00")
    assert figures(rolled(1)) == (0, 50, 0, 0, 0)
    assert rolled(2).quantity == 50
    assert rolled(1).expires_at == at("2026-08-01 00:00")


def test_late_usage_of_a_closed_period_takes_nothing_back():
    world = make_world(version=rolling(50), now=at("2026-06-10 00:00"))
    move(world, "2026-07-04 00:00")
    world.use(30, time=at("2026-06-12 00:00"))
    assert of_period(world, 1) == (30, 0)
    assert figures(rolled()) == (0, 0, 0, 0, 50)


def test_for_two_periods_it_burns_before_the_allowance_of_each():
    world = make_world(version=rolling(50, periods=2), now=at("2026-06-10 00:00"))
    move(world, "2026-07-04 00:00")
    assert rolled().expires_at == at("2026-09-01 00:00")
    world.use(20)
    july = CreditGrant.objects.get(kind="allowance", balance__period__sequence=2)
    assert (figures(rolled())[0], figures(july)[0]) == (20, 0)
    move(world, "2026-08-04 00:00")
    world.use(40)
    assert (figures(rolled(1))[0], figures(rolled(2))[0]) == (50, 10)
    move(world, "2026-09-04 00:00")
    assert figures(rolled(1)) == (50, 0, 0, 0, 0)
    assert figures(rolled(2)) == (10, 0, 0, 0, 40)


def test_two_periods_that_close_at_once_roll_one_into_the_other():
    world = make_world(version=rolling(50), now=at("2026-06-10 00:00"))
    world.use(10)
    BillingPeriod.objects.filter(tenant=world.tenant).update(due_at=None)  # nobody closes it in time
    move(world, "2026-07-05 00:00")
    world.use(120, time=at("2026-07-04 00:00"))
    assert of_period(world, 2) == (120, 100)
    BillingPeriod.objects.filter(tenant=world.tenant).update(due_at=None)
    move(world, "2026-08-05 00:00")
    ids = list(BillingPeriod.objects.filter(sequence__lte=2).values_list("pk", flat=True))
    close_periods(period_ids=ids, now=world.now)
    assert of_period(world, 2) == (120, 120)
    assert figures(rolled(1)) == (50, 0, 0, 0, 0)
    assert rolled(2).quantity == 30


def test_what_lasts_reaches_every_period_that_is_open_by_then():
    world = make_world(version=rolling(50, periods=3), now=at("2026-06-10 00:00"))
    keep_open(world)
    move(world, "2026-08-05 00:00")
    world.use(120)
    period = BillingPeriod.objects.get(sequence=1)
    close_periods(period_ids=[period.pk], now=world.now)
    assert rolled(1).expires_at == at("2026-10-01 00:00")
    # What June left burns first in August, too: 50, and 70 of its own 100.
    assert of_period(world, 3) == (120, 120)
    assert figures(rolled(1))[0] == 50
    keep_open(world)


def keep_open(world):
    BillingPeriod.objects.filter(tenant=world.tenant, closed_at=None).update(due_at=None)  # nobody closes it in time


def test_nothing_rolls_out_of_a_last_period():
    world = make_world(version=rolling(50), now=at("2026-06-10 00:00"))
    cancel_subscription(
        subscription_id=world.subscription.pk, when="period_end", credit="none", now=world.now, actor=ACTOR
    )
    move(world, "2026-07-04 00:00")
    assert not CreditGrant.objects.filter(kind="rollover").exists()
    assert figures(CreditGrant.objects.get()) == (0, 100, 0, 0, 0)


@pytest.mark.parametrize("periods", [1, 3])
def test_what_rolled_over_ends_with_a_cancelled_subscription(periods):
    world = make_world(version=rolling(50, periods=periods), now=at("2026-06-10 00:00"))
    move(world, "2026-07-04 00:00")
    paid = give(world, 500, kind="purchased")
    cancel_subscription(subscription_id=world.subscription.pk, when="now", credit="none", now=world.now, actor=ACTOR)
    assert rolled().expires_at == world.now
    move(world, "2026-07-07 00:00")
    assert figures(rolled()) == (0, 50, 0, 0, 0)
    assert figures(paid) == (0, 0, 0, 0, 500)


def test_a_preview_of_closing_moves_nothing():
    from invoices.services.closing import preview_closing

    world = make_world(version=rolling(50), now=at("2026-06-10 00:00"))
    advance(clock_id=world.clock.pk, to=at("2026-07-01 01:00"), actor=ACTOR)
    period = BillingPeriod.objects.get(sequence=1)
    preview_closing(period_id=period.pk, now=world.now, read=lambda invoice: None)
    assert not CreditGrant.objects.filter(kind="rollover").exists()
