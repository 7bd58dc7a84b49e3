"""Meters that do not add up, over HTTP: made, used, read, reversed, closed, billed and proved."""

from dataclasses import dataclass

import pytest

from metering.models import UsageEvent
from tests.api.test_invoices_api import Api

pytestmark = pytest.mark.django_db(transaction=True)

PER_SEAT = {"model": "per_unit", "unit_amount": "2.50"}


@pytest.fixture
def api():
    return Api()


def done(response, status=200):
    assert response.status_code == status, response.content
    return response.json()


def subscribe(api, aggregation):
    """Make all that a tenant needs to be billed for a gauge: 3 included, $2.50 for each beyond, from 1 June."""
    gauge = {"code": "gauge", "name": "Gauge", "event_type": "gauge.read", "aggregation": aggregation}
    done(api.post("/meters", gauge | {"value_property": "seats", "dimensions": ["region"]}), 201)
    done(api.post("/tiers", {"code": "team", "name": "Team"}), 201)
    charges = [{"kind": "usage", "meter": "gauge", "included": "3", "price": PER_SEAT}]
    done(
        api.post("/tiers/team/versions", {"currency": "USD", "interval": "month", "fee": "0", "charges": charges}), 201
    )
    done(api.post("/tiers/team/versions/1/publish", {"cohort": "new"}))
    done(api.post("/test-clocks", {"id": "june", "now": "2026-06-01T00:00:00Z"}), 201)
    done(api.post("/tenants", {"id": "org", "name": "Org", "test_clock": "june"}), 201)
    done(api.post("/subscriptions", {"tenant": "org", "tier": "team"}, key="s"), 201)
    advance(api, "2026-06-20T00:00:00Z")


def advance(api, to):
    return done(api.post("/test-clocks/june/advance", {"to": to}))


def send(api, name, day, value, region="eu", *, subject="org"):
    data = {"seats": value, "region": region}
    event = {"id": name, "type": "gauge.read", "subject": subject, "time": f"2026-06-{day:02}T00:00:00Z", "data": data}
    return done(api.post("/events", event), 202)


def reverse(api, name):
    event = UsageEvent.objects.get(event_id=name).pk
    return done(api.post(f"/events/{event}/reverse", {"reason": "a mistake"}))


def balance(api):
    [pool] = [one for one in done(api.get("/tenants/org/balances"))["results"] if one["meter"] == "gauge"]
    return pool["used"], pool["remaining"], pool["overage"], pool["overage_amount_precise"], pool["state"]


def usage(api, **query):
    times = {"from": "2026-06-01T00:00:00Z", "to": "2026-07-01T00:00:00Z"}
    rows = done(api.get("/tenants/org/usage", **times, **query))["results"]
    return [(row["starts_at"], *row["group"].values(), row["quantity"], row["events"]) for row in rows]


def overage_lines(api):
    """Return quantity and amount of the overage on the newest invoice, which must be proved; a period without any has no invoice."""
    invoices = done(api.get("/invoices", tenant="org"))["results"]
    if not invoices:
        return []
    invoice = invoices[0]
    proof = done(api.post(f"/invoices/{invoice['id']}/verify", key=invoice["id"]))
    assert proof == {"equal": True, "differences": []}
    lines = done(api.get(f"/invoices/{invoice['id']}"))["lines"]
    return [(line["quantity"], line["amount"]) for line in lines if line["kind"] == "overage"]


@dataclass
class Figures:
    sent: tuple[str, ...]
    days: list[tuple[str, int]]
    regions: list[tuple[str, str, int]]
    mistake: str
    corrected: tuple[str, ...]
    billed: list[tuple[str, str]]
    late: list[tuple[str, str]]


