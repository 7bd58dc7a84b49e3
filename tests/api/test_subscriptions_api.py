"""Subscriptions over HTTP: once per key, refused with reasons, shown with their periods."""

import pytest

from invoices.models import Invoice
from subscriptions.models import AuditEntry, BillingPeriod, Subscription
from subscriptions.services import clocks, tenants
from tests.api.test_invoices_api import Api
from tests.races import together
from tests.world import ACTOR, JUNE, at, make_meter, publish

pytestmark = pytest.mark.django_db(transaction=True)

NOBODY = "01900000-0000-7000-8000-000000000000"


@pytest.fixture
def api():
    return Api()


@pytest.fixture(autouse=True)
def org(transactional_db):
    """A tenant on a test clock, a meter, and a published tier."""
    make_meter()
    publish("growth")
    clocks.create_clock(code="june", now=JUNE, actor=ACTOR)
    return tenants.create_tenant(code="org", name="Org", actor=ACTOR, test_clock="june")


def start(api, key="k1", **body):
    return api.post("/subscriptions", {"tenant": "org", "tier": "growth"} | body, key=key)


def errors(response):
    return [(error["path"], error["code"]) for error in response.json()["errors"]]


def test_it_starts_now_on_the_live_version_and_bills_the_first_fee(api):
    response = start(api)
    document = response.json()
    assert response.status_code == 201
    [period] = document.pop("periods")
    assert (period["starts_at"], period["ends_at"]) == ("2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z")
    assert (document["tenant"], document["tier"], document["version"], document["status"]) == (
        "org",
        "growth",
        1,
        "active",
    )
    assert Invoice.objects.get().reason == "opening"
    assert AuditEntry.objects.get(action="start").actor.startswith("key:")
    assert api.get(f"/subscriptions/{document['id']}").json()["periods"] == [period]


def test_without_a_key_nothing_is_started(api):
    response = start(api, key=None)
    assert (response.status_code, response.json()["code"]) == (400, "idempotency_key_required")
    assert not Subscription.objects.exists()


def test_the_same_key_gets_the_same_answer_and_starts_nothing(api):
    first, again = start(api), start(api)
    assert (again.status_code, again.json()) == (201, first.json())
    assert Subscription.objects.count() == 1
    reused = start(api, starts_at="2026-06-02T00:00:00Z")
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reuse")


def test_the_same_key_at_once_starts_one(api):
    responses = together(*[lambda: start(api)] * 4)
    assert [response.status_code for response in responses] == [201] * 4
    assert len({response.json()["id"] for response in responses}) == 1
    assert Invoice.objects.count() == 1


def test_a_second_start_conflicts_and_leaves_its_key_free(api):
    start(api)
    refused = start(api, key="k2")
    assert (refused.status_code, refused.json()["code"]) == (409, "already_subscribed")
    later = start(api, key="k2")
    assert later.status_code == 409


def test_a_clock_before_the_tiers_publication_gets_what_is_on_offer_now(api):
    # The world's tier was published long ago; this one goes live at the wall clock's now, after the tenant's June.
    api.post("/tiers", {"code": "fresh", "name": "Fresh"})
    created = api.post("/tiers/fresh/versions", {"currency": "USD", "fee": "10.00"})
    assert created.status_code == 201, created.content
    published = api.post("/tiers/fresh/versions/1/publish", {"cohort": "new"})
    assert published.status_code == 200, published.content
    clocks.create_clock(code="past", now=at("2023-11-16 00:00"), actor=ACTOR)
    tenants.create_tenant(code="early", name="Early", actor=ACTOR, test_clock="past")
    response = start(api, tenant="early", tier="fresh")
    assert (response.status_code, response.json()["version"]) == (201, 1)


@pytest.mark.parametrize(
    ("body", "status", "faults"),
    [
        ({"tenant": "nobody"}, 422, [("tenant", "unknown_tenant")]),
        ({"tier": "nothing"}, 404, []),
        ({"version": 7}, 404, []),
        ({"version": 0}, 422, [("version", "min_value")]),
        ({"starts_at": "2026-06-01"}, 422, [("starts_at", "invalid")]),
        ({"starts_at": "2019-06-01T00:00:00Z"}, 422, []),
        ({"trial_days": 731}, 422, [("trial_days", "max_value")]),
        ({"start_at": "2026-06-01T00:00:00Z"}, 422, [("start_at", "unknown_field")]),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_started(api, body, status, faults):
    response = start(api, **body)
    assert (response.status_code, errors(response)) == (status, faults)
    assert not Subscription.objects.exists()


def test_an_anchor_of_its_own_makes_the_first_period_a_stub(api):
    periods = start(api, anchor_at="2026-05-15T00:00:00Z").json()["periods"]
    assert [(one["kind"], one["ends_at"]) for one in periods] == [("stub", "2026-06-15T00:00:00Z")]


def test_of_many_periods_the_newest_are_shown(api, django_assert_max_num_queries):
    publish("daily", interval="day", fee="0")
    document = start(api, tier="daily", starts_at="2026-05-02T00:00:00Z").json()
    assert BillingPeriod.objects.count() == 31
    with django_assert_max_num_queries(5):
        [listed] = api.get("/subscriptions").json()["results"]
    assert document["periods"] == listed["periods"] == api.get(f"/subscriptions/{document['id']}").json()["periods"]
    assert [one["sequence"] for one in listed["periods"]] == list(range(31, 7, -1))
    assert listed["periods"][0]["starts_at"] == "2026-06-01T00:00:00Z"


def test_cancelling_needs_to_say_when_and_gives_the_unused_back_unless_told_otherwise(api):
    path = f"/subscriptions/{start(api).json()['id']}/cancel"
    assert errors(api.post(path, {}, key="c1")) == [("when", "required")]
    assert errors(api.post(path, {"when": "tomorrow"}, key="c1")) == [("when", "invalid_choice")]
    assert api.post(path, {"when": "period_end"}).status_code == 400

    ending = api.post(path, {"when": "period_end"}, key="c1").json()
    assert (ending["status"], ending["ends_at"]) == ("ending", "2026-07-01T00:00:00Z")
    again = api.post(path, {"when": "period_end"}, key="c2")
    assert (again.status_code, again.json()["code"]) == (409, "subscription_ended")
    assert Subscription.objects.get().end_credit == "unused"


def test_what_does_not_exist_is_not_found(api):
    assert api.get(f"/subscriptions/{NOBODY}").status_code == 404
    assert api.get("/subscriptions/1").status_code == 404
    assert api.post(f"/subscriptions/{NOBODY}/cancel", {"when": "now"}, key="c1").status_code == 404


def test_the_list_is_of_one_tenant_or_of_all_and_refuses_what_it_does_not_know(api):
    started = start(api).json()
    assert api.get("/subscriptions").json() == {"results": [started], "next": None}
    assert api.get("/subscriptions", tenant="org").json()["results"] == [started]
    assert api.get("/subscriptions", tenant="nobody").status_code == 404
    assert api.get("/subscriptions", tenat="org").json()["code"] == "unknown_field"


def test_reading_and_writing_need_their_scopes():
    assert Api("manage").get("/subscriptions").status_code == 403
    assert start(Api("read")).status_code == 403
