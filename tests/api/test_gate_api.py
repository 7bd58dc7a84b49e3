"""Asking the gate without holding: `"hold": false`, `GET /gate`, and the limits that balances show."""

import json
from decimal import Decimal

import pytest
from django.test import Client

from metering.models import Authorization
from subscriptions.services.keys import issue_key
from tests.world import at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

NOW = at("2026-06-20 12:00")


def client_of(*scopes):
    _, secret = issue_key(name="gateway", scopes=list(scopes), actor="system")
    return Client(headers={"Authorization": f"Bearer {secret}"})


@pytest.fixture
def client():
    return client_of("gate", "read")


@pytest.fixture
def limited():
    """A tenant with 1,000 tokens a month and no more, 400 in five hours, and 50 overage images until $5 are spent."""
    make_meter(dimensions=["model"])
    make_meter("images", event_type="image", aggregation="count", value_property=None)
    return make_world(
        version=publish(
            "limited",
            charges=[
                charge(included="1000", at_limit="deny", limits=[{"quantity": "400", "window": "PT5H"}]),
                charge(
                    meter="images",
                    included="0",
                    overage_quantity_max="50",
                    price={
                        "model": "graduated",
                        "bands": [{"up_to": "10", "unit_amount": "0.5"}, {"unit_amount": "0.05"}],
                    },
                ),
            ],
        ),
        now=NOW,
        spend_cap=Decimal("5.00"),
    )


def ask(client, world, quantity, meter="tokens", **more):
    body = {"tenant": world.tenant.code, "meter": meter, "quantity": quantity, "hold": False} | more
    return client.post("/api/v1/authorizations", json.dumps(body), content_type="application/json")


def gate(client, world, quantity=None, meter="tokens"):
    query = {} if quantity is None else {"quantity": quantity}
    return client.get(f"/api/v1/gate/{world.tenant.code}/{meter}", query)


def test_asking_holds_nothing_and_needs_no_key(client, limited):
    response = ask(client, limited, "150")
    assert response.status_code == 200, response.content
    answer = response.json()
    assert (answer["id"], answer["status"], answer["expires_at"]) == (None, None, None)
    assert (answer["decision"], answer["remaining"]) == ("allow", "850")
    assert answer["binding_limit"] == {
        "kind": "window",
        "window": "PT5H",
        "limit": "400",
        "left": "400",
        "frees_at": None,
    }
    assert not Authorization.objects.exists()


def test_what_is_held_counts_for_who_only_asks(client, limited):
    held = {"hold": True, "key": "k", "ttl_seconds": 60}
    assert ask(client, limited, "300", **held).status_code == 201
    assert ask(client, limited, "101").json()["reason"] == "window"
    assert ask(client, limited, "100").json()["decision"] == "allow"


def test_it_says_what_holding_would_say(client, limited):
    for quantity, meter in [
        ("20", "images"),
        ("30", "images"),
        ("401", "tokens"),
        ("1001", "tokens"),
        ("51", "images"),
    ]:
        asked = ask(client, limited, quantity, meter).json()
        held = ask(client, limited, quantity, meter, hold=True, key=f"{meter}-{quantity}").json()
        for name in ("id", "status", "expires_at", "fresh_at"):
            asked.pop(name), held.pop(name)
        assert asked == held


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"tenant": "nobody"}, 404),
        ({"meter": "nothing"}, 404),
        ({"dimensions": {"colour": "red"}}, 422),
        ({"quantity": "0"}, 422),
        ({"hold": "no"}, 422),
        ({"hold": None}, 422),
    ],
)
def test_what_cannot_be_asked_is_refused(client, limited, changes, status):
    assert ask(client, limited, **({"quantity": "1"} | changes)).status_code == status


def test_a_proxy_reads_status_and_headers(client, limited):
    limited.use(250, time=at("2026-06-20 09:30"))
    allowed = gate(client, limited, "150")
    assert allowed.status_code == 200
    assert {name: allowed[name] for name in ("X-Tierbook-Decision", "X-Tierbook-Remaining", "X-Tierbook-Resets")} == {
        "X-Tierbook-Decision": "allow",
        "X-Tierbook-Remaining": "600",
        "X-Tierbook-Resets": "2026-06-20T14:35:00Z",
    }
    assert allowed["RateLimit-Policy"] == '"window";q=400'
    assert allowed["RateLimit"] == '"window";r=150;t=9300'
    assert "Retry-After" not in allowed

    denied = gate(client, limited, "150.5")
    assert (denied.status_code, denied["X-Tierbook-Decision"], denied["Retry-After"]) == (429, "deny", "9300")
    assert (denied["Content-Type"], denied.json()["status"]) == ("application/problem+json", 429)
    assert (denied.json()["code"], denied.json()["decision"], denied.json()["reason"]) == ("window", "deny", "window")


def test_without_a_quantity_one_unit_is_asked_for(client, limited):
    assert gate(client, limited).json()["quantity"] == "1"


def test_a_call_that_nothing_limits_has_no_rate_limit(client):
    world = make_world(now=NOW)
    response = gate(client, world, "20000")
    assert (response.status_code, response["X-Tierbook-Decision"]) == (200, "allow_overage")
    assert "RateLimit" not in response
    assert "X-Tierbook-Resets" not in response


def test_degrading_is_let_through_and_said(client):
    make_meter()
    world = make_world(version=publish("soft", charges=[charge(at_limit="degrade")]), now=NOW)
    world.use(10_000)
    response = gate(client, world, "1")
    assert (response.status_code, response["X-Tierbook-Decision"]) == (200, "degrade")
    assert response["RateLimit"] == f'"allowance";r=0;t={10 * 86_400 + 43_200}'


def test_no_period_is_denied_and_an_unknown_tenant_is_not_found(client, limited):
    before = make_world(starts_at=at("2026-07-01 00:00"), now=NOW, meter=False)
    assert (gate(client, before).status_code, gate(client, before).json()["code"]) == (429, "no_period")
    assert client.get("/api/v1/gate/nobody/tokens").status_code == 404
    assert client.get(f"/api/v1/gate/{limited.tenant.code}/nothing").status_code == 404


@pytest.mark.parametrize("quantity", ["0", "-1", "1e3", "NaN", "abc", ""])
def test_a_quantity_that_is_none_is_refused(client, limited, quantity):
    assert gate(client, limited, quantity).status_code == 400


def test_the_gate_has_a_scope_of_its_own(limited):
    assert gate(client_of("read", "ingest", "manage"), limited).status_code == 403
    assert ask(client_of("read", "ingest", "manage"), limited, "1").status_code == 403


def test_balances_show_every_limit_and_what_is_held(client, limited):
    limited.use(250, time=at("2026-06-20 09:30"))
    assert ask(client, limited, "10", "images", hold=True, key="k").json()["estimated_amount"] == "5"
    images, tokens = client.get(f"/api/v1/tenants/{limited.tenant.code}/balances").json()["results"]
    july = "2026-07-01T00:00:00Z"
    assert (images["held"], images["decision"]) == ("10", {"decision": "deny", "reason": "spend_cap"})
    assert (
        images["limits"]
        == [
            {"kind": "overage_quantity_max", "limit": "50", "left": "40", "frees_at": july},
            {"kind": "spend_cap", "limit": "5", "left": "-0.5", "frees_at": july},
        ]
        or images["limits"][1]["kind"] == "spend_cap"
    )
    assert [(one["kind"], one["left"], one["frees_at"]) for one in tokens["limits"]] == [
        ("allowance", "750", july),
        ("window", "150", "2026-06-20T14:35:00Z"),
        ("spend_cap", "0", july),
    ]
