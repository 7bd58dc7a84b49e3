"""The doors of guards and approvals: two API keys are two people."""

from datetime import timedelta
from decimal import Decimal

import pytest
from rest_framework.test import APIClient

from subscriptions.models import TierVersion
from subscriptions.selectors.clock import wall_now
from subscriptions.services.guards import record_verdict
from subscriptions.services.keys import issue_key
from tests.world import make_meter, publish

pytestmark = pytest.mark.django_db

TIER = "/api/v1/tiers/growth"
NONE = {"rise_percent_max": None, "revenue_fall_percent_max": None}


def keyed(*scopes):
    _, token = issue_key(name="back office", scopes=list(scopes), actor="system")
    return APIClient(headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def ann():
    return keyed("read", "manage")


@pytest.fixture
def ben():
    return keyed("read", "manage")


@pytest.fixture
def draft(ann):
    make_meter()
    publish("growth")
    return ann.post(f"{TIER}/versions").json()


def at_revision(number):
    return {"If-Match": f'"{number}"'}


def found(rise, revision=1):
    version = TierVersion.objects.get(number=2)
    now = wall_now() - timedelta(seconds=1)
    record_verdict(version.pk, revision, Decimal(rise), Decimal(0), f"backtest over {rise}", now)


def code_of(answer):
    return answer.status_code, answer.json().get("code")


def test_a_tier_shows_its_guards_and_takes_new_ones(ann, draft):
    assert ann.get(TIER).json()["guards"] == NONE
    answer = ann.patch(TIER, {"guards": {"rise_percent_max": "20.50"}, "name": "Grow"})
    assert answer.status_code == 200, answer.json()
    assert (answer.json()["name"], answer.json()["guards"]) == ("Grow", NONE | {"rise_percent_max": "20.5"})
    assert ann.get(TIER).json() == answer.json()
    assert ann.get("/api/v1/tiers").json()["results"] == [answer.json()]
    answer = ann.patch(TIER, {"guards": {"rise_percent_max": None, "revenue_fall_percent_max": 2}})
    assert answer.json()["guards"] == NONE | {"revenue_fall_percent_max": "2"}
    assert ann.patch(TIER, {}).json() == answer.json()


@pytest.mark.parametrize(
    ("guards", "path"),
    [
        ({"rise_percent_max": "-1"}, "guards.rise_percent_max"),
        ({"rise_percent_max": "1.001"}, "guards.rise_percent_max"),
        ({"rise_percent_max": "12345678"}, "guards.rise_percent_max"),
        ({"revenue_fall_percent_max": "101"}, "guards.revenue_fall_percent_max"),
        ({"rise": 1}, "guards.rise"),
    ],
)
def test_what_is_no_guard_is_named(ann, draft, guards, path):
    answer = ann.patch(TIER, {"guards": guards})
    assert answer.status_code == 422
    assert [error["path"] for error in answer.json()["errors"]] == [path]


def test_a_guarded_version_goes_from_a_backtest_to_a_second_person_to_its_customers(ann, ben, draft):
    ann.patch(TIER, {"guards": {"rise_percent_max": 20}})
    publication = {"cohort": "new", "reason": "Costs rose."}
    refused = ann.post(f"{TIER}/versions/2/publish", publication)
    assert code_of(refused) == (409, "backtest_needed")
    found("25")
    refused = ann.post(f"{TIER}/versions/2/publish", publication)
    assert code_of(refused) == (409, "guard_broken")
    assert [error["path"] for error in refused.json()["errors"]] == ["guards.rise_percent_max"]
    assert code_of(ann.post(f"{TIER}/versions/2/approve", {}, headers=at_revision(1))) == (409, "own_version")
    approved = ben.post(f"{TIER}/versions/2/approve", {"note": "Agreed."}, headers=at_revision(1))
    assert approved.status_code == 200, approved.json()
    assert (approved.json()["revision"], approved.json()["note"]) == (1, "Agreed.")
    assert approved.json()["approved_by"].startswith("key:")
    assert code_of(ben.post(f"{TIER}/versions/2/publish", publication)) == (409, "guard_broken")
    published = ann.post(f"{TIER}/versions/2/publish", publication)
    assert published.status_code == 200
    assert published.json()["publications"][0]["reason"] == "Costs rose."


def test_where_the_installation_wants_it_everything_is_approved(ann, ben, draft, settings):
    settings.PUBLISHING_NEEDS_APPROVAL = True
    assert code_of(ann.post(f"{TIER}/versions/2/publish", {"cohort": "new"})) == (409, "approval_needed")
    assert ben.post(f"{TIER}/versions/2/approve", headers=at_revision(1)).status_code == 200
    assert ann.post(f"{TIER}/versions/2/publish", {"cohort": "new"}).status_code == 200


def test_an_approval_says_what_was_read(ben, ann, draft):
    assert code_of(ben.post(f"{TIER}/versions/2/approve")) == (428, "precondition_required")
    saved = ann.put(f"{TIER}/versions/2", draft | {"fee": "120"}, headers=at_revision(1))
    assert saved.status_code == 200
    assert code_of(ben.post(f"{TIER}/versions/2/approve", headers=at_revision(1))) == (412, "stale")
    assert ben.post(f"{TIER}/versions/2/approve", headers=at_revision(2)).status_code == 200


def test_who_only_reads_approves_and_guards_nothing(draft):
    reader = keyed("read")
    assert code_of(reader.post(f"{TIER}/versions/2/approve", headers=at_revision(1))) == (403, "insufficient_scope")
    assert code_of(reader.patch(TIER, {"guards": NONE})) == (403, "insufficient_scope")
    assert reader.get(TIER).json()["guards"] == NONE
