"""`/tenants/{tenant}/balances`: where the pools stand, and what the gate would say."""

from datetime import timedelta

import pytest
from django.test import Client

from subscriptions.models import BillingPeriod
from subscriptions.services.keys import issue_key
from subscriptions.services.tenants import create_tenant
from tests.world import at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

NOW = at("2026-06-20 12:00")


@pytest.fixture
def client():
    _, secret = issue_key(name="back office", scopes=["read"], actor="system")
    return Client(headers={"Authorization": f"Bearer {secret}"})


def balances(client, tenant):
    response = client.get(f"/api/v1/tenants/{tenant.code}/balances")
    assert response.status_code == 200, response.content
    assert response.json()["next"] is None
    results = response.json()["results"]
    for one in results:
        assert one.pop("fresh_at").endswith("Z")
    return results


def test_one_entry_per_pool_with_holds_limits_and_the_decision(client):
    world = make_world(now=NOW)
    world.use(10_340)
    assert balances(client, world.tenant) == [
        {
            "tenant": world.tenant.code,
            "meter": "tokens",
            "dimensions": {},
            "period_ends_at": "2026-07-01T00:00:00Z",
            "used": "10340",
            "included": "10000",
            "remaining": "0",
            "overage": "340",
            "overage_amount_precise": "0.068",
            "state": "overage",
            "held": "0",
            "limits": [],
            "decision": {"decision": "allow_overage", "reason": "overage_billed"},
        }
    ]


@pytest.mark.parametrize(
    ("terms", "used", "decision", "limits"),
    [
        ({}, 9_999, ("allow", "within_allowance"), []),
        ({}, 10_000, ("allow_overage", "overage_billed"), []),
        ({"at_limit": "deny"}, "9999.999999999999", ("allow", "within_allowance"), [("allowance", "10000", "0.000000000001")]),
        ({"at_limit": "deny"}, 10_000, ("deny", "limit_reached"), [("allowance", "10000", "0")]),
        ({"at_limit": "deny"}, 10_001, ("deny", "limit_reached"), [("allowance", "10000", "0")]),
        ({"at_limit": "degrade"}, 10_000, ("degrade", "limit_reached"), [("allowance", "10000", "0")]),
        ({"overage_quantity_max": "5"}, 10_004, ("allow_overage", "overage_billed"), [("overage_quantity_max", "5", "1")]),
        ({"overage_quantity_max": "5"}, 10_005, ("deny", "overage_quantity_max"), [("overage_quantity_max", "5", "0")]),
    ],
)  # fmt: skip
def test_the_decision_is_that_of_the_smallest_call(client, terms, used, decision, limits):
    make_meter()
    world = make_world(version=publish("limited", charges=[charge(**terms)]), now=NOW)
    world.use(used)
    (pool,) = balances(client, world.tenant)
    assert (pool["decision"]["decision"], pool["decision"]["reason"]) == decision
    assert [(one["kind"], one["limit"], one["left"]) for one in pool["limits"]] == limits
    assert {one["frees_at"] for one in pool["limits"]} <= {"2026-07-01T00:00:00Z"}


def test_pools_of_one_meter_stand_beside_each_other(client):
    make_meter(dimensions=["model"])
    pools = [charge(), charge(dimensions={"model": "opus"}, included="50")]
    world = make_world(version=publish("pools", charges=pools), now=NOW)
    world.use(60, model="opus")
    assert [
        (one["dimensions"], one["used"], one["overage"], one["state"]) for one in balances(client, world.tenant)
    ] == [
        ({}, "0", "0", "included"),
        ({"model": "opus"}, "60", "10", "overage"),
    ]


def test_a_tenant_without_a_period_has_none(client):
    assert balances(client, create_tenant(code="org_bare", name="Bare", actor="system")) == []


def test_a_period_that_nobody_has_opened_yet_is_opened_by_whoever_asks(client):
    world = make_world()
    world.use(4_000)
    world.clock.now = at("2026-07-01 00:00") + timedelta(microseconds=1)
    world.clock.save()
    (pool,) = balances(client, world.tenant)
    assert (pool["used"], pool["remaining"], pool["period_ends_at"]) == ("0", "10000", "2026-08-01T00:00:00Z")
    assert balances(client, world.tenant) == [pool]
    assert BillingPeriod.objects.filter(tenant=world.tenant).count() == 2


def test_query_parameters_are_refused(client):
    world = make_world(now=NOW)
    response = client.get(f"/api/v1/tenants/{world.tenant.code}/balances", {"meter": "tokens"})
    assert (response.status_code, response.json()["code"]) == (400, "unknown_field")
