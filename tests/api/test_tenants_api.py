"""The doors of tenants."""

import pytest
from rest_framework.test import APIClient

from subscriptions.models import AuditEntry, Tenant
from subscriptions.services.keys import issue_key
from tests.world import charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

TENANTS = "/api/v1/tenants"
ACME = {
    "id": "org_7890",
    "name": "Acme",
    "email": "billing@acme.example",
    "currency": "EUR",
    "spend_cap": "250.5",
    "timezone": "Europe/Berlin",
    "country": "DE",
    "tax_ids": [{"type": "eu_vat", "value": "DE123456789"}],
    "metadata": {"crm": "00123", "seats": 4, "vip": True},
}


@pytest.fixture
def key():
    return issue_key(name="back office", scopes=["read", "manage"], actor="system")


@pytest.fixture
def client(key):
    return APIClient(headers={"Authorization": f"Bearer {key[1]}"})


def faults(response):
    return [(error["path"], error["code"]) for error in response.json()["errors"]]


def test_a_tenant_is_made_and_shown_as_it_was_sent(client):
    made = client.post(TENANTS, ACME)
    assert made.status_code == 201
    assert {name: made.json()[name] for name in ACME} == ACME
    assert made.json()["test_clock"] is None
    assert made.json()["created_at"].endswith("Z")
    assert client.get(f"{TENANTS}/org_7890").json() == made.json()


def test_what_is_not_said_has_a_default(client):
    made = client.post(TENANTS, {"id": "org", "name": "Org"}).json()
    assert made.pop("created_at")
    assert made == {
        "id": "org",
        "name": "Org",
        "email": "",
        "currency": "USD",
        "timezone": "UTC",
        "country": "",
        "tax_ids": [],
        "metadata": {},
        "spend_cap": None,
        "test_clock": None,
    }


def test_a_tenant_lives_in_the_time_of_its_test_clock(client):
    world = make_world()
    made = client.post(TENANTS, {"id": "org", "name": "Org", "test_clock": world.clock.code})
    assert made.json()["test_clock"] == world.clock.code
    unknown = client.post(TENANTS, {"id": "org2", "name": "Org", "test_clock": "none"})
    assert (unknown.status_code, faults(unknown)) == (422, [("test_clock", "does_not_exist")])


def test_an_id_is_taken_once(client):
    client.post(TENANTS, ACME)
    again = client.post(TENANTS, ACME | {"name": "Other"})
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")
    assert Tenant.objects.get().name == "Acme"


def test_a_misspelt_member_is_refused_with_a_suggestion(client):
    response = client.post(TENANTS, ACME | {"time_zone": "UTC"})
    assert (response.status_code, response.json()["code"]) == (422, "unknown_field")
    assert response.json()["errors"] == [
        {
            "path": "time_zone",
            "code": "unknown_field",
            "message": "This field is not known here. Did you mean timezone?",
        }
    ]
    assert not Tenant.objects.exists()


