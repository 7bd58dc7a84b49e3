"""The life of a subscription over HTTP: pause, resume, reactivate, anchor, cancel, undo, and what its document says of each."""

import pytest

from invoices.models import Invoice
from subscriptions.models import AuditEntry, Subscription
from subscriptions.services import clocks
from tests.api.test_invoices_api import Api
from tests.api.test_subscriptions_api import NOBODY, errors
from tests.world import at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

TRANSITIONS = {
    "cancel": {"when": "now"},
    "pause": {},
    "resume": {},
    "reactivate": {},
    "anchor": {"anchor_at": "2026-06-15T00:00:00Z"},
    "undo": {},
}


@pytest.fixture
def api():
    return Api()


@pytest.fixture
def world():
    """A tenant on $99 a month since 1 June; it is 16 June, 10:00."""
    make_meter()
    publish("scale", fee="499.00", charges=[charge(included="100000")])
    return make_world(version=publish("growth"), code="acme", now=at("2026-06-16 10:00"))


def path(world, transition=""):
    return f"/subscriptions/{world.subscription.public_id}{transition and '/' + transition}"


def post(api, world, transition, key=None, **body):
    return api.post(path(world, transition), TRANSITIONS.get(transition, {}) | body, key=key or f"{transition}-{body}")


def move(api, world, to):
    assert api.post(f"/test-clocks/{world.clock.code}/advance", {"to": to}).status_code == 200


def subtotals():
    return [(one.reason, str(one.subtotal)) for one in Invoice.objects.order_by("pk")]


def test_it_pauses_and_resumes(api, world):
    paused = post(api, world, "pause").json()
    assert (paused["status"], paused["paused_at"], paused["ends_at"]) == ("paused", "2026-06-16T10:00:00Z", None)
    assert (paused["periods"][0]["kind"], paused["periods"][0]["ends_at"]) == ("stub", "2026-06-16T10:00:00Z")
    event = {"id": "e1", "type": "llm.completion", "subject": "acme", "data": {"total_tokens": 5}}
    assert api.post("/events", event).json()["unmatched"] == 1
    call = {"tenant": "acme", "meter": "tokens", "quantity": "1", "key": "call"}
    denied = api.post("/authorizations", call)
    assert (denied.status_code, denied.json()["decision"], denied.json()["reason"]) == (200, "deny", "no_period")
    assert api.get("/tenants/acme/features").json()["tier"] is None

    move(api, world, "2026-07-10T10:00:00Z")
    assert api.get("/tenants/acme/upcoming-invoice").status_code == 404
    resumed = post(api, world, "resume").json()
    assert (resumed["status"], resumed["paused_at"], resumed["anchor_at"]) == ("active", None, "2026-07-10T10:00:00")
    assert [(one["kind"], one["starts_at"]) for one in resumed["periods"]] == [
        ("regular", "2026-07-10T10:00:00Z"),
        ("stub", "2026-06-01T00:00:00Z"),
    ]
    assert api.post("/authorizations", call).json()["decision"] == "allow"
    assert subtotals() == [("opening", "99.000000"), ("period", "-46.200000"), ("opening", "99.000000")]
    assert api.get("/tenants/acme/features").json()["tier"] == "growth"


def test_what_a_pause_gives_back_is_chosen(api, world):
    assert errors(post(api, world, "pause", credit="all")) == [("credit", "invalid_choice")]
    assert post(api, world, "pause", credit="none").status_code == 200
    move(api, world, "2026-06-16T12:00:00Z")
    assert subtotals() == [("opening", "99.000000")]


def test_it_is_taken_up_after_its_end(api, world):
    assert post(api, world, "cancel").json()["status"] == "ended"
    move(api, world, "2026-06-20T00:00:00Z")
    again = post(api, world, "reactivate").json()
    assert (again["status"], again["ends_at"], len(again["periods"])) == ("active", None, 2)


def test_what_is_pending_is_listed_and_undone(api, world):
    assert api.get(path(world)).json()["pending_changes"] == []
    changed = api.post(path(world, "change"), {"tier": "scale", "when": "period_end"}, key="change").json()
    post(api, world, "anchor")
    document = post(api, world, "cancel", when="period_end").json()
    assert document["status"] == "ending"
    tier, anchor, cancel = document["pending_changes"]
    assert tier == {
        "id": changed["id"],
        "kind": "tier",
        "to": {"tier": "scale", "version": 1},
        "anchor_at": None,
        "effective_at": None,  # it ends then
        "at_boundary": True,
    }
    assert (anchor["kind"], anchor["to"], anchor["anchor_at"]) == ("anchor", None, "2026-06-15T00:00:00Z")
    assert (cancel["id"], cancel["kind"], cancel["effective_at"]) == ("cancel", "cancel", "2026-07-01T00:00:00Z")

    several = post(api, world, "undo")
    assert (several.status_code, several.json()["code"]) == (409, "several_to_undo")
    assert changed["id"] in several.json()["detail"]
    running = post(api, world, "undo", change="cancel").json()
    assert running["status"] == "active"
    assert [one["effective_at"] for one in running["pending_changes"]] == ["2026-07-01T00:00:00Z"] * 2
    assert post(api, world, "undo", change=changed["id"]).json()["pending_changes"] == [
        anchor | {"effective_at": "2026-07-01T00:00:00Z"}
    ]
    assert post(api, world, "undo", key="last").json()["pending_changes"] == []
    nothing = post(api, world, "undo", key="none")
    assert (nothing.status_code, nothing.json()["code"]) == (409, "nothing_to_undo")
    unknown = post(api, world, "undo", change=changed["id"], key="again")
    assert (unknown.status_code, unknown.json()["code"]) == (409, "nothing_to_undo")


