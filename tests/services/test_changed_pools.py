"""After a change within a period its balances are shown on the terms that are in force now."""

from decimal import Decimal

import pytest

from invoices.services.advancing import advance
from invoices.services.changing import NOW, Asked, change_tier
from metering.selectors.balances import balances_of_tenants
from metering.services.checking import check_call
from metering.services.requests import Authorize
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


def test_pools_that_are_new_limits_that_are_new_and_what_overage_costs_by_each_version():
    make_meter()
    make_meter("calls", aggregation="count", value_property=None)
    world = make_world(version=publish("open", charges=[charge(included="100")]))
    strict = publish("strict", charges=[charge(included="100", at_limit="deny"), charge(meter="calls", included="5")])
    world.use(600)
    advance(clock_id=world.clock.pk, to=at("2026-06-11 00:00"), actor=ACTOR)
    asked = Asked(to_version=strict, when=NOW, choices={})
    change_tier(
        subscription_id=world.subscription.pk, asked=asked, now=world.now, actor=ACTOR, read=lambda change: None
    )
    calls, tokens = balances_of_tenants([world.tenant.code], wall=world.now)[world.tenant.code].views
    assert (calls.meter, calls.pool.included, calls.overage_amount_precise) == ("calls", 5, 0)
    assert (tokens.pool.at_limit, tokens.overage_amount_precise) == ("deny", Decimal("0.1"))
    call = Authorize(world.tenant.code, "tokens", Decimal(1), "unused", {}, 300, world.now)
    assert check_call(call).decision.decision == "deny"
    assert {balance.meter for balance in world.use(7).balances} == {"calls", "tokens"}
