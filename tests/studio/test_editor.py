"""The page of a version: the editor of a draft, what it asks while one types, and a published version in words."""

import json
from datetime import timedelta

import pytest
from django.test import Client

from subscriptions.models import AuditEntry, TierVersion
from subscriptions.selectors.catalog import editable_document, get_version_by_id
from subscriptions.selectors.clock import wall_now
from subscriptions.services import catalog
from tests.staff import sign_in
from tests.world import ACTOR, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

BANDS = [
    {"up_to": "1000", "unit_amount": "0.01", "flat_amount": "0"},
    {"up_to": None, "unit_amount": "0.009", "flat_amount": "0"},
]
CLIFF = {"model": "volume", "bands": BANDS}
# Every member that a document can have, so that what is lost on the way shows.
WHOLE = {
    "currency": "USD",
    "interval": "quarter",
    "interval_count": 2,
    "alignment": "calendar",
    "fee": "99.00",
    "fee_timing": "arrears",
    "fee_every": 3,
    "grace_hours": 0,
    "trial_days": 14,
    "trial_end": "pause",
    "trial_overage": "bill",
    "change": {"fee": "full", "grain": "second", "allowance": "reset", "bill": "now"},
    "charges": [
        charge(
            trial_included="500",
            rollover_max="100",
            rollover_periods=3,
            dimensions={},
            at_limit="degrade",
            overage_quantity_max="5000000",
            limits=[{"quantity": "1000", "window": "P1DT12H"}],
            thresholds=[{"percent": 80}, {"amount": "50", "once": "life"}],
            price=CLIFF | {"transform": {"op": "divide", "by": "1000", "round": "up"}, "amount_max": "900"},
        ),
        charge(
            included=None,
            trial_included=None,
            dimensions={"model": "opus", "direction": "input"},
            price={"model": "per_unit", "unit_amount": "0.001"},
        ),
        {"kind": "licensed", "code": "seats", "unit_amount": "10.00", "included": "3"},
    ],
    "features": {"max_projects": 123456789012345678, "sso": True, "support": "phone"},
}


@pytest.fixture
def draft() -> TierVersion:
    make_meter(dimensions=["model", "direction"], unit="token")
    tier = catalog.create_tier(code="growth", name="Growth", actor=ACTOR)
    return catalog.create_version(tier=tier, actor=ACTOR, document=WHOLE)


def address(version, *more):
    return "/".join(["/admin/studio/versions", str(version.pk), *more, ""])


def state_of(answer):
    """Return what the page gives its script."""
    text = answer.content.decode().split('<script id="editor-state" type="application/json">')[1]
    return json.loads(text.split("</script>")[0])


def typed(state):
    """Return the document as the script posts it when nothing was typed."""
    features = {
        one["code"]: int(one["value"]) if one["kind"] == "number" else one["value"] for one in state["features"]
    }
    return state["document"] | {"features": features}


def post(client, version, document, *, revision=None, follow=False):
    sent = {"document": json.dumps(document), "revision": version.revision if revision is None else revision}
    return client.post(address(version), sent, follow=follow)


def ask(client, version, document):
    answer = client.post(address(version, "check"), json.dumps({"document": document}), content_type="application/json")
    assert answer.status_code == 200
    return answer.json()


def test_a_document_that_is_posted_back_as_it_was_shown_is_the_same_to_the_last_member(draft):
    client = sign_in("product")
    before = editable_document(get_version_by_id(draft.pk))
    answer = post(client, draft, typed(state_of(client.get(address(draft)))))

    assert answer.headers["Location"] == address(draft)
    assert editable_document(get_version_by_id(draft.pk)) == before
    assert before["features"]["max_projects"] == 123456789012345678


def test_a_save_is_audited_with_what_changed_and_who_did_it(draft):
    post(sign_in("product"), draft, WHOLE | {"fee": "109"})
    entry = AuditEntry.objects.get(action="save_draft")

    assert (entry.actor, entry.before, entry.after) == ("staff:ann", {"fee": "99.00"}, {"fee": "109.00"})


def test_what_is_wrong_is_told_with_its_place_in_plain_words_and_nothing_typed_is_lost(draft):
    document = WHOLE | {"fee": "9,9", "charges": [charge(price={"model": "per_unit"}), charge(meter="nothing")]}
    answer = post(sign_in("product"), draft, document)
    state = state_of(answer)

    assert answer.status_code == 422
    assert state["faults"] == [
        {"path": "fee", "message": "Write a number, such as 0.0002 or 1,000."},
        {"path": "charges.0.price.unit_amount", "message": "Fill this in."},
        {"path": "charges.1.meter", "message": "There is no meter nothing."},
    ]
    assert state["document"]["fee"] == "9,9"
    assert TierVersion.objects.get().revision == draft.revision


