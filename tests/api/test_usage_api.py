"""`/tenants/{tenant}/usage`: sums by window and dimension."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from billing_site.http.wire import timestamp
from metering.models import UsageEvent
from metering.selectors import usage as selector
from subscriptions.services.keys import issue_key
from tests.world import at, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

NOW = at("2026-06-20 12:00")


@pytest.fixture
def client():
    _, secret = issue_key(name="back office", scopes=["read", "manage"], actor="system")
    return Client(headers={"Authorization": f"Bearer {secret}"})


@pytest.fixture
def world(client):
    make_meter(dimensions=["model", "region"])
    return make_world(now=NOW, timezone="America/New_York")


def ask(client, world, **query):
    return client.get(f"/api/v1/tenants/{world.tenant.code}/usage", query)


def rows(client, world, **query):
    response = ask(client, world, **query)
    assert response.status_code == 200, response.content
    return [
        (row["starts_at"], *row["group"].values(), row["quantity"], row["events"]) for row in response.json()["results"]
    ]


def test_without_a_window_it_is_one_sum_of_the_last_thirty_days(client, world):
    world.use("0.1", time=NOW)
    world.use("0.2", time=at("2026-06-01 00:00"))
    answer = ask(client, world).json()
    assert answer == {
        "tenant": world.tenant.code,
        "timezone": "America/New_York",
        "from": "2026-05-21T12:00:00.000001Z",
        "to": "2026-06-20T12:00:00.000001Z",
        "results": [
            {"meter": "tokens", "starts_at": None, "ends_at": None, "group": {}, "quantity": "0.3", "events": 2}
        ],
    }


def test_days_begin_at_the_tenants_midnight(client, world):
    world.use(1, time=at("2026-06-10 03:59"))
    world.use(2, time=at("2026-06-10 04:00"))
    world.use(4, time=at("2026-06-12 03:59"))
    days = ask(client, world, window="day").json()["results"]
    assert [(day["starts_at"], day["ends_at"], day["quantity"]) for day in days] == [
        ("2026-06-09T04:00:00Z", "2026-06-10T04:00:00Z", "1"),
        ("2026-06-10T04:00:00Z", "2026-06-11T04:00:00Z", "2"),
        ("2026-06-11T04:00:00Z", "2026-06-12T04:00:00Z", "4"),
    ]


def test_hours_and_months_too(client, world):
    world.use(1, time=at("2026-06-10 03:59"))
    world.use(2, time=at("2026-06-10 04:00"))
    query = {"from": "2026-06-01T00:00:00Z", "to": "2026-06-20T00:00:00Z"}
    assert rows(client, world, window="hour", **query) == [
        ("2026-06-10T03:00:00Z", "1", 1),
        ("2026-06-10T04:00:00Z", "2", 1),
    ]
    assert rows(client, world, window="month", **query) == [("2026-06-01T04:00:00Z", "3", 2)]


def test_the_stretch_is_half_open_and_cuts_windows(client, world):
    for minute in range(4):
        world.use(10**minute, time=at("2026-06-10 12:00") + timedelta(minutes=minute))
    query = {"from": "2026-06-10T12:01:00Z", "to": "2026-06-10T12:03:00Z"}
    assert rows(client, world, window="day", **query) == [("2026-06-10T04:00:00Z", "110", 2)]


def test_by_dimension_one_row_per_value_and_none_is_empty(client, world):
    world.use(1, time=NOW, model="opus", region="eu")
    world.use(2, time=NOW, model="opus", region="us")
    world.use(4, time=NOW, model="haiku")
    world.use(8, time=NOW)
    assert rows(client, world, meter="tokens", group_by="model") == [
        (None, "", "8", 1),
        (None, "haiku", "4", 1),
        (None, "opus", "3", 2),
    ]


def test_each_meter_has_its_rows(client, world):
    make_meter("calls", aggregation="count", value_property=None)
    tier = publish("two", charges=[{"kind": "usage", "meter": code, "included": "0", "price": {"model": "flat", "amount": "1"}} for code in ("calls", "tokens")])  # fmt: skip
    two = make_world(version=tier, now=NOW)
    two.use(7, time=NOW)
    results = ask(client, two).json()["results"]
    assert [(row["meter"], row["quantity"]) for row in results] == [("calls", "1"), ("tokens", "7")]
    assert [row["meter"] for row in ask(client, two, meter="calls").json()["results"]] == ["calls"]


def test_a_reversal_is_taken_off_where_the_event_was(client, world):
    world.use(5, time=at("2026-06-10 12:00"))
    world.use(6, time=at("2026-06-10 13:00"))
    event = UsageEvent.objects.get(event_id="e1")
    body = json.dumps({"reason": "x"})
    reversal = client.post(f"/api/v1/events/{event.pk}/reverse", body, content_type="application/json")
    assert reversal.status_code == 200
    assert rows(client, world, window="day") == [("2026-06-10T04:00:00Z", "6", 1)]


def test_a_replayed_event_counts_where_it_had_occurred(client, world):
    # The window of an unknown tenant's events is that of the wall clock.
    half_past = datetime.now(tz=UTC).replace(minute=30, second=0, microsecond=0) - timedelta(days=2)
    event = world.event(3, time=half_past)
    event.subject = "org_new"
    world.record(event)
    now = half_past + timedelta(days=2)
    new = make_world(code="org_new", version=publish("new"), starts_at=half_past - timedelta(days=5), now=now)
    assert rows(client, new) == []
    answer = client.post("/api/v1/events/replay", "{}", content_type="application/json").json()
    assert answer == {"counted": 1, "unmatched": 0}
    hour = half_past.replace(minute=0)
    assert rows(client, new, window="hour", **{"from": timestamp(hour - timedelta(days=1)), "to": timestamp(now)}) == [
        (timestamp(hour), "3", 1)
    ]


def test_other_tenants_usage_is_their_own(client, world):
    world.use(1, time=NOW)
    other = make_world(version=publish("other"), now=NOW)
    other.use(2, time=NOW)
    assert rows(client, world) == [(None, "1", 1)]
    assert rows(client, other) == [(None, "2", 1)]


def test_an_hour_that_comes_twice_has_two_rows(client):
    make_meter()
    world = make_world(now=at("2026-11-01 12:00"), starts_at=at("2026-10-15 00:00"), timezone="America/New_York")
    world.use(1, time=at("2026-11-01 05:30"))
    world.use(2, time=at("2026-11-01 06:30"))
    assert rows(client, world, window="hour") == [("2026-11-01T05:00:00Z", "1", 1), ("2026-11-01T06:00:00Z", "2", 1)]
    (day,) = ask(client, world, window="day").json()["results"]
    assert (day["starts_at"], day["ends_at"]) == ("2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z")


def test_hours_of_a_zone_that_is_half_an_hour_off(client):
    make_meter()
    world = make_world(now=NOW, timezone="Asia/Kolkata")
    world.use(1, time=at("2026-06-10 12:29"))
    world.use(2, time=at("2026-06-10 12:30"))
    assert rows(client, world, window="hour") == [("2026-06-10T11:30:00Z", "1", 1), ("2026-06-10T12:30:00Z", "2", 1)]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"window": "week"}, "window"),
        ({"group_by": "model"}, "group_by"),
        ({"meter": "tokens", "group_by": "modell"}, "group_by"),
        ({"from": "2026-06-20T00:00:00Z", "to": "2026-06-20T00:00:00Z"}, "to"),
        ({"from": "2025-05-01T00:00:00Z", "to": "2026-06-20T00:00:00Z"}, "to"),
        ({"from": "2026-05-01T00:00:00Z", "to": "2026-06-20T00:00:00Z", "window": "hour"}, "to"),
        ({"from": "1970-01-01T00:00:00Z"}, "to"),
        ({"to": "1970-01-01T00:00:00Z"}, None),
        ({"from": "2999-12-31T23:59:59.999999Z"}, None),
        ({"meters": "tokens"}, "meters"),
    ],
)
def test_bad_queries_are_400_and_extreme_times_no_error(client, world, query, path):
    response = ask(client, world, **query)
    if path is None:
        assert (response.status_code, response.json()["results"]) == (200, [])
    else:
        assert response.status_code == 400
        assert [error["path"] for error in response.json()["errors"]] == [path]


def test_an_answer_that_nobody_would_read_is_refused(client, world, monkeypatch):
    monkeypatch.setattr(selector, "ROWS_MAX", 1)
    world.use(1, time=at("2026-06-10 12:00"))
    world.use(1, time=at("2026-06-11 12:00"))
    response = ask(client, world, window="day")
    assert (response.status_code, response.json()["code"]) == (400, "too_many_rows")
    assert ask(client, world).status_code == 200


@pytest.mark.parametrize("tenant", ["nobody", "a%00b", "a%2Fb", "a%0a", "%ff", "a" * 101])
def test_there_is_nothing_of_an_unknown_tenant(client, tenant):
    for resource in ("usage", "ledger", "balances"):
        response = client.get(f"/api/v1/tenants/{tenant}/{resource}")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_reading_needs_its_scope(world):
    _, secret = issue_key(name="gateway", scopes=["ingest", "gate"], actor="system")
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    for resource in ("usage", "ledger", "balances"):
        assert client.get(f"/api/v1/tenants/{world.tenant.code}/{resource}").status_code == 403


def test_a_window_ends_where_the_next_one_begins():
    assert selector.window_end(datetime(2026, 12, 1, tzinfo=UTC), selector.Window.MONTH, "UTC") == datetime(
        2027, 1, 1, tzinfo=UTC
    )
