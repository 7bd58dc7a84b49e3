"""Trials in the admin: started with so many days, and moved to another end by staff."""

import pytest

from invoices.services.advancing import advance
from subscriptions.models import Subscription
from tests.api.test_admin import act, audited, confirm, page, signed_in
from tests.world import ACTOR, JUNE, at, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ann():
    make_meter()
    return signed_in()


def world_in_trial():
    return make_world(version=publish("trying", trial_days=14))


def test_a_trial_is_moved_and_ended_with_its_reason(ann):
    world = world_in_trial()
    pk = world.subscription.pk
    assert "Move the trial" in ann.get(page("subscriptions", "subscription", "change", pk)).content.decode()
    confirm(ann, "subscriptions", "subscription", "move_trial_end", pk, ends_at="2026-06-20T00:00:00", reason="asked")
    assert Subscription.objects.get(pk=pk).trial_ends_at == at("2026-06-20 00:00")
    assert audited("move_trial_end", "subscriptions.subscription").reason == "asked"
    advance(clock_id=world.clock.pk, to=at("2026-06-16 00:00"), actor=ACTOR)
    confirm(ann, "subscriptions", "subscription", "move_trial_end", pk, reason="")
    assert Subscription.objects.get(pk=pk).trial_ends_at == at("2026-06-16 00:00")
    assert world.subscription.periods.count() == 2


def test_where_there_is_no_trial_the_refusal_is_shown(ann):
    subscription = make_world().subscription
    shown = ann.get(page("subscriptions", "subscription", "change", subscription.pk)).content.decode()
    assert "Move the trial" not in shown
    refused = confirm(ann, "subscriptions", "subscription", "move_trial_end", subscription.pk, reason="")
    assert "in no trial" in refused
    assert "Empty: now" in act(ann, "subscriptions", "subscription", "move_trial_end", subscription.pk)


def test_a_subscription_is_started_with_the_days_that_staff_ask_for(ann):
    world = world_in_trial()
    given = {"code": "acme", "name": "A", "currency": "USD", "timezone": "UTC"}
    ann.post(page("subscriptions", "tenant", "add"), given)
    tenant = type(world.tenant).objects.get(code="acme")
    started = {
        "tenant": tenant.pk,
        "version": world.subscription.version.pk,
        "starts_at": "2026-06-01T00:00:00",
        "trial_days": 3,
    }
    ann.post(page("subscriptions", "subscription", "add"), started)
    subscription = Subscription.objects.get(tenant=tenant)
    assert (subscription.starts_at, subscription.trial_ends_at) == (JUNE, at("2026-06-04 00:00"))
