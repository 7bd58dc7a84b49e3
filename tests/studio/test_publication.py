"""A publication's own page: how long until it takes effect, how far it is, who, when and why; and taking it back."""

import re
from datetime import timedelta

import pytest
from django.urls import reverse

from invoices.services import publishing
from invoices.services.advancing import advance
from subscriptions.models import AuditEntry, Publication
from subscriptions.selectors.clock import wall_now
from subscriptions.services import approvals, catalog
from tests.staff import sign_in
from tests.world import ACTOR, at, charge, make_world

pytestmark = pytest.mark.django_db

FAR = at("2096-06-15")


@pytest.fixture
def world():
    return make_world(code="acme")


@pytest.fixture
def draft(world):
    document = {"currency": "USD", "fee": "120", "charges": [charge()]}
    return catalog.create_version(tier=world.subscription.version.tier, actor="staff:ann", document=document)


def published(draft, cohort="renewal", effective_at=FAR, **terms):
    now = wall_now()
    catalog.publish(version_id=draft.pk, now=now, actor="staff:ann", cohort=cohort, effective_at=effective_at, **terms)
    return Publication.objects.get(version=draft, cohort=cohort, undone_at=None)


def address(publication):
    return reverse("admin:studio_publication", args=[publication.pk])


def text(answer):
    body = answer.content.decode()
    return " ".join(re.sub(r"<[^>]+>", " ", body[body.index('class="publishing"') :]).split())


def test_it_says_who_when_and_why(draft):
    approvals.approve(
        version_id=draft.pk, expected_revision=1, now=wall_now() - timedelta(seconds=1), actor="staff:ben", note="Fine."
    )
    shown = text(sign_in("read-only").get(address(published(draft, reason="Costs rose."))))
    assert "By whom ann, on " in shown
    assert "Why Costs rose." in shown
    assert "Approved by ben: “Fine.”" in shown
    assert "From when on 15 June 2096, 00:00 UTC" in shown


def test_it_counts_down_and_follows_the_planning(draft):
    client, publication = sign_in("product"), published(draft)
    answer = client.get(address(publication))
    assert re.search(r"Takes effect in \d+ years", text(answer))
    assert 'data-moves="yes"' in answer.content.decode()
    assert "0 of 1 settled:" in text(answer)
    assert "1 still to be looked at" in text(answer)
    publishing.plan(now=wall_now())
    shown = text(client.get(address(publication)))
    assert "1 subscription – still to change" in shown
    assert "still to be looked at" not in shown


def test_a_day_ahead_is_a_day(draft):
    publication = published(draft, effective_at=wall_now() + timedelta(days=1, hours=2, minutes=1))
    assert "Takes effect in 1 day, 2 hours" in text(sign_in("product").get(address(publication)))


def test_what_is_done_is_done(draft, world):
    publication = published(draft, effective_at=at("2026-06-15"))
    publishing.plan(now=wall_now())
    advance(clock_id=world.clock.pk, to=at("2026-07-02"), actor=ACTOR)
    answer = sign_in("product").get(address(publication))
    assert "✓ In effect since 15 June 2026, 00:00 UTC" in text(answer)
    assert "1 of 1 settled:" in text(answer)
    assert 'data-moves="no"' in answer.content.decode()
    assert 'id="undo"' not in answer.content.decode()


def test_of_new_subscribers_there_is_no_progress(draft):
    publication = published(draft, cohort="new", effective_at=at("2026-06-15"))
    answer = sign_in("product").get(address(publication))
    assert "Nobody who has subscribed before is changed by it." in text(answer)
    assert 'data-moves="no"' in answer.content.decode()


def test_it_is_taken_back_and_published_again(draft):
    client, publication = sign_in("product", "ann"), published(draft)
    publishing.plan(now=wall_now())
    answer = client.post(address(publication), follow=True)
    assert "Taken back on " in text(answer)
    publishing.plan(now=wall_now())
    assert "1 subscription – keep their version, as this was taken back" in text(client.get(address(publication)))
    assert AuditEntry.objects.get(action="undo").actor == "staff:ann"
    publication.refresh_from_db()
    assert publication.undone_at is not None
    assert address(published(draft)) != address(publication)


def test_what_has_taken_effect_is_not_taken_back(draft):
    publication = published(draft, effective_at=at("2026-06-15"))
    answer = sign_in("product").post(address(publication), follow=True)
    assert "Not taken back." in answer.content.decode()
    publication.refresh_from_db()
    assert publication.undone_at is None


@pytest.mark.parametrize("role", ["finance", "support", "read-only"])
def test_others_look_and_take_nothing_back(role, draft):
    client, publication = sign_in(role), published(draft)
    page = client.get(address(publication))
    assert (page.status_code, 'id="undo"' in page.content.decode()) == (200, False)
    assert client.post(address(publication)).status_code == 403
    publication.refresh_from_db()
    assert publication.undone_at is None


def test_who_may_not_look_at_prices_is_refused(draft):
    assert sign_in(None).get(address(published(draft))).status_code == 403