def test_a_change_at_an_instant_is_pending_until_then(api, world):
    api.post(path(world, "change"), {"tier": "scale", "when": "2026-06-20T00:00:00Z"}, key="change")
    [pending] = api.get(path(world)).json()["pending_changes"]
    assert (pending["effective_at"], pending["at_boundary"]) == ("2026-06-20T00:00:00Z", False)
    move(api, world, "2026-06-20T00:00:00Z")
    document = api.get(path(world)).json()
    assert (document["tier"], document["pending_changes"]) == ("scale", [])


def test_the_anchor_moves_with_the_next_period(api, world):
    assert errors(api.post(path(world, "anchor"), {}, key="a")) == [("anchor_at", "required")]
    pending = post(api, world, "anchor").json()
    assert (pending["anchor_at"], pending["pending_changes"][0]["kind"]) == ("2026-06-01T00:00:00", "anchor")
    statement = path(world, f"changes/{pending['pending_changes'][0]['id']}")
    assert api.get(statement).status_code == 200
    move(api, world, "2026-07-01T02:00:00Z")
    assert api.get(statement).json()["effective_at"] == "2026-07-01T00:00:00Z"
    moved = api.get(path(world)).json()
    assert (moved["anchor_at"], moved["pending_changes"]) == ("2026-06-15T00:00:00", [])
    assert (moved["periods"][0]["kind"], moved["periods"][0]["ends_at"]) == ("stub", "2026-07-15T00:00:00Z")
    assert subtotals() == [("opening", "99.000000"), ("period", "46.200000")]


@pytest.mark.parametrize(
    ("transition", "before", "code"),
    [
        ("pause", "pause", "subscription_paused"),
        ("pause", "cancel", "subscription_ended"),
        ("resume", None, "subscription_not_paused"),
        ("reactivate", None, "subscription_not_ended"),
        ("anchor", "pause", "subscription_paused"),
        ("anchor", "cancel", "subscription_ended"),
        ("undo", None, "nothing_to_undo"),
        ("undo", "cancel", "nothing_to_undo"),
    ],
)
def test_what_the_state_does_not_allow_is_refused_and_changes_nothing(api, world, transition, before, code):
    if before:
        assert post(api, world, before, key="before").status_code == 200
    document, audited = api.get(path(world)).json(), AuditEntry.objects.count()
    refused = post(api, world, transition)
    assert (refused.status_code, refused.json()["code"]) == (409, code)
    assert (api.get(path(world)).json(), AuditEntry.objects.count()) == (document, audited)


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_each_needs_a_key_its_scope_a_subscription_and_known_members(api, world, transition):
    body = TRANSITIONS[transition]
    missing = api.post(path(world, transition), body)
    assert (missing.status_code, missing.json()["code"]) == (400, "idempotency_key_required")
    assert Api("read").post(path(world, transition), body, key="k").status_code == 403
    assert api.post(f"/subscriptions/{NOBODY}/{transition}", body, key="k").status_code == 404
    assert errors(post(api, world, transition, wen="now")) == [("wen", "unknown_field")]
    assert Subscription.objects.get().ends_at is None


def test_a_repeat_gets_the_first_answer_and_does_it_once(api, world):
    first, again = (post(api, world, "pause", key="k").json() for _ in range(2))
    assert first == again
    post(api, world, "resume")
    assert post(api, world, "pause", key="k").json() == first
    assert Subscription.objects.get().paused_at is None


def test_a_later_start_is_scheduled(api, world):
    clocks.create_clock(code="later", now=at("2026-06-01 00:00"), actor="system")
    api.post("/tenants", {"id": "late", "name": "Late", "currency": "USD", "test_clock": "later"})
    body = {"tenant": "late", "tier": "growth", "starts_at": "2026-06-10T00:00:00Z"}
    document = api.post("/subscriptions", body, key="start").json()
    assert (document["status"], document["periods"]) == ("scheduled", [])
