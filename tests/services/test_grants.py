"""Grants beyond the allowance: given for a time, burned in order, cut into what was counted already, taken back."""

from decimal import Decimal

import pytest

from metering.services.grants import GrantTerms, grant_credit
from subscriptions.models import Meter
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db


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


def left(grant):
    grant.refresh_from_db()
    return grant.remaining


def without_allowance(**terms):
    make_meter()
    return publish(charges=[charge(included="0")], **terms)


class TestInOnePeriod:
    def test_usage_burns_the_allowance_first_and_then_a_grant_that_never_expires(self):
        world = make_world(now=at("2026-06-10 00:00"))
        grant = give(world, 500)
        report = world.use(10_200)
        assert world.position() == ("10200", "10200", "0")
        assert left(grant) == 300
        [view] = report.balances
        assert (view.included, view.remaining) == (10_500, 300)

    def test_a_grant_that_expires_sooner_burns_before_the_allowance(self):
        world = make_world(now=at("2026-06-10 00:00"))
        grant = give(world, 500, until=at("2026-06-20 00:00"))
        world.use(400)
        assert left(grant) == 100

    def test_two_grants_that_overlap_cover_an_early_event_that_comes_late(self):
        world = make_world(version=without_allowance(), now=at("2026-06-01 00:00"))
        first = give(world, 100, until=at("2026-06-22 00:00"))
        second = give(world, 100, since=at("2026-06-15 00:00"), until=at("2026-06-25 00:00"))
        move(world, "2026-06-21 00:00")
        world.use(100, time=at("2026-06-20 00:00"))
        assert (left(first), left(second)) == (0, 100)
        world.use(100, time=at("2026-06-05 00:00"))
        assert world.position() == ("200", "200", "0")
        assert (left(first), left(second)) == (0, 0)


def move(world, to):
    from invoices.services.advancing import advance

    advance(clock_id=world.clock.pk, to=at(to), actor=ACTOR)
