"""Trials over HTTP: begun with a subscription, extended, ended early, and once per tenant and tier."""

import pytest

from invoices.models import Invoice
from subscriptions.models import AuditEntry, Subscription
from subscriptions.services import clocks, tenants
from tests.api.test_invoices_api import Api
from tests.world import ACTOR, JUNE, charge, make_meter, publish

pytestmark = pytest.mark.django_db(transaction=True)

TRIAL = ("trial", "2026-06-01T00:00:00Z", "2026-06-15T00:00:00Z")


@pytest.fixture
def api(transactional_db):
    """A client; a tenant on a test clock, a meter, and a tier with a trial of 14 days."""
    make_meter()
    publish("growth", trial_days=14, charges=[charge(trial_included="1000")])
    clocks.create_clock(code="june", now=JUNE, actor=ACTOR)
    tenants.create_tenant(code="org", name="Org", actor=ACTOR, test_clock="june")
    return Api()


def start(api, key="k1", **body):
    return api.post("/subscriptions", {"tenant": "org", "tier": "growth"} | body, key=key)


def periods(answer):
    newest_first = answer.json()["periods"]
    return [(one["kind"], one["starts_at"], one["ends_at"]) for one in reversed(newest_first)]


def go_on(api, to):
    answer = api.post("/test-clocks/june/advance", {"to": to})
    assert answer.status_code == 200, answer.content


def test_a_trial_is_begun_used_and_converted(api):
    started = start(api)
    assert (started.status_code, periods(started)) == (201, [TRIAL])
    api.post("/events", {"id": "e1", "type": "llm.completion", "subject": "org", "data": {"total_tokens": 1200}})
    [balance] = api.get("/tenants/org/balances").json()["results"]
    figures = (balance["included"], balance["remaining"], balance["overage"], balance["overage_amount_precise"])
    assert figures == ("1000", "0", "200", "0")
    assert balance["decision"]["decision"] == "deny"
    call = {"tenant": "org", "meter": "tokens", "quantity": "1", "key": "c1"}
    assert api.post("/authorizations", call).json()["decision"] == "deny"
    go_on(api, "2026-06-15T02:00:00Z")
    [invoice] = api.get("/invoices", tenant="org").json()["results"]
    assert (invoice["reason"], invoice["total"], invoice["period"]["ends_at"]) == (
        "period",
        "99.00",
        "2026-06-15T00:00:00Z",
    )
    assert api.get("/tenants/org/balances").json()["results"][0]["included"] == "10000"


def test_the_invoice_to_come_of_a_trial_is_that_of_its_first_fee(api):
    start(api)
    upcoming = api.get("/tenants/org/upcoming-invoice").json()
    assert (upcoming["reason"], upcoming["total"]) == ("period", "99.00")


@pytest.mark.parametrize(
    ("days", "first"),
    [
        (0, ("regular", "2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z")),
        (3, ("trial", "2026-06-01T00:00:00Z", "2026-06-04T00:00:00Z")),
        (None, TRIAL),
    ],
)
def test_days_are_asked_for_or_the_versions(api, days, first):
    assert periods(start(api, trial_days=days)) == [first]


def test_a_second_trial_of_the_tier_is_refused(api):
    subscription = start(api).json()["id"]
    api.post(f"/subscriptions/{subscription}/cancel", {"when": "now"}, key="k2")
    go_on(api, "2026-06-02T00:00:00Z")
    refused = start(api, key="k3", trial_days=7)
    assert (refused.status_code, refused.json()["code"]) == (409, "trial_used")
    assert periods(start(api, key="k4"))[0][0] == "regular"


def test_it_is_extended_once_per_key_and_recorded(api):
    path = f"/subscriptions/{start(api).json()['id']}/trial"
    body = {"ends_at": "2026-06-29T00:00:00Z"}
    first, again = api.post(path, body, key="k2"), api.post(path, body, key="k2")
    assert (first.status_code, again.json()) == (200, first.json())
    assert periods(first) == [("trial", "2026-06-01T00:00:00Z", "2026-06-29T00:00:00Z")]
    entry = AuditEntry.objects.get(action="move_trial_end")
    assert (entry.actor[:4], entry.after["trial_ends_at"]) == ("key:", "2026-06-29T00:00:00Z")


def test_ended_now_the_first_month_begins(api):
    path = f"/subscriptions/{start(api).json()['id']}/trial"
    go_on(api, "2026-06-05T00:00:00Z")
    ended = api.post(path, {"ends_at": "now"}, key="k2")
    assert periods(ended) == [
        ("trial", "2026-06-01T00:00:00Z", "2026-06-05T00:00:00Z"),
        ("regular", "2026-06-05T00:00:00Z", "2026-07-05T00:00:00Z"),
    ]
    go_on(api, "2026-06-05T01:00:00Z")
    assert Invoice.objects.get().total == 99


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "validation"),
        ({"ends_at": "soon"}, 422, "validation"),
        ({"ends_at": "2026-05-01T00:00:00Z"}, 422, "ends_in_the_past"),
        ({"ends_at": "2030-05-01T00:00:00Z"}, 422, "trial_too_long"),
        ({"ends_at": "now", "when": "now"}, 422, "unknown_field"),
    ],
)
def test_what_is_wrong_moves_nothing(api, body, status, code):
    path = f"/subscriptions/{start(api).json()['id']}/trial"
    refused = api.post(path, body, key="k2")
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert Subscription.objects.get().trial_ends_at.day == 15


def test_what_is_in_no_trial_or_without_a_key_is_refused(api):
    path = f"/subscriptions/{start(api, trial_days=0).json()['id']}/trial"
    refused = api.post(path, {"ends_at": "now"}, key="k2")
    assert (refused.status_code, refused.json()["code"]) == (409, "no_trial")
    assert api.post(path, {"ends_at": "now"}).status_code == 400
    assert Api("read").post(path, {"ends_at": "now"}, key="k3").status_code == 403


def test_a_change_at_its_end_states_the_allowance_of_the_trial(api):
    publish("big", fee="499.00", charges=[charge(included="100000")])
    path = f"/subscriptions/{start(api).json()['id']}/change"
    stated = api.post(path, {"tier": "big", "when": "period_end", "preview": True}, key="k2").json()
    [allowance] = stated["allowances"]
    assert (allowance["before"], allowance["after"]) == ("1000", "100000")
