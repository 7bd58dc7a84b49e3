"""Usage over HTTP: events in every form, what is answered, taken back and counted again, and what is shown of it."""

import gzip
import json
from typing import Any

import pytest
from django.test import Client

from metering.models import UsageEvent
from subscriptions.models import TestClock
from subscriptions.services.keys import issue_key
from tests.world import World, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

NOW = "2026-06-20 00:00"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


class Api:
    """A client with a key."""

    def __init__(self, *scopes: str) -> None:
        _, secret = issue_key(name="test", scopes=list(scopes or ("ingest", "read", "manage")), actor="system")
        self._client = Client(headers={"Authorization": f"Bearer {secret}"})

    def get(self, path: str, **query: Any):
        return self._client.get(f"/api/v1{path}", query)

    def post(self, path: str, body: Any, kind: str = "application/json", **headers: str):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._client.generic("POST", f"/api/v1{path}", content, kind, headers=headers)

    def record(self, body: Any, kind: str = "application/json", **headers: str):
        return self.post("/events", body, kind, **headers)

    def results(self, path: str, **query: Any) -> list[dict[str, Any]]:
        response = self.get(path, **query)
        assert response.status_code == 200, response.content
        return response.json()["results"]


def event(world: World, name: str, tokens: Any = 100, **members: Any) -> dict[str, Any]:
    data = {"total_tokens": tokens}
    return {"id": name, "type": "llm.completion", "subject": world.tenant.code, "data": data, **members}


def cloud(world: World, name: str, **members: Any) -> dict[str, Any]:
    return event(world, name, specversion="1.0", source="cloud", **members)


def test_one_event_is_answered_with_its_id_and_its_pool():
    world, api = make_world(now=at(NOW)), Api()
    response = api.record(event(world, "one", 10_340))
    answer = response.json()
    assert response.status_code == 202
    assert answer.pop("event") == str(UsageEvent.objects.get().pk)
    assert answer == {
        "accepted": 1,
        "duplicates": 0,
        "conflicts": 0,
        "rejected": 0,
        "unmatched": 0,
        "problems": [],
        "balances": [
            {
                "tenant": world.tenant.code,
                "meter": "tokens",
                "dimensions": {},
                "period_ends_at": "2026-07-01T00:00:00Z",
                "used": "10340",
                "included": "10000",
                "remaining": "0",
                "overage": "340",
                "overage_amount_precise": "0.068",
                "state": "overage",
            }
        ],
    }


def test_every_form_is_read_and_counts_the_same():
    world, api = make_world(now=at(NOW)), Api()
    packed = gzip.compress(json.dumps([event(world, "packed")]).encode())
    attributes = {"ce-specversion": "1.0", "ce-id": "binary", "ce-source": "cloud", "ce-type": "llm.completion"}
    answers = [
        api.record(event(world, "single")),
        api.record([event(world, "array-1"), event(world, "array-2")]),
        api.record({"events": [event(world, "wrapped")]}),
        api.record(cloud(world, "structured", tracestate="extension"), STRUCTURED),
        api.record([cloud(world, "batch")], BATCH),
        api.record({"total_tokens": 100}, **attributes, **{"ce-subject": world.tenant.code}),
        api.record(packed, **{"Content-Encoding": "gzip"}),
    ]
    assert [one.status_code for one in answers] == [202] * 7
    assert [one.json()["accepted"] for one in answers] == [1, 2, 1, 1, 1, 1, 1]
    # Only the answer to a single event names ours.
    assert ["event" in one.json() for one in answers] == [True, False, False, True, False, True, False]
    assert world.position() == ("800", "800", "0")
    sources = {one.event_id: one.source for one in UsageEvent.objects.all()}
    assert (sources["single"], sources["structured"], sources["binary"]) == ("default", "cloud", "cloud")


def test_a_single_event_has_the_status_of_what_became_of_it():
    world, api = make_world(now=at(NOW)), Api()
    first = api.record(event(world, "same", 100))
    again = api.record(event(world, "same", "100.0"))
    assert (again.status_code, again.json()["duplicates"], again.json()["event"]) == (200, 1, first.json()["event"])

    other = api.record(event(world, "same", 101))
    assert (other.status_code, other.json()["code"], other.json()["event"]) == (409, "conflict", first.json()["event"])
    assert [one["path"] for one in other.json()["errors"]] == ["data.total_tokens"]

    rejected = api.record(event(world, "bad", "many"))
    assert (rejected.status_code, rejected.json()["code"]) == (422, "invalid_quantity")
    assert rejected.json()["errors"][0]["path"] == "data.total_tokens"

    early = api.record(event(world, "old", time="2026-05-01T00:00:00Z"))
    assert (early.status_code, early.json()["code"]) == (422, "too_old")

    unmatched = api.record(event(world, "other", type="image"))
    assert (unmatched.status_code, unmatched.json()["problems"][0]["code"]) == (202, "no_meter")

    for empty in ([], {"events": []}):
        assert (api.record(empty).status_code, api.record(empty).json()["code"]) == (400, "empty_batch")
    assert api.record(b"{").status_code == 400
    assert world.position() == ("100", "100", "0")


