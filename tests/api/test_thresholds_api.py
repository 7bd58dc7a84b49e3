"""The door of a tenant's own thresholds."""

import pytest
from rest_framework.test import APIClient

from metering.models import ThresholdCrossing, ThresholdWatch
from subscriptions.models import AuditEntry
from subscriptions.services import tenants
from subscriptions.services.keys import issue_key
from tests.world import ACTOR, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

ADDRESS = "/api/v1/tenants/org_7890/thresholds"


def client_with(*scopes: str) -> APIClient:
    return APIClient(headers={"Authorization": f"Bearer {issue_key(name='office', scopes=scopes, actor='system')[1]}"})


@pytest.fixture
def client():
    return client_with("read", "manage")


@pytest.fixture
def acme():
    return tenants.create_tenant(code="org_7890", name="Acme", actor=ACTOR)


def entries():
    return AuditEntry.objects.filter(object_type="metering.thresholdwatch").order_by("pk")


def test_a_tenant_has_none_until_some_are_set(client, acme):
    assert client.get(ADDRESS).json() == {"thresholds": []}
    assert not ThresholdWatch.objects.exists()


def test_they_are_shown_in_one_form_and_replaced_whole(client, acme):
    sent = [{"amount": "100.00", "once": "period"}, {"amount": 8, "once": "life"}]
    kept = {"thresholds": [{"amount": "100"}, {"amount": "8", "once": "life"}]}
    answer = client.put(ADDRESS, {"thresholds": sent})
    assert (answer.status_code, answer.json()) == (200, kept)
    assert client.get(ADDRESS).json() == kept
    assert client.put(ADDRESS, {"thresholds": [{"amount": "8"}]}).json() == {"thresholds": [{"amount": "8"}]}
    assert client.put(ADDRESS, {"thresholds": []}).json() == {"thresholds": []}
    assert client.get(ADDRESS).json() == {"thresholds": []}


def test_what_was_answered_may_be_sent_again_and_leaves_no_trace(client, acme):
    answered = client.put(ADDRESS, {"thresholds": [{"amount": "7.50"}]}).json()
    assert client.put(ADDRESS, answered).json() == answered
    assert entries().count() == 1


def test_each_change_is_noted_with_the_tenant_and_the_key(client, acme):
    client.put(ADDRESS, {"thresholds": [{"amount": "50"}]})
    client.put(ADDRESS, {"thresholds": []})
    first, second = entries()
    assert first.actor.startswith("key:tb_")
    assert (first.action, first.object_id) == ("update", str(ThresholdWatch.objects.get().pk))
    assert (first.before, first.after) == (
        {"thresholds": []},
        {"tenant": "org_7890", "thresholds": [{"amount": "50"}]},
    )
    assert (second.before, second.after) == (
        {"thresholds": [{"amount": "50"}]},
        {"tenant": "org_7890", "thresholds": []},
    )


def test_they_count_from_the_next_movement_on(client):
    make_meter()
    world = make_world(version=publish(charges=[charge(included="0")]), code="org_7890")
    world.use(10000)
    client.put(ADDRESS, {"thresholds": [{"amount": "2"}, {"amount": "2.0002"}, {"amount": "3"}]})
    assert not ThresholdCrossing.objects.exists()
    world.use(1)
    told = ThresholdCrossing.objects.values_list("threshold", flat=True)
    assert sorted(told) == ["amount:2.0002:period", "amount:2:period"]


@pytest.mark.parametrize(
    ("body", "path", "code"),
    [
        ({}, "thresholds", "required"),
        ({"thresholds": None}, "thresholds", "null"),
        ({"thresholds": {}}, "thresholds", "not_a_list"),
        ({"thresholds": [], "threshold": []}, "threshold", "unknown_field"),
        ({"thresholds": ["50"]}, "thresholds.0", "not_an_object"),
        ({"thresholds": [{}]}, "thresholds.0", "required"),
        ({"thresholds": [{"amount": 0}]}, "thresholds.0.amount", "not_positive"),
        ({"thresholds": [{"amount": "5e"}]}, "thresholds.0.amount", "not_a_decimal"),
        ({"thresholds": [{"amount": 5, "quantity": 80}]}, "thresholds.0.quantity", "unknown_field"),
        ({"thresholds": [{"amount": 5, "once": "ever"}]}, "thresholds.0.once", "unknown_choice"),
        ({"thresholds": [{"amount": 5}, {"amount": "5.0"}]}, "thresholds.1", "duplicate"),
        ({"thresholds": [{"amount": n} for n in range(1, 22)]}, "thresholds", "too_many"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_by_its_path_and_changes_nothing(client, acme, body, path, code):
    client.put(ADDRESS, {"thresholds": [{"amount": "50"}]})
    response = client.put(ADDRESS, body)
    found = [(error["path"], error["code"]) for error in response.json()["errors"]]
    assert (response.status_code, found) == (422, [(path, code)])
    assert client.get(ADDRESS).json() == {"thresholds": [{"amount": "50"}]}


def test_who_may_only_read_sets_none(acme):
    reader = client_with("read")
    assert reader.get(ADDRESS).status_code == 200
    refused = reader.put(ADDRESS, {"thresholds": []})
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert client_with("ingest").get(ADDRESS).status_code == 403


@pytest.mark.parametrize("method", ["get", "put"])
def test_an_unknown_tenant_is_not_found(client, method):
    response = getattr(client, method)(ADDRESS, **({"data": {"thresholds": []}} if method == "put" else {}))
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
