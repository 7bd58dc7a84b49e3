"""Publishing in the studio: who may, what is shown before, and what keeps a version back."""

import re
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from subscriptions.models import Approval, AuditEntry, Publication
from subscriptions.selectors.clock import wall_now
from subscriptions.services import catalog, guards
from tests.staff import sign_in
from tests.world import charge, make_world

pytestmark = pytest.mark.django_db

BESIDE_PRODUCT = ["finance", "support", "read-only"]


@pytest.fixture
def world():
    return make_world(code="acme")


@pytest.fixture
def draft(world):
    tier = world.subscription.version.tier
    document = {"currency": "USD", "fee": "120", "charges": [charge()]}
    return catalog.create_version(tier=tier, actor="staff:ann", document=document)


@pytest.fixture
def ann():
    return sign_in("product", "ann")


@pytest.fixture
def ben():
    return sign_in("product", "ben")


def address(draft, name="publish"):
    return reverse(f"admin:studio_{name}", args=[draft.pk])


def text(answer):
    """Return a page as it reads, without its markup."""
    body = answer.content.decode()
    return " ".join(re.sub(r"<[^>]+>", " ", body[body.index("publishing") :]).split())


def send(client, draft, step="publish", **answers):
    data = {"cohort": "renewal", "effective_at": "", "reason": "", "revision": draft.revision, step: "yes"} | answers
    return client.post(address(draft), data)


def approve(client, draft, **answers):
    data = {"revision": draft.revision, "note": ""} | answers
    return text(client.post(address(draft, "approve"), data, follow=True))


def break_a_guard(draft):
    guards.set_guards(tier_id=draft.tier_id, limits={"rise_percent_max": Decimal(20)}, actor="system")
    now = wall_now() - timedelta(seconds=1)
    guards.record_verdict(
        draft.pk, draft.revision, Decimal(25), Decimal(1), "backtest 01a20ac5-aa3d-7732-836f-8d9f97606084", now
    )


def test_the_page_says_what_changes_and_for_whom(ann, draft):
    shown = text(ann.get(address(draft)))
    assert "Fee: $99.00 → $120.00 every month" in shown
    assert "Whoever has subscribed before keeps the version that they have." in shown
    # The tenant lives in June, on its clock: the period that it is in ends long before now.
    assert "1 subscription – change with the first period that begins from now on." in shown
    assert "! Please look at: " in shown
    assert "Nobody else has to approve" in shown


def test_a_date_is_tried_before_it_is_meant(ann, draft):
    answer = send(ann, draft, "preview", effective_at="2096-06-15T00:00:00")
    shown = text(answer)
    assert answer.status_code == 200
    assert "Whoever subscribes from 15 June 2096, 00:00 UTC on gets this version." in shown
    assert "Org (acme) 1 July 2096, 00:00 UTC" in shown
    assert not Publication.objects.filter(version=draft).exists()


def test_it_is_published_for_a_date_with_a_reason(ann, draft):
    answer = send(ann, draft, effective_at="2096-06-15T00:00:00", reason="Costs rose.")
    publication = Publication.objects.get(version=draft)
    assert answer.headers["Location"] == reverse("admin:studio_publication", args=[publication.pk])
    assert (publication.cohort, publication.reason, publication.published_by) == ("renewal", "Costs rose.", "staff:ann")
    assert AuditEntry.objects.get(action="publish", actor="staff:ann").reason == "Costs rose."


def test_a_published_version_is_published_to_others_and_not_twice_to_the_same(ann, draft):
    send(ann, draft, cohort="new")
    assert "(published already)" in text(ann.get(address(draft)))
    refused = send(ann, draft, cohort="new")
    assert (refused.status_code, "✗ Not published." in text(refused)) == (409, True)
    assert send(ann, draft, cohort="renewal").status_code == 302


def test_what_was_saved_meanwhile_is_not_published(ann, draft):
    document = {"currency": "USD", "fee": "130", "charges": [charge()]}
    saved = catalog.save_draft(
        version_id=draft.pk, document=document, expected_revision=draft.revision, actor="staff:ben"
    )
    refused = send(ann, draft)
    assert (refused.status_code, "saved meanwhile" in text(refused)) == (412, True)
    # Now it has been seen.
    assert f'name="revision" value="{saved.revision}"' in refused.content.decode()
    assert "Fee: $99.00 → $130.00 every month" in text(refused)


@pytest.mark.parametrize("wrong", [{"cohort": "everybody"}, {"effective_at": "tomorrow"}, {"reason": "x" * 1001}])
def test_what_is_not_understood_is_asked_again(ann, draft, wrong):
    assert send(ann, draft, **wrong).status_code == 422
    assert not Publication.objects.filter(version=draft).exists()


