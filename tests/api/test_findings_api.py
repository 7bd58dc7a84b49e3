"""The linter at its doors: asked about a version, at publishing, and on the staff's page of a draft."""

from datetime import UTC, datetime, timedelta

import pytest
from rest_framework.test import APIClient

from subscriptions.models import AuditEntry, TierVersion
from subscriptions.services import catalog
from subscriptions.services.keys import issue_key
from tests.world import ACTOR, charge, make_meter, make_world

pytestmark = pytest.mark.django_db

VERSIONS = "/api/v1/tiers/growth/versions"
CLIFF = {"model": "volume", "bands": [{"up_to": "10000", "unit_amount": "0.0002"}, {"unit_amount": "0.00015"}]}
BACKWARDS = {"model": "volume", "bands": [{"up_to": "1000", "unit_amount": "0.01"}, {"unit_amount": "0"}]}


def client_with(*scopes):
    return APIClient(headers={"Authorization": f"Bearer {issue_key(name='office', scopes=scopes, actor='system')[1]}"})


@pytest.fixture
def client():
    return client_with("read", "manage")


@pytest.fixture
def draft():
    """Make a draft of these charges."""

    def make(*charges, fee="0"):
        tier = catalog.create_tier(code="growth", name="Growth", actor=ACTOR)
        return catalog.create_version(
            tier=tier, actor=ACTOR, document={"currency": "USD", "fee": fee, "charges": list(charges)}
        )

    return make


def findings(client):
    answer = client.get(f"{VERSIONS}/1/findings")
    assert answer.status_code == 200
    return answer.json()["findings"]


def test_a_version_without_oddities_has_no_findings(client, draft):
    make_meter()
    draft(charge())
    assert findings(client) == []


def test_a_cliff_is_told_with_its_place_and_range(client, draft):
    make_meter()
    draft(charge(), charge(meter=make_meter("words").code, price=CLIFF))
    assert findings(client) == [
        {
            "rule": "volume_cliff",
            "severity": "warning",
            "path": "charges.1.price.bands.1",
            "message": "10,000 units cost 2.00 USD; using more costs less than that, up to 13,333.333333 units.",
            "range": {"from": "10000", "to": "13333.333333333333333333"},
        }
    ]


def test_the_fee_of_one_period_is_what_an_allowance_is_compared_with(client, draft):
    make_meter()
    version = draft(charge(price={"model": "per_unit", "unit_amount": "0.001"}), fee="99")
    [finding] = findings(client)
    assert (finding["rule"], finding["range"]) == ("overage_cheaper_than_included", None)
    yearly = {"currency": "USD", "fee": "99", "fee_every": 12, "charges": [charge(price=CLIFF | {"free_units": "1"})]}
    catalog.save_draft(version_id=version.pk, document=yearly, expected_revision=1, actor=ACTOR)
    assert [finding["rule"] for finding in findings(client)] == ["volume_cliff", "overage_cheaper_than_included"]
    cheap = {"currency": "USD", "fee": "99", "fee_every": 12, "charges": [charge(included="1000000")]}
    catalog.save_draft(version_id=version.pk, document=cheap, expected_revision=2, actor=ACTOR)
    assert findings(client) == []


def test_a_charge_that_shares_a_pool_is_stopped_where_the_pool_is(client, draft):
    make_meter(dimensions=["model"])
    free = {"model": "per_unit", "unit_amount": "0"}
    shared = charge(dimensions={"model": "opus"}, included=None, price=free)
    draft(charge(at_limit="deny"), shared)
    assert findings(client) == []
    catalog.save_draft(
        version_id=TierVersion.objects.get().pk,
        document={"currency": "USD", "charges": [charge(), shared]},
        expected_revision=1,
        actor=ACTOR,
    )
    assert [(one["rule"], one["path"]) for one in findings(client)] == [("charges_nothing", "charges.1.price")]


