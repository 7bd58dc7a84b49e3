"""Events over HTTP: every form is read, and each event is answered with what became of it."""

import gzip
import json
from typing import Any

import pytest
from django.test import Client

from metering.models import UsageEvent
from subscriptions.models import TestClock
from subscriptions.services.keys import issue_key
from tests.world import World, at, make_world

pytestmark = pytest.mark.django_db(transaction=True)

NOW = "2026-06-20 00:00"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


class Api:
    """A client with a key."""

    def __init__(self) -> None:
        _, secret = issue_key(name="test", scopes=["ingest"], actor="system")
        self._client = Client(headers={"Authorization": f"Bearer {secret}"})

    def record(self, body: Any, kind: str = "application/json", **headers: str):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._client.generic("POST", "/api/v1/events", content, kind, headers=headers)


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