def test_a_draft_that_must_be_mended_is_not_published(ann, world):
    price = {"model": "volume", "bands": [{"up_to": "10", "unit_amount": "1"}, {"unit_amount": "0"}]}
    draft = catalog.create_version(
        tier=world.subscription.version.tier,
        actor="staff:ann",
        document={"currency": "USD", "charges": [charge(price=price)]},
    )
    assert "✗ Must be mended:" in text(ann.get(address(draft)))
    assert send(ann, draft).status_code == 422


def test_a_broken_guard_is_shown_and_blocks_until_somebody_else_approves(ann, ben, draft):
    break_a_guard(draft)
    shown = text(ann.get(address(draft)))
    assert "✗ Broken: A customer would pay 25 % more; more than 20 % is not meant to be." in shown
    assert "The customer whose bill rises most pays 25 % more; revenue rises by 1 %. Found by a backtest" in shown
    assert "You saved it last, so you cannot approve it yourself." in shown
    assert "Approve this version" not in shown
    refused = send(ann, draft)
    assert (refused.status_code, "Somebody else has to approve" in text(refused)) == (409, True)
    assert "rise_percent_max" not in text(refused)
    assert "Approve this version" in text(ben.get(address(draft)))
    assert "✓ Approved by ben" in approve(ben, draft, note="Fine.")
    assert send(ben, draft).status_code == 409
    assert send(ann, draft).status_code == 302


def test_a_guard_without_a_backtest_says_what_is_missing(ann, draft):
    guards.set_guards(tier_id=draft.tier_id, limits={"rise_percent_max": Decimal(20)}, actor="system")
    assert "✗ Missing: a backtest of this version as it is now." in text(ann.get(address(draft)))
    assert send(ann, draft).status_code == 409


def test_an_approval_before_the_guard_broke_is_shown_as_void(ann, ben, draft):
    approve(ben, draft)
    guards.set_guards(tier_id=draft.tier_id, limits={"rise_percent_max": Decimal(20)}, actor="system")
    guards.record_verdict(
        draft.pk, draft.revision, Decimal(25), None, "backtest 01a20ac5-aa3d-7732-836f-8d9f97606084", wall_now()
    )
    shown = text(ann.get(address(draft)))
    assert "an approval in knowledge of the guard that a backtest has found broken since" in shown
    assert "– Approved by ben" in shown


def test_four_eyes_as_a_setting(ann, ben, draft, settings):
    settings.PUBLISHING_NEEDS_APPROVAL = True
    assert "somebody else has to approve this version as it is now" in text(ann.get(address(draft)))
    assert send(ann, draft).status_code == 409
    approve(ben, draft)
    seen_by_ben = text(ben.get(address(draft)))
    assert "You have approved it: somebody else than you has to publish it" in seen_by_ben
    assert "Approve this version" not in seen_by_ben
    assert "✓ Somebody else has approved it." in text(ann.get(address(draft)))
    assert send(ann, draft).status_code == 302


def test_nobody_approves_their_own_even_by_hand(ann, draft):
    assert "Not approved" in ann.post(address(draft, "approve"), {"revision": 1}, follow=True).content.decode()
    assert not Approval.objects.exists()


def test_what_was_saved_meanwhile_is_not_approved(ben, draft):
    page = ben.post(address(draft, "approve"), {"revision": draft.revision + 1}, follow=True).content.decode()
    assert "Not approved" in page
    page = ben.post(address(draft, "approve"), {"note": "x"}, follow=True).content.decode()
    assert "Not approved" in page
    assert not Approval.objects.exists()


@pytest.mark.parametrize("role", BESIDE_PRODUCT)
def test_others_look_and_do_not_publish(role, draft):
    client = sign_in(role, "cat")
    page = client.get(address(draft))
    assert page.status_code == 200
    assert 'name="publish"' not in page.content.decode()
    assert send(client, draft, "preview").status_code == 200
    assert send(client, draft).status_code == 403
    assert not Publication.objects.filter(version=draft).exists()


@pytest.mark.parametrize(("role", "status"), [("product", 302), ("finance", 302), ("support", 403), ("read-only", 403)])
def test_who_may_approve(role, status, draft):
    client = sign_in(role, "cat")
    assert client.post(address(draft, "approve"), {"revision": draft.revision}).status_code == status
    assert Approval.objects.exists() == (status == 302)
    assert AuditEntry.objects.filter(action="approve", actor="staff:cat").exists() == (status == 302)


def test_looking_does_not_approve(ben, draft):
    assert ben.get(address(draft, "approve")).status_code == 405


def test_who_may_not_look_at_prices_is_refused(draft):
    client = sign_in(None, "eve")
    assert client.get(address(draft)).status_code == 403
    assert client.post(address(draft, "approve")).status_code == 403


def test_as_many_queries_for_many_subscriptions_as_for_few(ann, draft):

    def queries():
        with CaptureQueriesContext(connection) as captured:
            send(ann, draft, "preview", effective_at="2096-06-15T00:00:00")
        return len(captured)

    few = queries()
    for _ in range(5):
        make_world(version=draft.tier.versions.get(number=1))
    assert queries() == few
