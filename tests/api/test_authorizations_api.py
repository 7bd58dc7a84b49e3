"""`/authorizations`: hold, settle, release, extend, as a gateway sees them."""

import json
from datetime import timedelta

import pytest
from django.test import Client

from metering.models import Authorization, UsageEvent
from subscriptions.models import TestClock
from subscriptions.services.keys import issue_key
from tests.world import at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

NOW = at("2026-06-20 12:00")


@pytest.fixture
def client():
    _, secret = issue_key(name="gateway", scopes=["gate", "read", "ingest"], actor="system")
    return Client(headers={"Authorization": f"Bearer {secret}"})


@pytest.fixture
def strict():
    """A tenant with 1,000 tokens a month, and not one more."""
    make_meter()
    return make_world(version=publish("strict", charges=[charge(included="1000", at_limit="deny")]), now=NOW)


def post(client, path, body=None):
    return client.post(f"/api/v1/{path}", json.dumps(body or {}), content_type="application/json")


def authorize(client, world, quantity="100", key="call-1", **more):
    body = {"tenant": world.tenant.code, "meter": "tokens", "quantity": quantity, "key": key}
    return post(client, "authorizations", body | more)


def move_clock(world, **by):
    TestClock.objects.filter(pk=world.clock.pk).update(now=world.now + timedelta(**by))


def figures(world):
    balance = world.balance()
    return tuple(f"{number.normalize():f}" for number in (balance.used, balance.held))


def test_a_granted_call_is_held_until_it_is_settled(client, strict):
    response = authorize(client, strict)
    assert response.status_code == 201, response.content
    hold = response.json()
    fresh_at = hold.pop("fresh_at")
    assert fresh_at.endswith("Z")
    assert hold == {
        "id": hold["id"],
        "status": "held",
        "decision": "allow",
        "reason": "within_allowance",
        "quantity": "100",
        "remaining": "900",
        "overage_quantity": "0",
        "estimated_amount": "0",
        "binding_limit": {"kind": "allowance", "limit": "1000", "left": "1000", "frees_at": "2026-07-01T00:00:00Z"},
        "frees_at": None,
        "expires_at": "2026-06-20T12:05:00Z",
    }
    assert response["X-Tierbook-Decision"] == "allow"
    assert figures(strict) == ("0", "100")

    settled = post(client, f"authorizations/{hold['id']}/settle", {"quantity": "70.5"})
    assert settled.status_code == 200, settled.content
    document = settled.json()
    assert (document["status"], document["hold"], document["settled_quantity"]) == ("settled", "settled", "70.5")
    assert [(one["used"], one["remaining"]) for one in document["balances"]] == [("70.5", "929.5")]
    assert figures(strict) == ("70.5", "0")
    event = UsageEvent.objects.get()
    assert (str(event.pk), event.source, event.event_id) == (document["event"], "tierbook:authorization", hold["id"])
    assert event.occurred_at == NOW


