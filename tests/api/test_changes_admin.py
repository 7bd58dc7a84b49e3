"""The staff's way to another tier: asked, shown what it will do, done; and the statement of it."""

import pytest
from django.urls import reverse

from invoices.services.advancing import advance
from subscriptions.models import AuditEntry, ScheduledChange, TierChange, TierVersion
from tests.api.test_admin import signed_in
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

LIST = reverse("admin:subscriptions_subscription_changelist")


@pytest.fixture
def world():
    """A tenant on $99 a month in the middle of June; there is a tier of $499."""
    make_meter()
    publish("scale", fee="499.00", charges=[charge(included="100000")])
    world = make_world(version=publish("growth"), code="acme")
    advance(clock_id=world.clock.pk, to=at("2026-06-15 00:00"), actor=ACTOR)
    return world


def answer(client, world, **answers):
    form = {
        "action": "change_tier",
        "_selected_action": world.subscription.pk,
        "confirmed": "yes",
        "version": TierVersion.objects.get(tier__code="scale").pk,
        "when": "now",
    }
    return client.post(LIST, form | answers, follow=True)


def confirm(client, world, **answers):
    """Answer, and then confirm what the page says that it will do."""
    asked = answer(client, world, **answers)
    return answer(client, world, **answers, seen=asked.context["form"]["seen"].value())


def test_it_shows_what_a_change_will_do_and_does_it_when_that_was_seen(world):
    client = signed_in(group="finance")
    asked = answer(client, world)
    assert "Of the fee of Scale 266.13 USD is charged, for 16 of 30 days." in asked.content.decode()
    seen = asked.context["form"]["seen"].value()
    other = answer(client, world, fee="none", seen=seen)  # what was seen was another change
    assert "No fee is given back or charged for it." in other.content.decode()
    assert TierChange.objects.count() == 0
    assert "The change is made" in answer(client, world, seen=seen).content.decode()
    change = TierChange.objects.get()
    assert AuditEntry.objects.get(action="change").actor == "staff:ann"
    statement = client.get(reverse("admin:subscriptions_tierchange_change", args=[change.pk])).content.decode()
    for words in ("The allowance of tokens goes from 10,000 to 58,000", "16 of 30 days", "213.33 USD", "the next one"):
        assert words in statement


def test_what_is_scheduled_is_listed_and_undone(world):
    client = signed_in(group="finance")
    confirm(client, world, when="period_end")
    page = reverse("admin:subscriptions_scheduledchange_changelist")
    assert "with the first period from" in client.get(page).content.decode()
    scheduled = ScheduledChange.objects.get()
    client.post(page, {"action": "undo", "_selected_action": scheduled.pk})
    scheduled.refresh_from_db()
    assert scheduled.status == "undone"
    assert client.get(reverse("admin:subscriptions_scheduledchange_change", args=[scheduled.pk])).status_code == 200


def test_a_refusal_is_told_and_who_may_only_look_is_not_asked(world):
    client = signed_in(group="finance")
    same = TierVersion.objects.get(tier__code="growth").pk
    assert "would begin it anew" in answer(client, world, version=same).content.decode()
    assert "Say at which date." in answer(client, world, when="date").content.decode()
    asked = answer(client, world)
    reader = signed_in("rita", group="read-only")
    answer(reader, world, seen=asked.context["form"]["seen"].value())
    assert TierChange.objects.count() == 0