def test_a_batch_is_answered_event_by_event():
    world, api = make_world(now=at(NOW)), Api()
    api.record(event(world, "same"))
    sent = [
        event(world, "new"),
        event(world, "same"),
        event(world, "same", 101),
        event(world, "bad", -1),
        event(world, "lost", subject="nobody"),
    ]
    answer = api.record(sent)
    assert answer.status_code == 202
    names = ("accepted", "duplicates", "conflicts", "rejected", "unmatched")
    assert [answer.json()[name] for name in names] == [1] * 5
    shown = [(one["index"], one["id"], one["status"], one["code"]) for one in answer.json()["problems"]]
    assert shown == [
        (2, "same", "conflict", "conflict"),
        (3, "bad", "rejected", "invalid_quantity"),
        (4, "lost", "unmatched", "unknown_tenant"),
    ]
    assert answer.json()["problems"][0]["fields"] == ["data.total_tokens"]
    refused = api.record([event(world, "bad", -1), "x"])
    assert (refused.status_code, refused.json()["code"], refused.json()["rejected"]) == (422, "all_rejected", 2)


def test_while_the_clock_advances_an_event_is_told_to_come_back():
    world, api = make_world(now=at(NOW)), Api()
    TestClock.objects.filter(pk=world.clock.pk).update(status="advancing", advancing_to=at("2026-06-21 00:00"))
    response = api.record(event(world, "busy"))
    assert (response.status_code, response.json()["code"]) == (409, "clock_advancing")
    assert response["Retry-After"] == "1"
    TestClock.objects.filter(pk=world.clock.pk).update(status="ready", advancing_to=None)
    assert api.record(event(world, "busy")).status_code == 202


def test_an_event_is_taken_back_once_with_a_reason():
    world, api = make_world(now=at(NOW)), Api()
    ours = api.record(event(world, "wrong", 10_340)).json()["event"]
    path = f"/events/{ours}/reverse"
    assert api.post(path, {}).status_code == 422
    assert api.post(path, {"reason": "a test", "amount": 1}).json()["code"] == "unknown_field"
    assert Api("ingest").post(path, {"reason": "a test"}).status_code == 403

    detail = api.post(path, {"reason": "a test"})
    assert (detail.status_code, detail.json()["status"]) == (200, "reversed")
    assert [(one["kind"], one["quantity"]) for one in detail.json()["counted_as"]] == [
        ("record", "10340"),
        ("reversal", "-10340"),
    ]
    assert world.position() == ("0", "0", "0")
    again = api.post(path, {"reason": "a test"})
    assert (again.status_code, again.json()["code"]) == (409, "event_reversed")
    # It keeps its identity: the same event does not count again.
    assert api.record(event(world, "wrong", 10_340)).status_code == 200

    unmatched = api.record(event(world, "image", type="image")).json()["event"]
    refused = api.post(f"/events/{unmatched}/reverse", {"reason": "a test"})
    assert (refused.status_code, refused.json()["code"]) == (409, "event_not_counted")
    nothing = api.post("/events/00000000-0000-7000-8000-000000000000/reverse", {"reason": "a test"})
    assert (nothing.status_code, nothing.json()["code"]) == (404, "not_found")


def test_events_of_a_tenant_to_come_are_counted_once_it_is_there():
    make_meter()
    api = Api()
    sent = {"id": "early", "type": "llm.completion", "subject": "org_late", "data": {"total_tokens": 70}}
    assert api.record(sent | {"time": None}).json()["problems"][0]["code"] == "unknown_tenant"
    stored = UsageEvent.objects.get()
    assert api.post("/events/replay", {}).json() == {"counted": 0, "unmatched": 1}

    starts_at = stored.occurred_at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    world = make_world(code="org_late", starts_at=starts_at, now=stored.occurred_at)
    assert api.post("/events/replay", {"tenant": "org_other"}).json() == {"counted": 0, "unmatched": 0}
    assert api.post("/events/replay", {"tenant": "org_late"}).json() == {"counted": 1, "unmatched": 0}
    assert api.post("/events/replay", {}).json() == {"counted": 0, "unmatched": 0}
    assert world.position() == ("70", "70", "0")
    [shown] = api.results("/events", tenant="org_late", meter="tokens")
    assert (shown["status"], shown["code"]) == ("counted", "")
    assert Api("ingest").post("/events/replay", {}).status_code == 403


