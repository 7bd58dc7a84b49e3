"""The doors of tiers and their versions, from draft to publication."""

import pytest
from rest_framework.test import APIClient

from invoices.tasks import plan_publications
from subscriptions.models import AuditEntry, TierVersion
from subscriptions.services.keys import issue_key
from tests.world import PER_TOKEN, charge, make_meter, make_world

pytestmark = pytest.mark.django_db

TIERS = "/api/v1/tiers"
VERSIONS = f"{TIERS}/growth/versions"
DOCUMENT = {"currency": "USD", "fee": "99.00", "charges": [charge()], "features": {"sso": True, "max_projects": 10}}
WHOLE_DOCUMENT = {
    "currency": "USD",
    "interval": "month",
    "interval_count": 1,
    "alignment": "anniversary",
    "fee": "99.00",
    "fee_timing": "advance",
    "fee_every": 1,
    "grace_hours": 1,
    "trial_days": 0,
    "trial_end": "convert",
    "trial_overage": "none",
    "change": {"fee": "prorate", "grain": "day", "allowance": "prorated", "bill": "next"},
    "charges": [
        {
            "kind": "usage",
            "meter": "tokens",
            "included": "10000",
            "trial_included": None,
            "rollover_max": "0",
            "rollover_periods": 1,
            "dimensions": {},
            "at_limit": "allow",
            "overage_quantity_max": None,
            "limits": [],
            "thresholds": [],
            "price": PER_TOKEN,
        }
    ],
    "features": {"max_projects": 10, "sso": True},
}