def test_settling_again_is_answered_alike_and_with_something_else_refused(client, strict):
    hold = authorize(client, strict).json()
    path = f"authorizations/{hold['id']}/settle"
    first = post(client, path, {"quantity": "70"}).json()
    again = post(client, path, {"quantity": "70.0"})
    assert again.status_code == 200
    assert again.json() == first | {"balances": []}
    other = post(client, path, {"quantity": "71"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert figures(strict) == ("70", "0")


def test_settling_with_more_than_was_held_records_it_all(client, strict):
    hold = authorize(client, strict).json()
    assert post(client, f"authorizations/{hold['id']}/settle", {"quantity": 1500}).status_code == 200
    assert figures(strict) == ("1500", "0")
    denied = authorize(client, strict, "1", "call-2")
    assert (denied.status_code, denied.json()["decision"], denied.json()["reason"]) == (200, "deny", "limit_reached")
    assert denied.json()["id"] is None
    assert denied["X-Tierbook-Resets"] == "2026-07-01T00:00:00Z"


def test_an_event_settles_and_is_counted_once(client, strict):
    hold = authorize(client, strict).json()
    move_clock(strict, minutes=2)
    event = {"id": "req_1", "type": "llm.completion", "time": "2026-06-20T12:01:00Z", "data": {"total_tokens": 40}}
    settled = post(client, f"authorizations/{hold['id']}/settle", {"event": event})
    assert settled.status_code == 200, settled.content
    assert settled.json()["settled_quantity"] == "40"
    assert UsageEvent.objects.get().occurred_at == at("2026-06-20 12:01")
    assert figures(strict) == ("40", "0")
    # The same event by the other door is a duplicate.
    assert post(client, "events", event | {"subject": strict.tenant.code}).status_code == 200
    assert post(client, f"authorizations/{hold['id']}/settle", {"event": event}).status_code == 200
    other = event | {"data": {"total_tokens": 41}}
    assert post(client, f"authorizations/{hold['id']}/settle", {"event": other}).status_code == 409
    assert figures(strict) == ("40", "0")


def test_an_event_that_was_recorded_before_frees_the_hold_and_counts_nothing_more(client, strict):
    hold = authorize(client, strict).json()
    event = {"id": "req_1", "type": "llm.completion", "data": {"total_tokens": 40}}
    assert post(client, "events", event | {"subject": strict.tenant.code}).status_code == 202
    assert post(client, f"authorizations/{hold['id']}/settle", {"event": event}).json()["settled_quantity"] == "40"
    assert figures(strict) == ("40", "0")


@pytest.mark.parametrize("time", ["2026-06-20T11:59:59Z", "2026-06-20T12:00:01Z", None])
def test_an_event_of_another_time_occurs_when_it_was_authorized(client, strict, time):
    hold = authorize(client, strict).json()
    event = {"id": "req_1", "type": "llm.completion", "data": {"total_tokens": 40}} | ({"time": time} if time else {})
    assert post(client, f"authorizations/{hold['id']}/settle", {"event": event}).status_code == 200
    assert UsageEvent.objects.get().occurred_at == NOW


@pytest.mark.parametrize(
    ("event", "status", "path"),
    [
        ({"id": "e", "type": "llm.completion", "data": {"total_tokens": -1}}, 422, "event.data.total_tokens"),
        (
            {"id": "e", "type": "llm.completion", "subject": "somebody", "data": {"total_tokens": 1}},
            422,
            "event.subject",
        ),
        ({"id": "", "type": "llm.completion"}, 422, "event.id"),
        ({"id": "e", "type": "llm.completion", "source": "tierbook:authorization"}, 422, "event.source"),
    ],
)
def test_an_event_that_is_refused_leaves_the_hold(client, strict, event, status, path):
    hold = authorize(client, strict).json()
    refused = post(client, f"authorizations/{hold['id']}/settle", {"event": event})
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (status, path), refused.content
    assert figures(strict) == ("0", "100")


def test_nobody_else_sends_events_of_the_reserved_source(client, strict):
    event = {"id": "e", "source": "tierbook:authorization", "type": "llm.completion", "subject": strict.tenant.code}
    assert post(client, "events", event).status_code == 422


def test_a_released_hold_frees_its_quantity_once(client, strict):
    hold = authorize(client, strict).json()
    released = post(client, f"authorizations/{hold['id']}/release")
    assert (released.status_code, released.json()["status"]) == (200, "released")
    assert post(client, f"authorizations/{hold['id']}/release").json() == released.json()
    assert figures(strict) == ("0", "0")
    settled = post(client, f"authorizations/{hold['id']}/settle", {"quantity": 30}).json()
    assert (settled["status"], settled["hold"]) == ("settled", "released")
    assert figures(strict) == ("30", "0")
    late = post(client, f"authorizations/{hold['id']}/release")
    assert (late.status_code, late.json()["code"]) == (409, "authorization_ended")


def test_a_key_finds_its_authorization_and_conflicts_with_other_content(client, strict):
    hold = authorize(client, strict).json()
    again = authorize(client, strict)
    assert again.status_code == 200
    assert (again.json()["id"], again.json()["status"]) == (hold["id"], "held")
    assert authorize(client, strict, "100.00").json()["id"] == hold["id"]
    post(client, f"authorizations/{hold['id']}/release")
    assert authorize(client, strict).json()["status"] == "released"
    other = authorize(client, strict, "101")
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert figures(strict) == ("0", "0")


def test_a_denial_binds_nothing_and_its_key_may_be_tried_again(client, strict):
    assert authorize(client, strict, "1001").json()["decision"] == "deny"
    assert authorize(client, strict, "1000").status_code == 201
    assert Authorization.objects.count() == 1


def test_a_hold_that_nobody_ends_is_not_in_the_way_when_its_time_is_up(client, strict):
    hold = authorize(client, strict, "1000", ttl_seconds=60).json()
    move_clock(strict, seconds=59)
    assert authorize(client, strict, "1", "call-2").json()["decision"] == "deny"
    move_clock(strict, seconds=1)
    assert authorize(client, strict, "900", "call-2").json()["decision"] == "allow"
    assert authorize(client, strict, "1000", ttl_seconds=60).json()["status"] == "expired"
    settled = post(client, f"authorizations/{hold['id']}/settle", {"quantity": 250}).json()
    assert (settled["status"], settled["hold"]) == ("settled", "expired")
    assert figures(strict) == ("250", "900")


def test_a_hold_that_is_settled_too_late_says_so_though_nobody_has_expired_it(client, strict):
    hold = authorize(client, strict, "1000", ttl_seconds=60).json()
    move_clock(strict, seconds=60)
    settled = post(client, f"authorizations/{hold['id']}/settle", {"quantity": 250}).json()
    assert (settled["status"], settled["hold"]) == ("settled", "expired")
    assert figures(strict) == ("250", "0")


def test_a_stream_extends_its_hold(client, strict):
    hold = authorize(client, strict, "600").json()
    path = f"authorizations/{hold['id']}/extend"
    more = post(client, path, {"quantity": "300", "ttl_seconds": 600}).json()
    assert (more["decision"], more["quantity"], more["remaining"]) == ("allow", "900", "100")
    assert more["expires_at"] == "2026-06-20T12:10:00Z"
    denied = post(client, path, {"quantity": "101", "ttl_seconds": 6000}).json()
    assert (denied["decision"], denied["quantity"], denied["expires_at"]) == ("deny", "900", "2026-06-20T12:10:00Z")
    longer = post(client, path, {"ttl_seconds": 3600}).json()
    assert (longer["decision"], longer["expires_at"]) == ("allow", "2026-06-20T13:00:00Z")
    assert figures(strict) == ("0", "900")
    move_clock(strict, hours=1)
    ended = post(client, path, {"quantity": 1})
    assert (ended.status_code, ended.json()["code"]) == (409, "authorization_ended")


def test_usage_beyond_the_allowance_is_estimated_by_its_price(client):
    world = make_world(now=NOW)
    world.use(9_000)
    assert authorize(client, world, "500").json()["estimated_amount"] == "0"
    beyond = authorize(client, world, "1500", "call-2").json()
    assert (beyond["decision"], beyond["overage_quantity"], beyond["estimated_amount"]) == (
        "allow_overage",
        "1000",
        "0.2",
    )


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"tenant": "nobody"}, 404, "not_found"),
        ({"meter": "nothing"}, 404, "not_found"),
        ({"quantity": "0"}, 422, "validation"),
        ({"quantity": "-1"}, 422, "validation"),
        ({"quantity": "NaN"}, 422, "validation"),
        ({"quantity": None}, 422, "validation"),
        ({"quantity": True}, 422, "validation"),
        ({"quantity": "0.0000000000001"}, 422, "validation"),
        ({"key": ""}, 422, "validation"),
        ({"key": "a b"}, 422, "validation"),
        ({"key": "k" * 256}, 422, "validation"),
        ({"ttl_seconds": 0}, 422, "validation"),
        ({"ttl_seconds": 86_401}, 422, "validation"),
        ({"ttl_seconds": "300"}, 422, "validation"),
        ({"dimensions": {"model": "opus"}}, 422, "validation"),
        ({"dimensions": []}, 422, "validation"),
        ({"quanttiy": 1}, 422, "unknown_field"),
    ],
)
def test_what_cannot_be_asked_is_refused(client, strict, changes, status, code):
    response = authorize(client, strict, **({"quantity": "1"} | changes))
    assert (response.status_code, response.json()["code"]) == (status, code), response.content
    assert Authorization.objects.count() == 0


def test_without_a_period_the_gate_denies_and_says_why(client, strict):
    before = make_world(starts_at=at("2026-07-01 00:00"), now=NOW, meter=False)
    denied = authorize(client, before).json()
    assert (denied["decision"], denied["reason"]) == ("deny", "no_period")
    make_meter("images")
    assert authorize(client, strict, meter="images").json()["reason"] == "not_in_tier"


def test_values_that_do_not_add_up_cannot_be_held(client, strict):
    make_meter("peak", aggregation="max")
    response = authorize(client, strict, meter="peak")
    assert (response.status_code, response.json()["code"]) == (422, "not_additive")


def test_an_authorization_is_shown_by_its_id(client, strict):
    hold = authorize(client, strict).json()
    shown = client.get(f"/api/v1/authorizations/{hold['id']}").json()
    assert (shown["status"], shown["hold"], shown["tenant"], shown["meter"]) == (
        "held",
        "held",
        strict.tenant.code,
        "tokens",
    )
    assert client.get("/api/v1/authorizations/0198c000-0000-7000-8000-000000000000").status_code == 404
