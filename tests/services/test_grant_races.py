"""Grants, voids, usage, reversals and a closing at once: nothing is burned twice, and nothing is lost. The fixture audits the books."""

from datetime import timedelta

import pytest

from invoices.services.closing import close_periods
from metering.models import CreditGrant, MeterBalance
from metering.services.grants import grant_credit, void_grant
from metering.services.reversing import reverse_event
from subscriptions.models import BillingPeriod, Tenant
from tests.races import together
from tests.services.test_grants import give, move, terms, void
from tests.services.test_remembered_placements import JULY, MIDDLE, WallWorld
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


def test_everything_at_once_over_a_boundary():
    make_meter()
    world = make_world(version=publish(charges=[charge(included="100", rollover_max="50")]))
    june, july = at("2026-06-20 00:00"), at("2026-07-01 00:20")
    shared, doomed = give(world, 700), give(world, 300, priority=1)
    move(world, "2026-07-01 00:30")
    [first] = world.use(20, time=june).outcomes
    now = at("2026-07-01 02:00")
    period = BillingPeriod.objects.get(sequence=1)

    def use(time, number):
        return lambda: [world.use(10, time=time).outcomes[0].status for _ in range(number)]

    results = together(
        use(june, 8),
        use(july, 8),
        use(july, 8),
        lambda: grant_credit(
            tenant=world.tenant, terms=terms(200, since=june - timedelta(days=1)), now=world.now, actor=ACTOR
        ),
        lambda: void_grant(grant=doomed, reason="why", now=world.now, actor=ACTOR),
        lambda: reverse_event(event_id=first.event_id, reason="why", actor=ACTOR),
        lambda: close_periods(period_ids=[period.pk], now=now),
    )
    refused = [result for result in results if isinstance(result, Exception)]
    # The top-up may find June closed already; all else goes through.
    assert len(refused) <= 1
    assert all(type(error).__name__ == "InvalidGrant" for error in refused), refused
    used = [int(one.used) for one in MeterBalance.objects.order_by("period__sequence")]
    assert used == [80, 160]
    assert CreditGrant.objects.get(pk=shared.pk).remaining >= 0


def test_two_that_give_the_same_key_at_once_give_it_once():
    world = make_world(now=at("2026-06-10 00:00"))
    results = together(*[lambda: give(world, 500, key="once")] * 4)
    assert len({grant.pk for grant in results}) == 1


def test_a_remembered_placement_finds_out_that_a_grant_has_come_and_gone():
    world = WallWorld()
    owner = Tenant.objects.get(pk=world.tenant.pk)
    wanted = terms(1000, since=MIDDLE, until=JULY + timedelta(days=10))
    grant, _ = grant_credit(tenant=owner, terms=wanted, now=MIDDLE, actor=ACTOR)
    assert world.use(300, now=MIDDLE + timedelta(days=1)) == ("accepted", "")
    assert world.use(200, now=JULY + timedelta(minutes=5)) == ("accepted", "")
    # Late, while June waits for its grace: 900 of the grant are June's now, and July falls back on 100 of its allowance.
    assert world.use(10_500, now=JULY + timedelta(minutes=6), time=MIDDLE + timedelta(days=2)) == ("accepted", "")
    assert [(int(one.used), int(one.covered)) for one in balances(world)] == [(10_900, 10_900), (200, 200)]
    grant.refresh_from_db()
    assert grant.burned == 1000
    burned = CreditGrant.objects.filter(kind="allowance").order_by("effective_at").values_list("burned", flat=True)
    assert list(burned) == [10_000, 100]


def balances(world):
    return MeterBalance.objects.filter(tenant=world.tenant).order_by("period__starts_at")


def test_a_void_while_usage_comes_in_leaves_what_was_burned_before_it():
    make_meter()
    world = make_world(version=publish(charges=[charge(included="0")]), now=at("2026-06-10 00:00"))
    grant = give(world, 1000)
    earlier = world.now
    move(world, "2026-06-10 01:00")
    together(
        lambda: [world.use(10, time=earlier) for _ in range(10)],
        lambda: [world.use(10) for _ in range(10)],
        lambda: void(world, grant),
    )
    assert world.position() == ("200", "100", "100")