def test_events_are_listed_by_what_is_asked_for():
    world, api = make_world(now=at(NOW)), Api()
    make_meter("images", event_type="image", aggregation="count", value_property=None)
    api.record(
        [
            event(world, "a", "0.10", time="2026-06-10T00:00:00Z"),
            event(world, "b", source="other", time="2026-06-11T00:00:00Z"),
            event(world, "c", type="image", time="2026-06-12T00:00:00Z"),
            event(world, "d", subject="nobody"),  # of the wall time, which nobody else here lives in
        ]
    )

    def listed(**query: str) -> list[str]:
        return [one["id"] for one in api.results("/events", **query)]

    assert listed() == ["d", "c", "b", "a"]
    assert listed(tenant=world.tenant.code) == ["c", "b", "a"]
    assert listed(source="other") == ["b"]
    assert listed(id="a") == ["a"]
    assert listed(meter="tokens") == ["b", "a"]
    assert listed(meter="images") == []
    # The start belongs to the stretch, the end does not.
    assert listed(**{"from": "2026-06-11T00:00:00Z", "to": "2026-06-13T00:00:00Z"}) == ["c", "b"]
    [shown] = api.results("/events", id="a")
    del shown["event"], shown["recorded_at"]
    assert shown == {
        "id": "a",
        "source": "default",
        "type": "llm.completion",
        "subject": world.tenant.code,
        "time": "2026-06-10T00:00:00Z",
        "data": {"total_tokens": "0.10"},
        "status": "counted",
        "code": "",
    }
    assert api.results("/events", id="c")[0]["code"] == "not_in_tier"
    assert api.get("/events", meter="none").status_code == 404


def test_usage_is_summed_up_by_window_and_dimension():
    make_meter(dimensions=["model"])
    world, api = make_world(now=at(NOW), version=publish(charges=[charge()])), Api()
    for number, (time, model) in enumerate(
        [("2026-06-10T01:00:00Z", "opus"), ("2026-06-10T23:00:00Z", "haiku"), ("2026-06-11T00:00:00Z", "opus")]
    ):
        data = {"total_tokens": 100 + number, "model": model}
        assert api.record(event(world, f"e{number}", time=time, data=data)).status_code == 202
    path = f"/tenants/{world.tenant.code}/usage"

    [whole] = api.results(path)
    assert (whole["quantity"], whole["events"], whole["group"]) == ("303", 3, {})
    days = api.results(path, window="day", meter="tokens")
    assert [(one["starts_at"], one["ends_at"], one["quantity"]) for one in days] == [
        ("2026-06-10T00:00:00Z", "2026-06-11T00:00:00Z", "201"),
        ("2026-06-11T00:00:00Z", "2026-06-12T00:00:00Z", "102"),
    ]
    models = api.results(path, meter="tokens", group_by="model")
    assert {one["group"]["model"]: one["quantity"] for one in models} == {"opus": "202", "haiku": "101"}
    for query in ({"group_by": "model"}, {"meter": "tokens", "group_by": "colour"}, {"window": "week"}):
        assert (api.get(path, **query).status_code, api.get(path, **query).json()["code"]) == (400, "validation")


def test_the_ledger_adds_up_to_the_balance():
    world, api = make_world(now=at(NOW)), Api()
    api.record(event(world, "a", 10_340, time="2026-06-10T00:00:00Z"))
    entries = api.results(f"/tenants/{world.tenant.code}/ledger", meter="tokens")
    usage = [(one["quantity"], one["grant"] is None) for one in entries if one["kind"] == "usage"]
    assert sorted(usage) == [("10000", False), ("340", True)]
    assert [one["quantity"] for one in entries if one["kind"] == "grant"] == ["10000"]
    assert {one["meter"] for one in entries} == {"tokens"}

    [balance] = api.results(f"/tenants/{world.tenant.code}/balances")
    assert (balance["used"], balance["included"], balance["remaining"]) == ("10340", "10000", "0")
    assert (balance["overage"], balance["overage_amount_precise"], balance["held"]) == ("340", "0.068", "0")
    assert balance["decision"]["decision"] == "allow_overage"
    for name in ("usage", "ledger", "balances"):
        assert api.get(f"/tenants/nobody/{name}").status_code == 404
        assert Api("ingest").get(f"/tenants/{world.tenant.code}/{name}").status_code == 403
