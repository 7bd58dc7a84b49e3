"""Taking events back: once, in their own segment, and after closing without making anything available again."""

from decimal import Decimal

import pytest

from metering.models import CreditGrant, UsageEvent
from metering.services.replaying import replay_events
from metering.services.reversing import EventNotCounted, EventReversed, reverse_event
from subscriptions.selectors.clock import wall_now
from subscriptions.services import tenants
from tests.world import ACTOR, at, make_world

pytestmark = pytest.mark.django_db


def test_an_event_is_taken_back_once():
    world = make_world()
    [outcome] = world.use(12_000).outcomes
    reverse_event(event_id=outcome.event_id, reason="a test call", actor=ACTOR)
    assert world.position() == ("0", "0", "0")
    with pytest.raises(EventReversed):
        reverse_event(event_id=outcome.event_id, reason="again", actor=ACTOR)


def test_taking_back_a_covered_event_covers_what_was_overage():
    world = make_world()
    [first] = world.use(9000).outcomes
    world.use(5000)
    assert world.position() == ("14000", "10000", "4000")
    reverse_event(event_id=first.event_id, reason="a test call", actor=ACTOR)
    assert world.position() == ("5000", "5000", "0")


def test_an_unmatched_event_has_nothing_to_take_back():
    world = make_world()
    [outcome] = world.use(None).outcomes
    with pytest.raises(EventNotCounted):
        reverse_event(event_id=outcome.event_id, reason="why", actor=ACTOR)


def test_after_closing_a_reversal_makes_nothing_available_again():
    from invoices.services.advancing import advance

    world = make_world(now=at("2026-06-20 00:00"))
    [outcome] = world.use(4000, time=at("2026-06-05 00:00")).outcomes
    advance(clock_id=world.clock.pk, to=at("2026-07-01 02:00"), actor=ACTOR)
    reverse_event(event_id=outcome.event_id, reason="late", actor=ACTOR)
    june = CreditGrant.objects.get(balance__period__sequence=1)
    assert (june.burned, june.expired, june.remaining) == (0, Decimal(10_000), 0)


def test_a_replay_counts_what_was_unmatched_and_counts_it_once():
    world = make_world()
    event = world.event(70, time=None)
    event.subject = "org_later"
    world.record(event)
    tenants.create_tenant(code="org_later", name="Later", actor=ACTOR)
    assert replay_events(now=wall_now()).counted == 0
    assert UsageEvent.objects.get().unmatched_code == "unknown_tenant"
