"""`/tenants/{tenant}/ledger`: every movement, newest first."""

from decimal import Decimal

import pytest
from django.test import Client

from subscriptions.services.keys import issue_key
from tests.world import at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

NOW = at("2026-06-20 12:00")


@pytest.fixture
def client():
    _, secret = issue_key(name="back office", scopes=["read"], actor="system")
    return Client(headers={"Authorization": f"Bearer {secret}"})


def entries(client, world, **query):
    response = client.get(f"/api/v1/tenants/{world.tenant.code}/ledger", query)
    assert response.status_code == 200, response.content
    return response.json()["results"]


def test_the_allowance_comes_in_and_usage_burns_it_and_then_is_overage(client):
    make_meter(dimensions=["model"])
    world = make_world(now=NOW)
    world.use(10_040, time=at("2026-06-05 00:00"), model="opus")
    listed = entries(client, world)
    assert [(one["kind"], one["quantity"], one["events"], bool(one["grant"])) for one in listed] == [
        ("usage", "40", 0, False),
        ("usage", "10000", 1, True),
        ("grant", "10000", 0, True),
    ]
    overage, covered, _ = listed
    assert overage["posting"] == covered["posting"]
    for one in listed:
        assert one.pop("recorded_at").endswith("Z")
    del overage["posting"]
    assert overage == {
        "kind": "usage",
        "meter": "tokens",
        "pool": {},
        "dimensions": {"model": "opus"},
        "quantity": "40",
        "events": 0,
        "grant": None,
        "segment_at": "2026-06-01T00:00:00Z",
        "period": {"starts_at": "2026-06-01T00:00:00Z", "ends_at": "2026-07-01T00:00:00Z"},
    }


def test_its_sums_are_the_balance(client):
    make_meter(dimensions=["model"])
    pools = [charge(), charge(dimensions={"model": "opus"}, included="7")]
    world = make_world(version=publish("pools", charges=pools), now=NOW)
    for number in range(5):
        world.use(3, time=at(f"2026-06-0{number + 1} 00:00"), model="opus" if number % 2 else "haiku")
    for model, position in [("opus", (6, 6)), ("", (9, 9))]:
        mine = [one for one in entries(client, world) if one["pool"].get("model", "") == model]
        used = sum(Decimal(one["quantity"]) for one in mine if one["kind"] == "usage")
        covered = sum(Decimal(one["quantity"]) for one in mine if one["kind"] in ("usage", "walk") and one["grant"])
        assert (used, covered) == position


def test_no_number_of_a_row_leaves(client):
    world = make_world(now=NOW)
    world.use(1)
    assert {name for one in entries(client, world) for name in one} == {
        *("posting", "kind", "meter", "pool", "dimensions", "quantity"),
        *("events", "grant", "segment_at", "period", "recorded_at"),
    }


def test_one_meter_alone(client):
    make_meter()
    make_meter("calls", aggregation="count", value_property=None)
    tier = publish("two", charges=[charge(), charge(meter="calls", included="1")])
    world = make_world(version=tier, now=NOW)
    world.use(1)
    assert {one["meter"] for one in entries(client, world)} == {"tokens", "calls"}
    assert {one["meter"] for one in entries(client, world, meter="calls")} == {"calls"}
    response = client.get(f"/api/v1/tenants/{world.tenant.code}/ledger", {"meter": "none"})
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_pages_skip_and_repeat_nothing_while_rows_are_added(client):
    world = make_world(now=NOW)
    for _ in range(5):
        world.use(1)
    seen = []
    response = client.get(f"/api/v1/tenants/{world.tenant.code}/ledger", {"limit": 2})
    while True:
        page = response.json()
        seen += [one["posting"] for one in page["results"]]
        if page["next"] is None:
            break
        world.use(1)
        response = client.get(page["next"])
    assert len(seen) == len(set(seen)) == 6


def test_other_tenants_are_not_in_it(client):
    world, other = make_world(now=NOW), make_world(version=publish("other", charges=[]), now=NOW)
    world.use(1)
    assert len(entries(client, world)) == 2
    assert entries(client, other) == []
