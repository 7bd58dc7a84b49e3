"""Invoices over HTTP: start, use, advance, read, explain, prove, void."""

import json
from typing import Any

import pytest
from django.test import Client

from invoices.services import invoicing
from subscriptions.models import IdempotencyKey
from subscriptions.services.keys import issue_key
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


class Api:
    """A client with a key."""

    def __init__(self, *scopes: str) -> None:
        scopes = scopes or ("ingest", "gate", "read", "manage")
        _, secret = issue_key(name="test", scopes=list(scopes), actor="system")
        self._client = Client(headers={"Authorization": f"Bearer {secret}"})

    def get(self, path: str, **query: Any):
        return self._client.get(f"/api/v1{path}", query)

    def send(self, method: str, address: str):
        return self._client.generic(method, address, "{}", "application/json")

    def post(self, path: str, body: Any = None, *, key: str | None = None):
        headers = {"Idempotency-Key": key} if key else {}
        return self._client.post(
            f"/api/v1{path}", json.dumps(body or {}), content_type="application/json", headers=headers
        )


def billed_world():
    world = make_world(now=at("2026-06-20 00:00"))
    world.use(12_345, time=at("2026-06-05 00:00"))
    world.use(100, time=at("2026-06-06 00:00"))
    response = Api().post(f"/test-clocks/{world.clock.code}/advance", {"to": "2026-07-01T02:00:00Z"})
    assert response.status_code == 200, response.content
    return world, response.json()


def test_advancing_a_clock_answers_with_the_journal_in_order():
    world, answer = billed_world()
    assert answer["now"] == "2026-07-01T02:00:00Z"
    assert [entry["what"] for entry in answer["journal"]] == ["book_overage", "open_period", "close_period"]


def test_an_invoice_explains_each_line_and_is_proved_from_its_events():
    world, _ = billed_world()
    api = Api()
    listed = api.get("/invoices", tenant=world.tenant.code).json()["results"]
    assert [(one["reason"], one["total"]) for one in listed] == [("period", "99.49"), ("opening", "99.00")]

    invoice = api.get(f"/invoices/{listed[0]['id']}").json()
    fee, overage = invoice["lines"]
    assert (fee["kind"], fee["amount"]) == ("fee", "99.00")
    assert (overage["quantity"], overage["amount"], overage["amount_precise"]) == ("2445", "0.49", "0.489")
    assert [part["quantity"] for part in overage["components"]] == ["2445"]

    events = api.get(f"/invoices/{invoice['id']}/lines/2/events").json()["results"]
    assert [event["data"]["total_tokens"] for event in events] == [100, 12345]
    assert api.get(f"/invoices/{invoice['id']}/lines/1/events").json()["results"] == []

    explained = api.get(f"/events/{events[0]['event']}").json()
    assert explained["invoice_lines"] == [{"invoice": invoice["id"], "number": "TEST-000002", "line": 2}]

    verified = api.post(f"/invoices/{invoice['id']}/verify", key="v1")
    assert verified.json() == {"equal": True, "differences": []}


def test_an_invoice_is_proved_anew_each_time_under_whatever_key():
    world, _ = billed_world()
    api = Api()
    period = api.get("/invoices", tenant=world.tenant.code).json()["results"][0]
    api.post(f"/invoices/{period['id']}/void", key="void")
    draft = invoicing.draft_unbilled(subscription_id=world.subscription.pk, now=world.now, actor=ACTOR)
    path = f"/invoices/{draft.public_id}/verify"
    assert api.post(path).json()["code"] == "idempotency_key_required"
    assert api.post(path, key="v").json() == {"equal": True, "differences": []}
    draft.lines.filter(kind="overage").update(amount="0.50")
    assert api.post(path, key="v").json()["differences"][0] == {
        "line": 2,
        "field": "amount",
        "expected": "0.49",
        "found": "0.5",
    }
    draft.delete()
    assert api.post(path, key="v").status_code == 404
    assert not IdempotencyKey.objects.filter(key="v").exists()


def test_a_voided_invoice_frees_what_it_billed_for_the_next_one():
    world, _ = billed_world()
    api = Api()
    period = api.get("/invoices", tenant=world.tenant.code).json()["results"][0]
    assert api.post(f"/invoices/{period['id']}/void", {"reason": "wrong address"}).status_code == 400
    voided = api.post(f"/invoices/{period['id']}/void", {"reason": "wrong address"}, key="void-1")
    assert voided.json()["status"] == "void"
    again = api.post(f"/invoices/{period['id']}/void", {"reason": "wrong address"}, key="void-1")
    assert again.json() == voided.json()
    assert api.post(f"/invoices/{period['id']}/void", {"reason": "again"}, key="void-2").status_code == 409

    api.post(f"/test-clocks/{world.clock.code}/advance", {"to": "2026-08-01T02:00:00Z"})
    august = api.get("/invoices", tenant=world.tenant.code).json()["results"][0]
    assert august["total"] == "198.49"


