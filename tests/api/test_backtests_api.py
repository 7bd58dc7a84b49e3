"""Backtests over HTTP: asked for, run by a worker, read in pages, exported, cancelled."""

import pytest
from django.test import Client

from invoices.services import backtesting
from invoices.services.advancing import advance
from subscriptions.models import AuditEntry, Tenant
from subscriptions.services import catalog
from subscriptions.services.keys import issue_key
from tests.api.test_invoices_api import Api
from tests.world import ACTOR, at, charge, make_world

pytestmark = pytest.mark.django_db(transaction=True)

DEARER = {"model": "per_unit", "unit_amount": "0.0003"}


@pytest.fixture
def api():
    return Api()


@pytest.fixture
def world():
    """A tenant who used 12,000 of 10,000 tokens in June: $99 and 40 cents."""
    found = make_world(now=at("2026-06-20 00:00"))
    found.use(12_000, time=at("2026-06-05 00:00"))
    advance(clock_id=found.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
    return found


def draft(world, **terms):
    version = world.subscription.version
    document = {"currency": "USD", "interval": "month", "fee": "99.00", "charges": [charge(price=DEARER)]}
    return catalog.create_version(tier=version.tier, actor=ACTOR, document=document | terms)


def start(api, version, world, **body):
    asked = {"tier": version.tier.code, "version": version.number, "periods": 3, "test_clock": world.clock.code} | body
    return api.post("/backtests", {name: value for name, value in asked.items() if value is not None})


def test_a_backtest_runs_in_the_background_and_tells_what_changes_for_whom(api, world):
    answer = start(api, draft(world), world)
    assert answer.status_code == 202
    asked = answer.json()
    assert (asked["status"], asked["progress"], asked["failure"]) == ("running", 0, "")
    assert api.get(f"/backtests/{asked['id']}").json()["summary"] is None

    backtesting.run_backtests()
    found = api.get(f"/backtests/{asked['id']}").json()
    assert (found["status"], found["progress"], found["next"]) == ("done", 100, None)
    assert found["summary"] == {
        "before": "99.40",
        "after": "99.60",
        "difference": "0.20",
        "currency": "USD",
        "tenants": 1,
        "periods": 1,
        "skipped": 0,
        "p50": "0.20",
        "p95": "0.20",
        "worst": "0.20",
        "rises": 1,
        "falls": 0,
        "largest_rise_percent": "0.2013",
        "change_percent": "0.2012",
        "histogram": [
            {"direction": "same", "over": "0.00", "up_to": "0.00", "tenants": 0},
            {"direction": "rise", "over": "0.00", "up_to": "0.05", "tenants": 0},
            {"direction": "rise", "over": "0.05", "up_to": "0.10", "tenants": 0},
            {"direction": "rise", "over": "0.10", "up_to": "0.15", "tenants": 0},
            {"direction": "rise", "over": "0.15", "up_to": "0.20", "tenants": 1},
        ],
    }
    june = {"starts_at": "2026-06-01T00:00:00Z", "ends_at": "2026-07-01T00:00:00Z"}
    line = {"period": june, "kind": "overage", "meter": "tokens", "dimensions": {}, "before": "0.40", "after": "0.60"}
    assert found["tenants"] == [
        {
            "tenant": world.tenant.code,
            "before": "99.40",
            "after": "99.60",
            "difference": "0.20",
            "lines": [line],
            "skipped": [],
        }
    ]


def test_it_is_exported_as_a_table(api, world):
    asked = start(api, draft(world), world).json()
    backtesting.run_backtests()
    _, secret = issue_key(name="table", scopes=["read"], actor=ACTOR)
    headers = {"Authorization": f"Bearer {secret}", "Accept": "text/csv"}
    answer = Client(headers=headers).get(f"/api/v1/backtests/{asked['id']}/tenants.csv")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert b"".join(answer.streaming_content).decode().splitlines() == [
        "tenant,currency,before,after,difference,periods,skipped",
        f"{world.tenant.code},USD,99.40,99.60,0.20,1,0",
    ]


def test_it_is_cancelled_once_and_goes_no_further(api, world):
    asked = start(api, draft(world), world).json()
    cancelled = api.post(f"/backtests/{asked['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert backtesting.run_backtests() == 0
    assert api.get(f"/backtests/{asked['id']}").json()["tenants"] == []
    again = api.post(f"/backtests/{asked['id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "backtest_not_running")
    actions = AuditEntry.objects.filter(object_type="invoices.backtestrun").order_by("pk")
    assert [entry.action for entry in actions] == ["create", "cancel"]


@pytest.mark.parametrize(
    "body",
    [
        {"periods": None},
        {"from": "2026-06-01T00:00:00Z", "to": "2026-07-01T00:00:00Z"},
        {"periods": None, "from": "2026-06-01T00:00:00Z"},
        {"periods": None, "from": "2026-07-01T00:00:00Z", "to": "2026-07-01T00:00:00Z"},
        {"periods": 0},
        {"cohort": "all"},
    ],
)
def test_periods_are_said_in_one_way_and_nothing_else_is_said(api, world, body):
    answer = start(api, draft(world), world, **body)
    code = "unknown_field" if "cohort" in body else "validation"
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_a_span_of_time_takes_the_periods_that_lie_in_it(api, world):
    version = draft(world)
    inside = {"periods": None, "from": "2026-06-01T00:00:00Z", "to": "2026-07-01T00:00:00Z"}
    found = {}
    for name, body in {"inside": inside, "beside": inside | {"to": "2026-06-30T23:59:59Z"}}.items():
        asked = start(api, version, world, **body).json()
        backtesting.run_backtests()
        found[name] = api.get(f"/backtests/{asked['id']}").json()["summary"]["periods"]
    assert found == {"inside": 1, "beside": 0}


def test_tenants_on_a_clock_are_compared_only_where_that_is_named(api, world):
    asked = start(api, draft(world), world, test_clock=None).json()
    backtesting.run_backtests()
    summary = api.get(f"/backtests/{asked['id']}").json()["summary"]
    assert (summary["tenants"], summary["difference"], summary["worst"]) == (0, "0.00", None)


def test_tenants_are_named_or_chosen_by_their_metadata(api, world):
    version = draft(world)
    code = world.tenant.code
    Tenant.objects.filter(code=code).update(metadata={"plan": "old"})
    counts = {}
    for name, body in {
        "named": {"tenants": [code], "test_clock": None},
        "like it": {"metadata": {"plan": "old"}},
        "unlike it": {"metadata": {"plan": "new"}},
    }.items():
        asked = start(api, version, world, **body).json()
        backtesting.run_backtests()
        counts[name] = api.get(f"/backtests/{asked['id']}").json()["summary"]["tenants"]
    assert counts == {"named": 1, "like it": 1, "unlike it": 0}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"tenants": ["nobody"], "test_clock": None}, "tenants"),
        ({"tenants": [], "test_clock": None}, "tenants"),
        ({"tenants": ["nobody"]}, "tenants"),
        ({"metadata": {"a": {}}}, "metadata"),
    ],
)
def test_tenants_that_cannot_be_meant_are_refused_by_name(api, world, body, path):
    answer = start(api, draft(world), world, **body)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, path)


def test_a_draft_over_dimensions_that_a_meter_does_not_declare_says_which_meter_must(api, world):
    version = world.subscription.version
    body = {"currency": "USD", "interval": "month", "charges": [charge(dimensions={"model": "opus"}, included=None)]}
    answer = api.post(f"/tiers/{version.tier.code}/versions", body)
    assert answer.status_code == 422
    assert "the meter tokens declares" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("scope", ["read", "ingest", "gate"])
def test_who_may_not_manage_starts_nothing(world, scope):
    assert start(Api(scope), world.subscription.version, world).status_code == 403


def test_what_is_not_there_is_404(api, world):
    missing = "01890000-0000-7000-8000-000000000000"
    assert api.get(f"/backtests/{missing}").status_code == 404
    assert api.get(f"/backtests/{missing}/tenants.csv").status_code == 404
    assert api.post(f"/backtests/{missing}/cancel").status_code == 404
    assert api.post("/backtests", {"tier": world.subscription.version.tier.code, "version": 99}).status_code == 404
    assert start(api, world.subscription.version, world, test_clock="none").status_code == 404
