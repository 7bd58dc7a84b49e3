"""Balances that rating must look closer at are read from one state of the books, whatever is recorded between two of the statements."""

from decimal import Decimal

import pytest
from django.db import connection

from invoices.services.advancing import advance
from invoices.services.changing import Asked, change_tier
from metering.selectors.balances import balances_of_tenants
from metering.services.checking import check
from subscriptions.selectors.clock import wall_now
from tests.races import together
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

FIRST = {"model": "per_unit", "unit_amount": "0.0002"}
SECOND = {
    "model": "graduated",
    "bands": [{"up_to": "300", "unit_amount": "0.001"}, {"up_to": None, "unit_amount": "0.002"}],
}


@pytest.fixture
def world():
    """A tenant whose tier has changed within the period, in overage on both sides of the change."""
    make_meter()
    first, second = (
        publish(code, charges=[charge(included="1000", price=price)])
        for code, price in [("first", FIRST), ("second", SECOND)]
    )
    world = make_world(version=first)
    world.use(1100)
    advance(clock_id=world.clock.pk, to=at("2026-06-10 00:00"), actor=ACTOR)
    change_tier(
        subscription_id=world.subscription.pk,
        asked=Asked(to_version=second, when="now", choices={"allowance": "full_new", "fee": "none"}),
        now=world.now,
        actor=ACTOR,
        read=lambda change: change,
    )
    world.use(100)
    return world


def read_while(world, words, tokens):
    """Return the tenant's balances as they are read while so many tokens are used just before the first statement with these words."""
    pending = [tokens]

    def use_before(execute, sql, *rest):
        if pending and words in sql:
            [report] = together(lambda: world.use(pending.pop()))
            assert report.outcomes[0].status == "accepted"
        return execute(sql, *rest)

    with connection.execute_wrapper(use_before):
        found = balances_of_tenants([world.tenant.code], wall=wall_now())[world.tenant.code]
    assert not pending
    return found


def test_what_comes_in_between_is_in_all_figures_or_in_none(world):
    [view] = read_while(world, "metering_ledgerentry", 500).views
    assert (view.used, view.overage, view.overage_amount_precise) == (1200, 200, Decimal("0.12"))
    [view] = balances_of_tenants([world.tenant.code], wall=wall_now())[world.tenant.code].views
    assert (view.used, view.overage, view.overage_amount_precise) == (1700, 700, Decimal("1.02"))


def test_a_call_is_priced_from_the_state_that_its_balance_was_read_from(world):
    found = balances_of_tenants([world.tenant.code], wall=wall_now())[world.tenant.code]
    [view] = found.views
    world.use(500)
    assert check(found, view, Decimal(10), ()).amount == Decimal("0.01")