def test_integers_are_no_ids():
    assert Api().get("/invoices/1").status_code == 404


def test_reading_needs_the_scope():
    response = Api("ingest").get("/invoices")
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")


def test_the_upcoming_invoice_is_what_closing_bills_and_writes_nothing():
    world = make_world(now=at("2026-06-20 00:00"))
    world.use(12_345, time=at("2026-06-05 00:00"))
    api = Api()
    upcoming = api.get(f"/tenants/{world.tenant.code}/upcoming-invoice").json()
    assert (upcoming["id"], upcoming["number"], upcoming["total"]) == (None, None, "99.47")
    assert len(api.get("/invoices").json()["results"]) == 1
    api.post(f"/test-clocks/{world.clock.code}/advance", {"to": "2026-07-01T02:00:00Z"})
    assert api.get("/invoices").json()["results"][0]["total"] == "99.47"


def test_within_the_grace_the_old_period_is_the_upcoming_one_and_afterwards_there_may_be_none():
    world = make_world(now=at("2026-06-20 00:00"))
    world.use(12_345, time=at("2026-06-05 00:00"))
    api = Api()
    path = f"/tenants/{world.tenant.code}/upcoming-invoice"
    api.post(f"/test-clocks/{world.clock.code}/advance", {"to": "2026-07-01T00:30:00Z"})
    assert (api.get(path).json()["period"]["ends_at"], api.get(path).json()["total"]) == (
        "2026-07-01T00:00:00Z",
        "99.47",
    )
    api.post(f"/test-clocks/{world.clock.code}/advance", {"to": "2026-07-01T01:00:00Z"})
    assert (api.get(path).json()["period"]["ends_at"], api.get(path).json()["total"]) == (
        "2026-08-01T00:00:00Z",
        "99.00",
    )

    [subscription] = api.get("/subscriptions").json()["results"]
    api.post(f"/subscriptions/{subscription['id']}/cancel", {"when": "now", "credit": "none"}, key="c1")
    assert api.get(path).status_code == 204
    api.post(f"/test-clocks/{world.clock.code}/advance", {"to": "2026-07-02T00:00:00Z"})
    assert (api.get(path).status_code, api.get(path).json()["code"]) == (404, "no_period")


def test_a_reason_for_voiding_is_welcome_and_not_demanded():
    make_world()
    api = Api()
    [opening] = api.get("/invoices").json()["results"]
    assert api.post(f"/invoices/{opening['id']}/void", {"why": "x"}, key="v1").json()["code"] == "unknown_field"
    assert api.post(f"/invoices/{opening['id']}/void", key="v1").json()["status"] == "void"
    assert api.post(f"/invoices/{opening['id']}/finalize", key="f1").json()["code"] == "state_conflict"


def test_an_invoice_is_neither_edited_nor_deleted():
    make_world()
    api = Api()
    [opening] = api.get("/invoices").json()["results"]
    for method in ("put", "patch", "delete"):
        answer = getattr(api._client, method)(f"/api/v1/invoices/{opening['id']}", content_type="application/json")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


def test_lists_are_filtered_paged_and_refuse_what_they_do_not_know():
    world, _ = billed_world()
    api = Api()
    api.post(f"/test-clocks/{world.clock.code}/advance", {"to": "2026-09-02T00:00:00Z"})
    first = api.get("/invoices", tenant=world.tenant.code, status="open", limit=3).json()
    assert len(first["results"]) == 3
    rest = api._client.get(first["next"]).json()
    assert [one["reason"] for one in rest["results"]] == ["opening"]
    assert api.get("/invoices", status="paid").json()["results"] == []
    assert api.get("/invoices", tenant="nobody").status_code == 404
    assert [
        api.get("/invoices", **bad).status_code for bad in ({"status": "lost"}, {"state": "open"}, {"limit": 0})
    ] == [400] * 3


