"""`/tenants/{tenant}/grants`: given once by key, shown with what has become of them, taken back."""

import pytest
from django.test import Client

from invoices.services.advancing import advance
from subscriptions.services.keys import issue_key
from tests.world import at, make_world

pytestmark = pytest.mark.django_db

GRANT = {"meter": "tokens", "quantity": "500", "priority": 0, "kind": "promotional", "key": "welcome"}


@pytest.fixture
def world():
    return make_world(code="org_7890", now=at("2026-06-10 00:00"))


@pytest.fixture
def client(world):
    _, secret = issue_key(name="back office", scopes=["manage", "read", "ingest"], actor="system")
    return Client(headers={"Authorization": f"Bearer {secret}"})


def post(client, path, document):
    return client.post(f"/api/v1/tenants/org_7890/{path}", document, content_type="application/json")


def get(client, path):
    response = client.get(f"/api/v1/tenants/org_7890/{path}")
    assert response.status_code == 200, response.content
    return response.json()


def test_a_grant_from_now_on_covers_usage_that_follows(client, world):
    response = post(client, "grants", GRANT)
    assert response.status_code == 201, response.content
    document = response.json()
    assert {name: document.pop(name) for name in ("id", "created_at")}
    assert document == {
        "tenant": "org_7890",
        "meter": "tokens",
        "dimensions": {},
        "kind": "promotional",
        "priority": 0,
        "key": "welcome",
        "quantity": "500",
        "burned": "0",
        "expired": "0",
        "voided": "0",
        "rolled_over": "0",
        "remaining": "500",
        "status": "active",
        "effective_at": "2026-06-10T00:00:00Z",
        "expires_at": None,
        "voided_at": None,
        "period": None,
        "rolled_from": None,
        "schedule": None,
    }
    [view] = world.use(10_300).balances
    assert (view.included, view.used, view.remaining, view.overage) == (10_500, 10_300, 200, 0)
    [balance] = get(client, "balances")["results"]
    assert [balance[name] for name in ("included", "used", "remaining", "overage")] == ["10500", "10300", "200", "0"]
    grants = get(client, "grants?meter=tokens")["results"]
    assert [(one["kind"], one["burned"], one["remaining"], one["status"]) for one in grants] == [
        ("promotional", "300", "200", "active"),
        ("allowance", "10000", "0", "used_up"),
    ]


def test_the_same_key_is_the_same_grant_and_other_content_is_refused(client, world):
    first = post(client, "grants", GRANT)
    again = post(client, "grants", GRANT | {"quantity": 500})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other = post(client, "grants", GRANT | {"quantity": "501"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


def test_a_grant_is_taken_back_once(client, world):
    made = post(client, "grants", GRANT).json()
    world.use(200, time=at("2026-06-10 00:05"))
    advance(clock_id=world.clock.pk, to=at("2026-06-11 00:00"), actor="system")
    assert post(client, f"grants/{made['id']}/void", {}).status_code == 422
    voided = post(client, f"grants/{made['id']}/void", {"reason": "paid back"})
    assert voided.status_code == 200
    document = voided.json()
    assert [document[name] for name in ("status", "voided", "remaining", "voided_at")] == [
        "voided",
        "500",
        "0",
        "2026-06-11T00:00:00Z",
    ]
    assert post(client, f"grants/{made['id']}/void", {"reason": "again"}).json() == document
    assert get(client, f"grants/{made['id']}") == document
    [allowance] = [one for one in get(client, "grants")["results"] if one["kind"] == "allowance"]
    refused = post(client, f"grants/{allowance['id']}/void", {"reason": "why"})
    assert (refused.status_code, refused.json()["code"]) == (409, "grant_not_voidable")


def test_the_ledger_names_the_meter_of_a_grant_of_the_pool(client, world):
    made = post(client, "grants", GRANT).json()
    entries = get(client, "ledger?meter=tokens")["results"]
    of_pool = [
        (one["kind"], one["meter"], one["quantity"], one["period"]) for one in entries if one["grant"] == made["id"]
    ]
    assert of_pool == [("grant", "tokens", "500", None)]


def test_credit_that_comes_again_is_a_schedule(client, world):
    asked = {name: GRANT[name] for name in ("meter", "quantity", "key")} | {
        "every": {"interval": "week", "until": "2026-07-01T00:00:00Z"}
    }
    made, again = post(client, "grants", asked), post(client, "grants", asked)
    assert (made.status_code, again.status_code) == (201, 200)
    document = made.json()
    assert again.json() == document
    assert document["every"] == {"interval": "week", "count": 1, "until": "2026-07-01T00:00:00Z", "expires_after": 1}
    assert (document["made"], document["next_at"]) == (1, "2026-06-17T00:00:00Z")
    advance(clock_id=world.clock.pk, to=at("2026-06-20 00:00"), actor="system")
    path = f"grant-schedules/{document['id']}"
    assert post(client, f"{path}/void", {"reason": "over"}).json()["next_at"] is None
    assert get(client, "grant-schedules")["results"] == [get(client, path)]
    grants = [one for one in get(client, "grants")["results"] if one["schedule"] == document["id"]]
    assert [(one["effective_at"], one["status"]) for one in grants] == [
        ("2026-06-17T00:00:00Z", "active"),
        ("2026-06-10T00:00:00Z", "expired"),
    ]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"quantity": "0"}, "quantity"),
        ({"quantity": "-1"}, "quantity"),
        ({"quantity": 1.5e-13}, "quantity"),
        ({"kind": "allowance"}, "kind"),
        ({"kind": "rollover"}, "kind"),
        ({"priority": 32768}, "priority"),
        ({"expires_at": "2026-06-10T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2027-06-10T00:00:00Z", "every": {"interval": "month"}}, "expires_at"),
        ({"every": {"interval": "fortnight"}}, "every.interval"),
        ({"dimensions": {"model": "opus"}}, "dimensions.model"),
        ({"priorty": 1}, "priorty"),
    ],
)
def test_what_is_no_grant_is_refused_with_its_place(client, world, change, path):
    refused = post(client, "grants", GRANT | change)
    assert refused.status_code == 422, refused.content
    assert [error["path"] for error in refused.json()["errors"]] == [path]
    assert len(get(client, "grants")["results"]) == 1


def test_what_is_not_there_is_not_found(client, world):
    nobody = "01a2092e-8aca-70e0-a764-e5d641c91742"
    assert post(client, "grants", GRANT | {"meter": "nothing"}).status_code == 404
    for path in (f"grants/{nobody}", f"grant-schedules/{nobody}"):
        assert client.get(f"/api/v1/tenants/org_7890/{path}").status_code == 404
        assert post(client, f"{path}/void", {"reason": "why"}).status_code == 404
    assert client.get("/api/v1/tenants/nobody/grants").status_code == 404


def test_a_key_that_may_only_read_gives_nothing(world):
    _, secret = issue_key(name="reader", scopes=["read"], actor="system")
    reader = Client(headers={"Authorization": f"Bearer {secret}"})
    assert post(reader, "grants", GRANT).status_code == 403
    assert get(reader, "grants")["next"] is None