def test_a_stale_form_is_answered_with_both_versions_and_overwrites_nothing(draft):
    ann, bob = sign_in("product"), sign_in("product", "bob")
    post(bob, draft, WHOLE | {"fee": "119"})
    answer = post(ann, draft, WHOLE | {"fee": "109"})
    page = answer.content.decode()

    assert answer.status_code == 412
    assert TierVersion.objects.get().fee == 119
    assert "Last saved by bob" in page
    assert "$119.00 every" in page
    assert "$109.00 every" in page
    assert page.count(">differs<") == 1
    assert state_of(answer)["document"]["fee"] == "109"
    # Who has seen both may replace what is stored.
    assert 'name="revision" value="2"' in page
    post(ann, draft, WHOLE | {"fee": "109"}, revision=2)
    assert TierVersion.objects.get().fee == 109


def test_a_stale_form_with_faults_shows_what_is_stored_and_the_faults(draft):
    client = sign_in("product")
    post(client, draft, WHOLE | {"fee": "119"})
    answer = post(client, draft, WHOLE | {"fee": "x"})

    assert answer.status_code == 412
    assert "$119.00 every" in answer.content.decode()
    assert [fault["path"] for fault in state_of(answer)["faults"]] == ["fee"]


@pytest.mark.parametrize("revision", ["", "x", "9" * 30, "-1"])
def test_a_form_without_the_revision_that_was_read_saves_nothing(draft, revision):
    assert post(sign_in("product"), draft, WHOLE | {"fee": "1"}, revision=revision).status_code == 412
    assert TierVersion.objects.get().fee == 99


@pytest.mark.parametrize("body", ["", "[]", "{", '{"fee": 1, "fee": 2}', '"x"'])
def test_what_is_no_document_is_refused_and_the_stored_one_shown(draft, body):
    answer = sign_in("product").post(address(draft), {"document": body, "revision": draft.revision})

    assert 400 <= answer.status_code < 500
    assert state_of(answer)["document"]["fee"] == "99.00"


def test_what_was_published_meanwhile_is_not_changed(draft):
    catalog.save_draft(version_id=draft.pk, document={"currency": "USD"}, expected_revision=1, actor=ACTOR)
    catalog.publish(version_id=draft.pk, now=wall_now(), actor=ACTOR)
    page = sign_in("product").post(address(draft), {"document": "{}", "revision": 2}, follow=True).content.decode()

    assert "was published meanwhile" in page
    assert "What you typed was not saved." in page
    assert "This version is published and final." in page
    assert TierVersion.objects.get().is_published


def test_what_was_typed_while_it_was_published_is_kept_in_a_new_draft(draft):
    catalog.save_draft(version_id=draft.pk, document={"currency": "USD"}, expected_revision=1, actor=ACTOR)
    catalog.publish(version_id=draft.pk, now=wall_now(), actor=ACTOR)
    answer = post(sign_in("product"), draft, WHOLE | {"fee": "119"}, revision=2, follow=True)

    assert "What you typed is kept in this draft, version 2." in answer.content.decode()
    assert state_of(answer)["document"]["fee"] == "119.00"
    final, kept = TierVersion.objects.order_by("number")
    assert (final.is_published, final.fee, kept.is_published, kept.fee) == (True, 0, False, 119)


def test_a_published_version_is_shown_in_words_with_who_and_when():
    make_meter(unit="token")
    tier = catalog.create_tier(code="growth", name="Growth", actor=ACTOR)
    version = catalog.create_version(
        tier=tier, actor="staff:ann", document={"currency": "USD", "fee": "99", "charges": [charge()]}
    )
    catalog.publish(version_id=version.pk, now=wall_now(), cohort="renewal", actor="staff:bob")
    page = sign_in("read-only", "cem").get(address(version)).content.decode()

    assert "$99.00 every month" in page
    assert "$0.0002 per token" in page
    assert "ann made the draft" in page
    assert "bob published it" in page
    assert "for new subscribers, and subscriptions at their next renewal, by bob" in page
    assert "editor-state" not in page


def test_reading_a_draft_costs_the_same_for_many_charges_as_for_one(draft, django_assert_max_num_queries):
    charges = [charge(included=None, dimensions={"model": f"m{number}"}) for number in range(100)]
    catalog.save_draft(
        version_id=draft.pk, document={"currency": "USD", "charges": charges}, expected_revision=1, actor=ACTOR
    )
    client = sign_in("product")
    with django_assert_max_num_queries(14):
        client.get(address(draft))
    with django_assert_max_num_queries(18):
        ask(client, draft, {"currency": "USD", "charges": charges})


def test_the_check_finds_in_what_is_not_stored_what_the_stored_would_have(draft):
    client = sign_in("product")
    document = {"currency": "USD", "charges": [charge(price=CLIFF)]}
    answer = ask(client, draft, document)
    catalog.save_draft(version_id=draft.pk, document=document, expected_revision=1, actor=ACTOR)

    assert answer["errors"] == []
    assert [(one["rule"], one["path"]) for one in answer["findings"]] == [("volume_cliff", "charges.0.price.bands.1")]
    assert ask(client, draft, editable_document(get_version_by_id(draft.pk))) == answer
    assert {"label": "Overage of tokens, up to 1,000 tokens", "value": "$0.01 per token"} in answer["terms"]