STORIES = {
    "max": Figures(
        sent=("7", "0", "4", "10", "overage"),
        days=[("5", 3), ("6", 2)],
        regions=[("eu", "5", 4), ("us", "2", 1)],
        mistake="a",
        corrected=("6", "0", "3", "7.5", "overage"),
        billed=[("3", "7.50")],
        late=[("5", "12.50")],
    ),
    "latest": Figures(
        sent=("6", "0", "3", "7.5", "overage"),
        days=[("3", 3), ("6", 2)],
        regions=[("eu", "4", 4), ("us", "2", 1)],
        mistake="c",
        corrected=("5", "0", "2", "5", "overage"),
        billed=[("2", "5.00")],
        late=[("6", "15.00")],
    ),
    "unique_count": Figures(
        sent=("4", "0", "1", "2.5", "overage"),
        days=[("2", 3), ("2", 2)],
        regions=[("eu", "3", 4), ("us", "1", 1)],
        mistake="a",
        corrected=("3", "0", "0", "0", "exhausted"),
        billed=[],
        late=[("1", "2.50")],
    ),
}


@pytest.mark.parametrize("aggregation", STORIES)
def test_a_gauge_is_made_used_corrected_billed_and_proved(api, aggregation):
    story = STORIES[aggregation]
    subscribe(api, aggregation)
    for name, day, value, region in (("a", 2, 5, "eu"), ("c", 5, 4, "eu"), ("d", 5, 2, "us"), ("b", 2, "3", "eu")):
        send(api, name, day, value, region)
    [told] = send(api, "e", 2, 3, "eu")["balances"]
    assert (told["used"], told["remaining"], told["overage"]) == story.sent[:3]
    assert balance(api) == story.sent
    assert [row[1:] for row in usage(api, meter="gauge", window="day")] == story.days
    assert [row[1:] for row in usage(api, meter="gauge", group_by="region")] == story.regions
    assert usage(api) == [(None, story.sent[0], 5)]

    answer = reverse(api, story.mistake)
    assert [one["kind"] for one in answer["counted_as"]] == ["record", "reversal"]
    assert answer["counted_as"][0]["segment"]["starts_at"] == "2026-06-01T00:00:00Z"
    assert answer["counted_as"][0]["pool"]["used"] == story.corrected[0]
    assert balance(api) == story.corrected
    assert usage(api) == [(None, story.corrected[0], 4)]

    advance(api, "2026-07-01T02:00:00Z")
    assert overage_lines(api) == story.billed
    send(api, "f", 6, 9, "eu")
    advance(api, "2026-08-01T02:00:00Z")
    assert overage_lines(api) == story.late


def test_all_meters_are_listed_together_whether_they_add_up_or_not(api):
    subscribe(api, "max")
    calls = {"code": "calls", "name": "Calls", "event_type": "gauge.read", "aggregation": "count"}
    done(api.post("/meters", calls), 201)
    charges = [{"kind": "usage", "meter": meter, "included": "3", "price": PER_SEAT} for meter in ("gauge", "calls")]
    done(api.post("/tiers", {"code": "both", "name": "Both"}), 201)
    done(
        api.post("/tiers/both/versions", {"currency": "USD", "interval": "month", "fee": "0", "charges": charges}), 201
    )
    done(api.post("/tiers/both/versions/1/publish", {"cohort": "new"}))
    done(api.post("/tenants", {"id": "other", "name": "Other", "test_clock": "june"}), 201)
    done(
        api.post("/subscriptions", {"tenant": "other", "tier": "both", "starts_at": "2026-06-01T00:00:00Z"}, key="o"),
        201,
    )
    for name, day, value in (("a", 3, 4), ("b", 2, 6), ("c", 3, 5)):
        send(api, name, day, value, subject="other")
    times = {"from": "2026-06-01T00:00:00Z", "to": "2026-07-01T00:00:00Z"}
    rows = done(api.get("/tenants/other/usage", window="day", **times))["results"]
    assert [(row["starts_at"][8:10], row["meter"], row["quantity"], row["events"]) for row in rows] == [
        ("02", "calls", "1", 1),
        ("02", "gauge", "6", 1),
        ("03", "calls", "2", 2),
        ("03", "gauge", "5", 2),
    ]
