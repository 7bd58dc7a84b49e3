"""The doors of meters."""

import pytest
from rest_framework.test import APIClient

from subscriptions.models import AuditEntry, Meter
from subscriptions.services.keys import issue_key

pytestmark = pytest.mark.django_db

METERS = "/api/v1/meters"
TOKENS = {
    "code": "tokens",
    "name": "Tokens",
    "event_type": "llm.completion",
    "aggregation": "sum",
    "value_property": [{"property": "input_tokens"}, {"property": "output_tokens", "weight": "4"}],
    "filters": {"region": ["eu", "us"], "tier": 1, "cached": False},
    "dimensions": ["model"],
    "unit": "token",
    "precision": 2,
    "late_policy": "reject",
    "window_days": 7,
}


@pytest.fixture
def client():
    _, token = issue_key(name="back office", scopes=["read", "manage"], actor="system")
    return APIClient(headers={"Authorization": f"Bearer {token}"})


def faults(response):
    return [(error["path"], error["code"]) for error in response.json()["errors"]]


def test_a_meter_is_made_and_shown_as_it_was_sent(client):
    made = client.post(METERS, TOKENS)
    assert made.status_code == 201
    assert {name: made.json()[name] for name in TOKENS} == TOKENS
    assert client.get(f"{METERS}/tokens").json() == made.json()


def test_what_is_not_said_has_the_default_of_the_contract(client):
    calls = {"code": "calls", "name": "Calls", "event_type": "api.call", "aggregation": "count"}
    made = client.post(METERS, calls).json()
    assert made.pop("created_at").endswith("Z")
    assert made == calls | {
        "value_property": None,
        "filters": {},
        "dimensions": [],
        "unit": "",
        "precision": 0,
        "late_policy": "next_invoice",
        "window_days": 35,
    }


def test_numbers_of_a_document_are_read_exactly(client):
    body = (
        '{"code": "t", "name": "T", "event_type": "e", "aggregation": "sum",'
        ' "value_property": [{"property": "a", "weight": 0.1}], "filters": {"x": 1.50}}'
    )
    made = client.generic("POST", METERS, body, content_type="application/json")
    assert made.status_code == 201
    assert made.json()["value_property"] == [{"property": "a", "weight": "0.1"}]
    assert made.json()["filters"] == {"x": "1.5"}


def test_a_code_is_taken_once(client):
    client.post(METERS, TOKENS)
    again = client.post(METERS, TOKENS | {"aggregation": "count", "value_property": None})
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")
    assert Meter.objects.get().aggregation == "sum"


@pytest.mark.parametrize("aggregation", ["max", "latest", "unique_count"])
def test_a_meter_need_not_add_up(client, aggregation):
    made = client.post(METERS, TOKENS | {"aggregation": aggregation, "value_property": "total_tokens"})
    assert (made.status_code, made.json()["aggregation"]) == (201, aggregation)
    assert client.get(f"{METERS}/tokens").json() == made.json()


def test_a_misspelt_member_is_refused_with_a_suggestion(client):
    response = client.post(METERS, TOKENS | {"filter": {}})
    assert (response.status_code, response.json()["code"]) == (422, "unknown_field")
    assert response.json()["errors"][0]["message"] == "This field is not known here. Did you mean filters?"


@pytest.mark.parametrize(
    ("member", "value", "path", "code"),
    [
        ("code", "to/kens", "code", "code"),
        ("event_type", "", "event_type", "blank"),
        ("aggregation", "average", "aggregation", "unknown_choice"),
        ("aggregation", ["sum"], "aggregation", "unknown_choice"),
        ("value_property", None, "value_property", "required"),
        ("value_property", "a..b", "value_property", "not_a_path"),
        ("value_property", [{"property": "a", "weight": "-1"}], "value_property.0.weight", "negative"),
        ("filters", [], "filters", "not_an_object"),
        ("filters", {"a": {"b": 1}}, "filters.a", "not_a_value"),
        ("dimensions", "model", "dimensions", "not_a_list"),
        ("dimensions", ["model", "model"], "dimensions.1", "duplicate"),
        ("precision", 13, "precision", "max_value"),
        ("precision", -1, "precision", "min_value"),
        ("precision", "x", "precision", "invalid"),
        ("late_policy", "drop", "late_policy", "invalid_choice"),
        ("window_days", 0, "window_days", "min_value"),
        ("window_days", 367, "window_days", "max_value"),
        ("unit", "u" * 51, "unit", "max_length"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_by_its_path(client, member, value, path, code):
    response = client.post(METERS, TOKENS | {member: value})
    assert (response.status_code, faults(response)) == (422, [(path, code)])


def test_name_unit_and_lateness_may_change(client):
    client.post(METERS, TOKENS)
    changes = {"name": "All tokens", "unit": "", "precision": 0, "late_policy": "next_invoice", "window_days": 30}
    changed = client.patch(f"{METERS}/tokens", changes)
    assert changed.status_code == 200
    assert {name: changed.json()[name] for name in TOKENS} == TOKENS | changes
    assert AuditEntry.objects.get(action="update").object_id == "tokens"


@pytest.mark.parametrize("member", ["code", "event_type", "aggregation", "value_property", "filters", "dimensions"])
def test_what_decides_the_count_cannot_change(client, member):
    client.post(METERS, TOKENS)
    response = client.patch(f"{METERS}/tokens", {member: TOKENS[member]})
    assert (response.status_code, faults(response)) == (422, [(member, "unknown_field")])


def test_the_list_comes_in_pages_by_code(client):
    for code in ("b", "a", "c"):
        client.post(METERS, TOKENS | {"code": code})
    first = client.get(f"{METERS}?limit=2").json()
    second = client.get(first["next"]).json()
    assert [meter["code"] for meter in first["results"] + second["results"]] == ["a", "b", "c"]
    assert second["next"] is None


@pytest.mark.parametrize("address", [f"{METERS}?aggregation=sum", f"{METERS}/tokens?limit=1"])
def test_an_unknown_query_parameter_is_a_bad_request(client, address):
    client.post(METERS, TOKENS)
    response = client.get(address)
    assert (response.status_code, response.json()["code"]) == (400, "unknown_field")


def test_what_is_not_there_is_not_found(client):
    assert client.get(f"{METERS}/none").status_code == 404
    assert client.patch(f"{METERS}/none", {"name": "x"}).status_code == 404