def test_the_check_sees_last_months_usage_that_no_charge_prices(draft):
    now = wall_now()
    world = make_world(version=publish("other", charges=[charge()]), starts_at=now - timedelta(days=3), now=now)
    world.use(1200, time=now - timedelta(hours=2), model="opus", direction="input")
    only_haiku = {"currency": "USD", "charges": [charge(dimensions={"model": "haiku"})]}

    assert [one["rule"] for one in ask(sign_in("product"), draft, only_haiku)["findings"]] == ["unpriced_usage"]


def test_the_check_names_faults_and_writes_nothing(draft):
    entries = AuditEntry.objects.count()
    answer = ask(sign_in("product"), draft, WHOLE | {"interval_count": "0", "trial_end": "explode"})

    assert [(one["path"], one["message"]) for one in answer["errors"]] == [
        ("interval_count", "Must be greater than 0."),
        ("trial_end", "Choose one of the list."),
    ]
    assert answer["findings"] == []
    assert (TierVersion.objects.get().revision, AuditEntry.objects.count()) == (draft.revision, entries)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"document": 1}', b"\xff", b'{"document": {"fee": NaN}}'])
def test_a_check_of_nothing_names_a_fault(draft, body):
    answer = sign_in("product").post(address(draft, "check"), body, content_type="application/json")

    assert answer.status_code == 200
    assert len(answer.json()["errors"]) == 1


@pytest.mark.parametrize(
    ("role", "reads", "edits"),
    [
        ("product", 200, True),
        ("finance", 200, False),
        ("support", 200, False),
        ("read-only", 200, False),
        (None, 403, False),
    ],
)
def test_every_role_reads_and_only_product_staff_edit(draft, role, reads, edits):
    client = sign_in(role)

    page = client.get(address(draft))
    assert page.status_code == reads
    assert ("editor-state" in page.content.decode()) is edits
    assert post(client, draft, WHOLE | {"fee": "1"}).status_code == (302 if edits else 403)
    asked = client.post(address(draft, "check"), b"{}", content_type="application/json")
    assert asked.status_code == (200 if edits else 403)
    assert client.post(address(draft, "copy")).status_code == (302 if edits else 403)
    assert client.post(f"/admin/studio/tiers/{draft.tier_id}/draft/").status_code == (302 if edits else 403)


def test_who_is_not_signed_in_is_asked_to(draft):
    assert Client().get(address(draft)).headers["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("page", ["versions/999/", "versions/999/check/", "versions/999/copy/", "tiers/999/draft/"])
def test_what_is_not_there_is_not_found(page):
    assert sign_in("product").post(f"/admin/studio/{page}").status_code == 404


def test_reads_do_not_check_or_copy(draft):
    client = sign_in("product")

    assert client.get(address(draft, "check")).status_code == 405
    assert client.get(address(draft, "copy")).status_code == 405


def test_any_version_is_copied_into_a_draft_of_its_own_or_another_tier(draft):
    client = sign_in("product")
    other = catalog.create_tier(code="scale", name="Scale", actor=ACTOR)
    client.post(address(draft, "copy"))
    moved = client.post(address(draft, "copy"), {"tier": other.pk})
    copies = TierVersion.objects.exclude(pk=draft.pk).order_by("pk")

    assert [str(one) for one in copies] == ["growth v2", "scale v1"]
    assert moved.headers["Location"] == address(copies[1])
    for one in copies:
        assert editable_document(get_version_by_id(one.pk)) == editable_document(get_version_by_id(draft.pk))
    assert AuditEntry.objects.filter(actor="staff:ann", action="draft").count() == 2


@pytest.mark.parametrize("tier", ["0", "x", "", "9" * 40])
def test_a_copy_into_no_tier_is_not_found(draft, tier):
    assert sign_in("product").post(address(draft, "copy"), {"tier": tier}).status_code == 404


def test_the_catalogues_pages_lead_to_the_editor(draft):
    client = sign_in("product")
    page = client.get(f"/admin/subscriptions/tierversion/{draft.pk}/change/").content.decode()
    tier = client.get(f"/admin/subscriptions/tier/{draft.tier_id}/change/").content.decode()

    for each in (page, tier):
        assert f'<a href="{address(draft)}">Edit in the pricing studio</a>' in each


def test_the_page_has_neither_inline_script_nor_inline_style_of_its_own(draft):
    page = sign_in("product").get(address(draft)).content.decode()
    content = page.split('<div class="studio editor">')[1].split('<script id="editor-state"')[0]

    # Only files of ours.
    assert content.count("<script") == content.count('<script type="module" src="/static/') == 1
    assert " style=" not in content
    assert " onclick=" not in content
