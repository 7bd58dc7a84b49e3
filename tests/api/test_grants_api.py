"""`/tenants/{tenant}/grants`: given once by key, shown with what has become of them, taken back."""

import pytest
from django.test import Client

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
