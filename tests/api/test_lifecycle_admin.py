"""The staff's actions on a subscription's life: each asks first, calls one service, and reports a refusal with its row."""

import pytest

from subscriptions.models import FeeItem
from tests.api.test_admin import act, ann, audited, confirm, page
from tests.world import at, make_world

pytestmark = pytest.mark.django_db

__all__ = ["ann"]


def do(client, world, action, **answers):
    return confirm(client, "subscriptions", "subscription", action, world.subscription.pk, reason="asked", **answers)


def shown(client, world):
    return client.get(page("subscriptions", "subscription", "change", world.subscription.pk)).content.decode()


def test_it_is_paused_and_resumed_for_a_reason(ann):
    world = make_world(now=at("2026-06-16 10:00"))
    do(ann, world, "pause", credit="none")
    world.subscription.refresh_from_db()
    assert world.subscription.paused_at == at("2026-06-16 10:00")
    assert not FeeItem.objects.filter(kind="credit").exists()
    assert audited("pause", "subscriptions.subscription").reason == "asked"
    assert "is paused since" in do(ann, world, "pause", credit="none")
    do(ann, world, "resume")
    world.subscription.refresh_from_db()
    assert world.subscription.paused_at is None
    assert audited("resume", "subscriptions.subscription").actor == "staff:ann"


def test_what_has_ended_is_reactivated(ann):
    world = make_world(now=at("2026-06-16 10:00"))
    do(ann, world, "cancel", when="now", credit="unused")
    do(ann, world, "reactivate")
    world.subscription.refresh_from_db()
    assert (world.subscription.ends_at, world.subscription.periods.count()) == (None, 2)


def test_what_is_to_come_is_shown_and_undone(ann):
    world = make_world(now=at("2026-06-16 10:00"))
    assert "nothing is to come" in shown(ann, world)
    do(ann, world, "move_anchor", anchor_at="2026-06-15T00:00:00")
    do(ann, world, "cancel", when="period_end", credit="unused")
    for text in (shown(ann, world), act(ann, "subscriptions", "subscription", "undo", world.subscription.pk)):
        assert "it ends at 2026-07-01 00:00:00 UTC (cancel)" in text
        assert "its anchor moves to 2026-06-15 00:00:00 UTC" in text
    assert "Name which is to be undone" in do(ann, world, "undo", change="")
    do(ann, world, "undo", change="cancel")
    assert "Undone: 1" in do(ann, world, "undo", change="")
    assert "nothing is to come" in shown(ann, world)


def test_a_row_offers_what_its_state_allows(ann):
    world = make_world(now=at("2026-06-16 10:00"))

    def offered():
        names = ("cancel", "pause", "resume", "reactivate", "move_anchor", "undo")
        return [name for name in names if f'value="{name}"' in shown(ann, world)]

    assert offered() == ["cancel", "pause", "move_anchor"]
    do(ann, world, "pause", credit="unused")
    assert offered() == ["cancel", "resume"]
    do(ann, world, "cancel", when="now", credit="unused")
    assert offered() == ["reactivate"]