def test_values_that_were_used_and_that_no_charge_covers_are_told(client, draft):
    make_meter(dimensions=["model"])
    now = datetime.now(tz=UTC)
    world = make_world(starts_at=now - timedelta(days=3), now=now)
    world.use(1200, time=now - timedelta(hours=2), model="opus")
    world.use(5, time=now - timedelta(hours=1), model="haiku")
    world.use(7, time=now - timedelta(hours=1))
    draft(charge(dimensions={"model": "haiku"}))
    assert [(one["path"], one["severity"], one["message"]) for one in findings(client)] == [
        (
            "charges",
            "warning",
            "1,200 units of the meter tokens with model opus were used by 1 tenant in the last month, and no charge prices them.",
        ),
        (
            "charges",
            "warning",
            "7 units of the meter tokens with no model were used by 1 tenant in the last month, and no charge prices them.",
        ),
    ]


def test_a_charge_for_all_values_covers_them_and_old_usage_is_not_looked_at(
    client, draft, django_assert_max_num_queries
):
    make_meter(dimensions=["model"])
    now = datetime.now(tz=UTC)
    world = make_world(starts_at=now - timedelta(days=100), now=now - timedelta(days=90))
    world.use(1200, time=now - timedelta(days=95), model="opus")
    version = draft(charge(dimensions={"model": "haiku"}))
    assert findings(client) == []
    both = {"currency": "USD", "charges": [charge(dimensions={"model": "haiku"}), charge()]}
    catalog.save_draft(version_id=version.pk, document=both, expected_revision=1, actor=ACTOR)
    with django_assert_max_num_queries(12):
        assert findings(client) == []


def test_publishing_answers_with_warnings(client, draft):
    make_meter()
    draft(charge(price=CLIFF))
    published = client.post(f"{VERSIONS}/1/publish", {"cohort": "new"})
    assert (published.status_code, published.json()["status"]) == (200, "published")
    assert published.json()["findings"] == findings(client)
    assert [one["rule"] for one in findings(client)] == ["volume_cliff"]


def test_what_nobody_can_mean_is_not_published(client, draft):
    make_meter()
    draft(charge(price=CLIFF), charge(meter=make_meter("words").code, price=BACKWARDS))
    refused = client.post(f"{VERSIONS}/1/publish", {"cohort": "new"})
    assert (refused.status_code, refused.json()["code"]) == (422, "blocked_by_linter")
    assert refused.json()["errors"] == [
        {
            "path": "charges.1.price.bands.1",
            "code": "negative_marginal_price",
            "message": "1,000 units cost 10.00 USD, and any more cost less than that, however many they are.",
        }
    ]
    assert not TierVersion.objects.get().is_published
    assert not AuditEntry.objects.filter(action="publish").exists()


def test_a_band_that_nothing_reaches_is_not_published(client, draft):
    make_meter()
    rows = [{"up_to": "1.2", "unit_amount": "1"}, {"up_to": "1.8", "unit_amount": "2"}, {"unit_amount": "3"}]
    thousands = {"op": "divide", "by": "1000", "round": "up"}
    draft(charge(price={"model": "graduated", "bands": rows, "transform": thousands}))
    refused = client.post(f"{VERSIONS}/1/publish", {"cohort": "new"})
    assert [(error["path"], error["code"]) for error in refused.json()["errors"]] == [
        ("charges.0.price.bands.1", "unreachable_band")
    ]


def test_bounds_per_event_with_free_events_are_not_even_saved(client, draft):
    make_meter()
    draft()
    price = {"model": "percentage", "rate": "2", "maximum_per_event": "1", "free_events": 5}
    document = {"currency": "USD", "charges": [charge(included="0", price=price)]}
    saved = client.put(f"{VERSIONS}/1", document, headers={"If-Match": "*"})
    assert [(error["path"], error["code"]) for error in saved.json()["errors"]] == [
        ("charges.0.price.free_events", "not_allowed")
    ]


def test_findings_are_for_keys_that_may_read(client, draft):
    draft()
    assert client_with("manage").get(f"{VERSIONS}/1/findings").status_code == 403
    assert client.get(f"{VERSIONS}/2/findings").status_code == 404
    assert client.get(f"{VERSIONS}/1/findings?x=1").status_code == 400


def test_the_staffs_page_of_a_draft_tells_them(admin_client, draft):
    make_meter()
    version = draft(charge(price=CLIFF), charge(meter=make_meter("words").code, price=BACKWARDS))
    page = admin_client.get(f"/admin/subscriptions/tierversion/{version.pk}/change/").content.decode()
    assert "must be mended" in page
    assert "10,000 units cost 2.00 USD; using more costs less than that, up to 13,333.333333 units." in page