def test_the_events_of_a_line_come_in_pages_and_of_its_charge_alone():
    make_meter(dimensions=["model"])
    opus = charge(dimensions={"model": "opus"}, included=None, price={"model": "per_unit", "unit_amount": "0.001"})
    world = make_world(version=publish("pools", charges=[charge(included="0"), opus]), now=at("2026-06-20 00:00"))
    for day in range(5, 10):
        world.use(1000, time=at(f"2026-06-0{day} 00:00"), model="opus")
        world.use(1000, time=at(f"2026-06-0{day} 12:00"), model="haiku")
    api = Api()
    api.post(f"/test-clocks/{world.clock.code}/advance", {"to": "2026-07-01T02:00:00Z"})
    world.use(500, time=at("2026-06-11 00:00"), model="opus")
    api.post(f"/test-clocks/{world.clock.code}/advance", {"to": "2026-08-01T02:00:00Z"})
    august, july, _ = api.get("/invoices").json()["results"]

    [line] = [line for line in july["lines"] if "opus" in line["description"]]
    path = f"/invoices/{july['id']}/lines/{line['number']}/events"
    first = api.get(path, limit=3).json()
    rest = api._client.get(first["next"]).json()
    assert [event["data"]["model"] for event in first["results"] + rest["results"]] == ["opus"] * 5
    [late] = [line for line in august["lines"] if line["kind"] == "overage"]
    [event] = api.get(f"/invoices/{august['id']}/lines/{late['number']}/events").json()["results"]
    assert event["data"] == {"total_tokens": 500, "model": "opus"}
    assert api.get(f"/invoices/{july['id']}/lines/99/events").status_code == 404


def test_a_subscription_starts_once_per_key_and_is_cancelled_with_a_credit():
    world = make_world(now=at("2026-06-16 00:00"))
    api = Api()
    [subscription] = api.get("/subscriptions", tenant=world.tenant.code).json()["results"]
    assert (subscription["status"], len(subscription["periods"])) == ("active", 1)
    path = f"/subscriptions/{subscription['id']}/cancel"
    cancelled = api.post(path, {"when": "now", "credit": "unused"}, key="c1").json()
    assert cancelled["ends_at"] == "2026-06-16T00:00:00Z"
    api.post(f"/test-clocks/{world.clock.code}/advance", {"to": "2026-06-17T00:00:00Z"})
    final = api.get("/invoices", tenant=world.tenant.code).json()["results"][0]
    # 16 June counts as used: 14 of 30 days of $99.00 are given back.
    assert (final["reason"], final["subtotal"], final["total"], final["status"]) == ("final", "-46.20", "0.00", "paid")


GRADUATED = [{"up_to": "10000", "unit_amount": "0"}, {"up_to": "1000000", "unit_amount": "0.0002"}]
BANDS = [*GRADUATED, {"up_to": None, "unit_amount": "0.00015"}]


@pytest.mark.parametrize(
    ("price", "included", "amount_precise"),
    [
        ({"model": "per_unit", "unit_amount": "0.0002"}, "10000", "244.9134"),
        ({"model": "package", "size": "1000", "amount": "0.20"}, "10000", "245"),
        ({"model": "graduated", "bands": BANDS}, "10000", "231.68505"),
        ({"model": "volume", "bands": BANDS}, "10000", "183.68505"),
        ({"model": "graduated", "bands": BANDS}, "0", "233.18505"),
        ({"model": "volume", "bands": BANDS}, "0", "185.18505"),
        ({"model": "package", "size": "1000", "amount": "0.20"}, "0", "247"),
        ({"model": "per_unit", "unit_amount": "0.000000000001"}, "0", "0.000001234567"),
    ],
)
def test_quotes_give_the_golden_figures(price, included, amount_precise):
    answer = Api().post("/quotes", {"price": price, "included": included, "quantity": "1234567"}).json()
    assert answer["amount_precise"] == amount_precise


def test_a_million_events_of_three_tokens_are_six_hundred_dollars():
    price = {"model": "per_unit", "unit_amount": "0.0002"}
    answer = Api().post("/quotes", {"price": price, "quantity": 3_000_000, "events": 1_000_000}).json()
    assert answer["amount"] == "600.00"


def test_a_tier_is_quoted_with_its_fee_and_its_pools():
    make_meter(dimensions=["direction"])
    out = charge(dimensions={"direction": "output"}, included=None, price={"model": "per_unit", "unit_amount": "0.001"})
    publish("quoted", charges=[charge(), out])
    usage = [
        {"meter": "tokens", "dimensions": {"direction": "input"}, "quantity": "6000"},
        {"meter": "tokens", "dimensions": {"direction": "output"}, "quantity": "6000"},
    ]
    answer = Api().post("/quotes", {"tier": "quoted", "usage": usage}).json()
    assert [line["amount"] for line in answer["lines"]] == ["99.00", "0.20", "1.00"]
    assert answer["amount"] == "100.20"


def test_a_quote_needs_exactly_one_form():
    response = Api().post("/quotes", {"quantity": 5})
    assert response.status_code == 422
    wrong = Api().post("/quotes", {"price": {"model": "per_unit", "unit_amont": "1"}, "quantity": 5})
    assert wrong.status_code == 422
    assert "price.unit_amont" in [error["path"] for error in wrong.json()["errors"]]