@pytest.fixture
def client():
    _, token = issue_key(name="back office", scopes=["read", "manage"], actor="system")
    return APIClient(headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def growth(client):
    make_meter()
    assert client.post(TIERS, {"code": "growth", "name": "Growth"}).status_code == 201


@pytest.fixture
def draft(client, growth):
    made = client.post(VERSIONS, DOCUMENT)
    assert made.status_code == 201
    return made


def faults(response):
    return [(error["path"], error["code"]) for error in response.json()["errors"]]


def test_a_tier_is_made_and_shown(client):
    made = client.post(TIERS, {"code": "growth", "name": "Growth", "description": "For teams.\nAnd more."})
    assert made.status_code == 201
    assert made.json()["live_version"] is None
    assert made.json()["description"] == "For teams.\nAnd more."
    assert client.get(f"{TIERS}/growth").json() == made.json()
    assert client.get(TIERS).json() == {"results": [made.json()], "next": None}


def test_a_code_is_taken_once(client, growth):
    again = client.post(TIERS, {"code": "growth", "name": "Other"})
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")


def test_a_misspelt_member_of_a_tier_is_refused_with_a_suggestion(client):
    response = client.post(TIERS, {"code": "growth", "name": "Growth", "descripton": ""})
    assert (response.status_code, response.json()["code"]) == (422, "unknown_field")
    assert response.json()["errors"][0]["message"] == "This field is not known here. Did you mean description?"


def test_a_draft_answers_with_the_whole_document_and_its_revision(client, draft):
    answer = draft.json()
    assert answer == WHOLE_DOCUMENT | {
        "number": 1,
        "status": "draft",
        "revision": 1,
        "published_at": None,
        "effective_at": None,
        "publications": [],
    }
    assert draft["ETag"] == '"1"'
    shown = client.get(f"{VERSIONS}/1")
    assert (shown.json(), shown["ETag"]) == (answer, '"1"')


@pytest.mark.parametrize("body", ["", "null", "{}"])
def test_a_draft_without_a_document_is_a_copy_of_the_newest_version(client, draft, body):
    copy = client.generic("POST", VERSIONS, body, content_type="application/json")
    assert copy.status_code == 201
    assert copy.json() == draft.json() | {"number": 2}


def test_the_first_draft_without_a_body_is_an_empty_page(client, growth):
    made = client.post(VERSIONS).json()
    assert (made["number"], made["currency"], made["fee"], made["charges"]) == (1, "USD", "0.00", [])


def test_every_fault_of_a_document_is_named_by_its_path(client, growth):
    price = {"model": "graduated", "bands": [{"up_to": 10, "unit_amount": "-1"}, {"up_to": None, "unit_amount": 1}]}
    document = DOCUMENT | {"fee": "1.001", "intervall": "month", "charges": [charge(price=price, meter="none")]}
    response = client.post(VERSIONS, document)
    assert (response.status_code, response.json()["code"]) == (422, "validation")
    assert set(faults(response)) == {
        ("intervall", "unknown_field"),
        ("fee", "too_fine"),
        ("charges.0.meter", "does_not_exist"),
        ("charges.0.price.bands.0.unit_amount", "negative"),
    }
    assert not TierVersion.objects.exists()


@pytest.mark.parametrize("body", ["[]", "1", '"x"', '{"fee": 1}'])
def test_a_body_that_is_no_version_is_refused(client, growth, body):
    response = client.generic("POST", VERSIONS, body, content_type="application/json")
    assert (response.status_code, response.json()["code"]) == (422, "validation")


def test_a_price_that_was_sent_as_a_number_is_kept_exactly(client, growth):
    body = '{"currency": "USD", "fee": 0.10, "charges": [{"kind": "usage", "meter": "tokens", "included": 1e4, '
    body += '"price": {"model": "per_unit", "unit_amount": 0.000000000001}}]}'
    made = client.generic("POST", VERSIONS, body, content_type="application/json").json()
    assert made["fee"] == "0.10"
    assert made["charges"][0]["included"] == "10000"
    assert made["charges"][0]["price"] == {"model": "per_unit", "unit_amount": "0.000000000001"}


def test_a_draft_is_replaced_by_who_has_read_it(client, draft):
    saved = client.put(f"{VERSIONS}/1", DOCUMENT | {"fee": "49"}, headers={"If-Match": draft["ETag"]})
    assert (saved.status_code, saved.json()["fee"], saved["ETag"]) == (200, "49.00", '"2"')
    assert client.get(f"{VERSIONS}/1").json() == saved.json()
    assert AuditEntry.objects.get(action="save_draft").after == {"fee": "49.00"}


def test_a_draft_can_be_sent_back_as_it_was_read(client, draft):
    read = client.get(f"{VERSIONS}/1")
    saved = client.put(f"{VERSIONS}/1", read.json(), headers={"If-Match": read["ETag"]})
    assert saved.status_code == 200, saved.content
    assert client.get(f"{VERSIONS}/1").json() == {**read.json(), "revision": 2}


@pytest.mark.parametrize(
    "edited",
    [
        {"number": 2},
        {"number": True},
        {"status": "published"},
        {"revision": 2},
        {"published_at": "2026-06-01T00:00:00Z"},
        {"effective_at": "2026-06-01T00:00:00Z"},
    ],
)
def test_what_only_we_set_is_not_edited(client, draft, edited):
    document = draft.json() | edited | {"fee": "1.00"}
    response = client.put(f"{VERSIONS}/1", document, headers={"If-Match": draft["ETag"]})
    assert (response.status_code, faults(response)) == (422, [(*edited, "read_only")])
    assert client.get(f"{VERSIONS}/1").json() == draft.json()


def test_what_a_new_document_leaves_out_goes_back_to_its_default(client, draft):
    saved = client.put(f"{VERSIONS}/1", {"currency": "EUR"}, headers={"If-Match": '"1"'}).json()
    assert (saved["charges"], saved["features"], saved["fee"], saved["currency"]) == ([], {}, "0.00", "EUR")


def test_a_draft_is_not_replaced_blindly(client, draft):
    response = client.put(f"{VERSIONS}/1", DOCUMENT)
    assert (response.status_code, response.json()["code"]) == (428, "precondition_required")


@pytest.mark.parametrize("header", ['"2"', '"0"', "1", 'W/"1"', "", '"1', '"99999999999999999999"'])
def test_a_draft_that_was_saved_meanwhile_is_not_overwritten(client, draft, header):
    response = client.put(f"{VERSIONS}/1", DOCUMENT | {"fee": "1"}, headers={"If-Match": header})
    assert (response.status_code, response.json()["code"]) == (412, "stale")
    assert client.get(f"{VERSIONS}/1").json()["fee"] == "99.00"


@pytest.mark.parametrize("header", ["*", '"7", "1"'])
def test_any_of_several_revisions_may_match(client, draft, header):
    assert client.put(f"{VERSIONS}/1", DOCUMENT, headers={"If-Match": header}).status_code == 200


def test_a_published_version_is_live_and_final(client, draft):
    published = client.post(f"{VERSIONS}/1/publish", {"cohort": "new"})
    assert published.status_code == 200
    assert published.json()["status"] == "published"
    assert published.json()["published_at"] == published.json()["effective_at"]
    assert client.get(f"{TIERS}/growth").json()["live_version"] == 1
    assert client.get(TIERS).json()["results"][0]["live_version"] == 1
    replaced = client.put(f"{VERSIONS}/1", DOCUMENT, headers={"If-Match": published["ETag"]})
    again = client.post(f"{VERSIONS}/1/publish", {"cohort": "new"})
    assert (replaced.status_code, replaced.json()["code"]) == (409, "version_published")
    assert (again.status_code, again.json()["code"]) == (409, "version_published")


def test_a_publication_takes_effect_when_it_says(client, draft):
    later = client.post(f"{VERSIONS}/1/publish", {"cohort": "new", "effective_at": "2999-01-01T01:00:00+01:00"})
    assert later.json()["effective_at"] == "2999-01-01T00:00:00Z"
    assert client.get(f"{TIERS}/growth").json()["live_version"] is None
    client.post(VERSIONS)
    client.post(f"{VERSIONS}/2/publish", {"cohort": "new", "effective_at": "2000-01-01T00:00:00Z"})
    assert client.get(f"{TIERS}/growth").json()["live_version"] == 2


def test_exactly_what_was_read_can_be_published(client, draft):
    client.put(f"{VERSIONS}/1", DOCUMENT | {"fee": "1"}, headers={"If-Match": '"1"'})
    stale = client.post(f"{VERSIONS}/1/publish", {"cohort": "new"}, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale")
    assert client.post(f"{VERSIONS}/1/publish", {"cohort": "new"}, headers={"If-Match": '"2"'}).status_code == 200


def test_a_version_says_how_far_its_publications_are(client, draft):
    client.post(f"{VERSIONS}/1/publish", {"cohort": "new"})
    make_world(version=TierVersion.objects.get())
    client.post(VERSIONS)
    first = client.post(f"{VERSIONS}/2/publish", {"cohort": "renewal", "effective_at": "2999-01-01T00:00:00Z"}).json()
    [publication] = first["publications"]
    nothing = {"planned": 0, "scheduled": 0, "done": 0, "undone": 0, "dropped": 0, "parked": 0}
    assert publication == {
        "cohort": "renewal",
        "effective_at": "2999-01-01T00:00:00Z",
        "published_by": AuditEntry.objects.filter(action="publish").latest("pk").actor,
        "reason": "",
        "planned_at": None,
        "undone_at": None,
        "progress": nothing,
    }
    plan_publications()
    [publication] = client.get(f"{VERSIONS}/2").json()["publications"]
    assert publication["planned_at"] is not None
    assert publication["progress"] == nothing | {"planned": 1, "scheduled": 1}
    [listed, _] = client.get(VERSIONS).json()["results"]
    assert listed["publications"] == [{name: value for name, value in publication.items() if name != "progress"}]


def test_a_publication_is_undone_until_it_takes_effect(client, draft):
    later = {"effective_at": "2999-01-01T00:00:00Z"}
    client.post(f"{VERSIONS}/1/publish", {"cohort": "now", **later})
    undone = client.post(f"{VERSIONS}/1/undo", {})
    assert undone.status_code == 200
    assert undone.json()["publications"][0]["undone_at"] is not None
    assert (undone.json()["status"], undone.json()["effective_at"]) == ("published", None)
    assert AuditEntry.objects.filter(action="undo", object_id="growth/1").count() == 1
    again = client.post(f"{VERSIONS}/1/publish", {"cohort": "now", **later})
    assert [one["undone_at"] is None for one in again.json()["publications"]] == [False, True]
    client.post(f"{VERSIONS}/1/publish", {"cohort": "renewal", **later})
    which = client.post(f"{VERSIONS}/1/undo", {})
    assert (which.status_code, which.json()["code"]) == (409, "ambiguous")
    assert client.post(f"{VERSIONS}/1/undo", {"cohort": "now"}).status_code == 200
    assert client.post(f"{VERSIONS}/1/undo", {"cohort": "renewal"}).status_code == 200


@pytest.mark.parametrize("body", [{}, {"cohort": "new"}, {"cohort": "now"}])
def test_what_has_taken_effect_is_not_undone(client, draft, body):
    client.post(f"{VERSIONS}/1/publish", {"cohort": "new"})
    response = client.post(f"{VERSIONS}/1/undo", body)
    assert (response.status_code, response.json()["code"]) == (409, "nothing_to_undo")


def test_a_misspelt_cohort_is_not_undone(client, draft):
    assert faults(client.post(f"{VERSIONS}/1/undo", {"cohort": "all"})) == [("cohort", "invalid_choice")]


def test_a_version_is_published_once_to_each_cohort(client, draft):
    for cohort in ("new", "renewal", "now"):
        assert client.post(f"{VERSIONS}/1/publish", {"cohort": cohort}).status_code == 200
        again = client.post(f"{VERSIONS}/1/publish", {"cohort": cohort})
        assert (again.status_code, again.json()["code"]) == (409, "version_published")


def test_terms_that_are_not_built_yet_stay_in_the_draft(client, growth):
    licence = {"kind": "licensed", "code": "seats", "unit_amount": "1"}
    client.post(VERSIONS, DOCUMENT | {"charges": [licence]})
    response = client.post(f"{VERSIONS}/1/publish", {"cohort": "new"})
    assert (response.status_code, faults(response)) == (422, [("charges.0.kind", "terms_not_available")])
    assert client.get(f"{VERSIONS}/1").json()["status"] == "draft"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({}, ("cohort", "required")),
        ({"cohort": "all"}, ("cohort", "invalid_choice")),
        ({"cohort": "new", "effective": "2026-01-01T00:00:00Z"}, ("effective", "unknown_field")),
        ({"cohort": "new", "effective_at": "2026-01-01T00:00:00"}, ("effective_at", "invalid")),
        ({"cohort": "new", "effective_at": 5}, ("effective_at", "invalid")),
    ],
)
def test_a_publication_says_when_and_for_whom(client, draft, body, fault):
    response = client.post(f"{VERSIONS}/1/publish", body)
    assert (response.status_code, faults(response)) == (422, [fault])
    assert client.get(f"{VERSIONS}/1").json()["status"] == "draft"


def test_versions_are_listed_the_newest_first(client, draft, django_assert_max_num_queries):
    client.post(VERSIONS)
    client.post(VERSIONS)
    first = client.get(f"{VERSIONS}?limit=2").json()
    assert [version["number"] for version in first["results"]] == [3, 2]
    assert client.get(first["next"]).json() == {"results": [draft.json()], "next": None}
    with django_assert_max_num_queries(8):  # however many versions there are
        client.get(VERSIONS)


@pytest.mark.parametrize(
    "address",
    [
        f"{TIERS}/none",
        f"{TIERS}/none/versions",
        f"{VERSIONS}/2",
        f"{VERSIONS}/0",
        f"{VERSIONS}/01",
        f"{VERSIONS}/99999999999",
        f"{VERSIONS}/x",
    ],
)
def test_what_is_not_there_is_not_found(client, draft, address):
    response = client.get(address)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_an_unknown_query_parameter_is_a_bad_request(client, draft):
    for address in (f"{TIERS}?status=live", f"{TIERS}/growth?at=now", f"{VERSIONS}?limit=0", f"{VERSIONS}/1?x=1"):
        assert client.get(address).status_code == 400