@pytest.mark.parametrize(
    ("member", "value", "path", "code"),
    [
        ("id", "a b", "id", "code"),
        ("id", "x" * 101, "id", "code"),
        ("id", 7, "id", "code"),
        ("name", "", "name", "blank"),
        ("name", None, "name", "null"),
        ("name", 7, "name", "invalid"),
        ("name", "Ac\u202eme", "name", "characters"),
        ("email", "nobody", "email", "invalid"),
        ("currency", "XXQ", "currency", "unknown_currency"),
        ("currency", "usd", "currency", "unknown_currency"),
        ("timezone", "Mars/Base", "timezone", "unknown_timezone"),
        ("timezone", "../etc/passwd", "timezone", "unknown_timezone"),
        ("country", "de", "country", "unknown_country"),
        ("tax_ids", [{"type": "eu_vat"}], "tax_ids.0.value", "required"),
        ("tax_ids", [{"type": "eu_vat", "value": "1", "x": 1}], "tax_ids.0.x", "unknown_field"),
        ("tax_ids", [{"type": "a", "value": "b"}] * 11, "tax_ids", "max_length"),
        ("metadata", [], "metadata", "not_an_object"),
        ("metadata", {"a": {"b": 1}}, "metadata", "value"),
        ("metadata", {"": "x"}, "metadata", "name"),
        ("metadata", {"a": "x" * 501}, "metadata", "value"),
        ("metadata", {f"m{number}": 1 for number in range(51)}, "metadata", "too_many"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_by_its_path(client, member, value, path, code):
    response = client.post(TENANTS, ACME | {member: value})
    assert (response.status_code, faults(response)) == (422, [(path, code)])


@pytest.mark.parametrize("body", ["1.5", "1E400", '"x"', "null", "[]"])
def test_a_body_or_a_note_of_another_kind_is_refused_and_no_fault_of_ours(client, body):
    whole = client.generic("POST", TENANTS, body, content_type="application/json")
    note = client.generic(
        "POST", TENANTS, f'{{"id": "o", "name": "O", "metadata": {{"a": {body}}}}}', content_type="application/json"
    )
    assert whole.status_code == 422
    assert note.status_code == (201 if body == '"x"' else 422)


def test_a_change_touches_what_it_names_and_leaves_a_trace_of_the_key(client, key):
    client.post(TENANTS, ACME)
    changed = client.patch(f"{TENANTS}/org_7890", {"name": "Acme Inc", "tax_ids": [], "country": "DE"})
    assert changed.status_code == 200
    assert changed.json()["name"] == "Acme Inc"
    assert changed.json()["tax_ids"] == []
    assert changed.json()["metadata"] == ACME["metadata"]
    entry = AuditEntry.objects.get(action="update")
    assert entry.actor == f"key:{key[0].prefix}"
    assert entry.before == {"name": "Acme", "tax_ids": ACME["tax_ids"]}
    assert entry.after == {"name": "Acme Inc", "tax_ids": []}


def test_a_change_without_a_difference_leaves_no_trace(client):
    client.post(TENANTS, ACME)
    assert client.patch(f"{TENANTS}/org_7890", {"name": "Acme"}).status_code == 200
    assert client.patch(f"{TENANTS}/org_7890", {}).status_code == 200
    assert not AuditEntry.objects.filter(action="update").exists()


@pytest.mark.parametrize("member", ["id", "test_clock", "created_at"])
def test_what_is_for_ever_cannot_be_changed(client, member):
    client.post(TENANTS, ACME)
    response = client.patch(f"{TENANTS}/org_7890", {member: "other"})
    assert (response.status_code, faults(response)) == (422, [(member, "unknown_field")])


def test_part_of_a_tax_id_is_no_change(client):
    client.post(TENANTS, ACME)
    response = client.patch(f"{TENANTS}/org_7890", {"tax_ids": [{"type": "eu_vat"}]})
    assert (response.status_code, faults(response)) == (422, [("tax_ids.0.value", "required")])


def test_the_currency_is_fixed_once_the_tenant_has_subscribed(client):
    world = make_world()
    response = client.patch(f"{TENANTS}/{world.tenant.code}", {"currency": "EUR"})
    assert (response.status_code, response.json()["code"]) == (409, "currency_fixed")


def test_the_list_comes_in_pages_without_repeats(client):
    for number in range(5):
        client.post(TENANTS, {"id": f"org_{number}", "name": "Org"})
    seen, address = [], f"{TENANTS}?limit=2"
    while address:
        answer = client.get(address).json()
        seen.append([row["id"] for row in answer["results"]])
        address = answer["next"]
    assert seen == [["org_0", "org_1"], ["org_2", "org_3"], ["org_4"]]


def test_the_list_costs_the_same_for_many_tenants(client, django_assert_num_queries):
    for _ in range(3):
        make_world()
    client.get(TENANTS)
    with django_assert_num_queries(1):
        assert len(client.get(TENANTS).json()["results"]) == 3


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limitt=2", "unknown_field"),
        ("limit=0", "validation"),
        ("limit=101", "validation"),
        ("limit=2&limit=3", "validation"),
        ("cursor=nonsense", "validation"),
    ],
)
def test_a_query_that_the_list_does_not_know_is_a_bad_request(client, query, code):
    response = client.get(f"{TENANTS}?{query}")
    assert (response.status_code, response.json()["code"]) == (400, code)


@pytest.mark.parametrize("address", [f"{TENANTS}/none", f"{TENANTS}/none/features", f"{TENANTS}/a%00b", f"{TENANTS}/"])
def test_what_is_not_there_is_not_found(client, address):
    response = client.get(address)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_a_method_that_there_is_not_names_those_there_are(client):
    response = client.delete(f"{TENANTS}/org")
    assert response.status_code == 405
    assert "PATCH" in response["Allow"]


def test_features_are_those_of_the_version_that_the_tenant_has(client):
    make_meter()
    version = publish("scale", charges=[charge()], features={"sso": True, "max_projects": 10, "plan": "big"})
    world = make_world(version=version)
    assert client.get(f"{TENANTS}/{world.tenant.code}/features").json() == {
        "tier": "scale",
        "version": 1,
        "features": {"max_projects": 10, "plan": "big", "sso": True},
    }


def test_without_a_subscription_there_are_no_features(client):
    client.post(TENANTS, ACME)
    answer = client.get(f"{TENANTS}/org_7890/features").json()
    assert answer == {"tier": None, "version": None, "features": {}}
