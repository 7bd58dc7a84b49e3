"""A change that resets ends the period: the unused fee goes back, and the new one is charged in full."""

from decimal import Decimal

import pytest

from invoices.services.advancing import advance
from invoices.services.changing import NOW, Asked, change_tier
from subscriptions.models import FeeItem
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_reset_soon_after_a_period_began_charges_the_new_fee_in_full():
    make_meter()
    world, big = make_world(), publish("big", fee="499.00", charges=[charge(included="100000")])
    advance(clock_id=world.clock.pk, to=at("2026-06-05 00:00"), actor=ACTOR)
    asked = Asked(to_version=big, when=NOW, choices={"allowance": "reset"})
    change_tier(
        subscription_id=world.subscription.pk, asked=asked, now=world.now, actor=ACTOR, read=lambda change: None
    )
    fee, credit = FeeItem.objects.filter(span_starts_at=world.now).order_by("-amount")
    assert (fee.kind, fee.amount, fee.span_ends_at) == ("fee", 499, at("2026-07-05 00:00"))
    assert (credit.kind, credit.amount) == ("credit", Decimal("-85.80"))  # 26 of 30 days of 99
