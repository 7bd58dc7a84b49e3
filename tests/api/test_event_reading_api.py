"""Listing events, one event explained, taking one back, and counting unmatched ones again."""

import json
from uuid import uuid4

import pytest
from django.test import Client

from billing_site.database import uuid7
from metering.api import documents
from metering.models import UsageEvent
from metering.services.requests import NewEvent
from subscriptions.models import AuditEntry
from subscriptions.services.keys import issue_key
from tests.world import at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

NOW = at("2026-06-20 12:00")


@pytest.fixture
def key():
    return issue_key(name="back office", scopes=["read", "manage"], actor="system")


@pytest.fixture
def client(key):
    return Client(headers={"Authorization": f"Bearer {key[1]}"})


@pytest.fixture
def world(client):
    return make_world(now=NOW)


def listed(client, **query):
    response = client.get("/api/v1/events", query)
    assert response.status_code == 200, response.content
    return [event["id"] for event in response.json()["results"]]


def post(client, path, body):
    return client.post(f"/api/v1/events/{path}", json.dumps(body), content_type="application/json")


class TestLists:
    @pytest.fixture
    def stored(self, world):
        world.record(
            world.event(1, id="first", time=at("2026-06-05 00:00")),
            world.event(2, id="third", time=at("2026-06-07 00:00")),
            world.event(3, id="second", time=at("2026-06-06 00:00")),
        )

    def test_the_newest_is_first(self, client, world, stored):
        assert listed(client, tenant=world.tenant.code) == ["third", "second", "first"]

    def test_an_event_is_shown_as_it_was_sent_and_as_what_it_became(self, client, world):
        world.use("0.10", time=at("2026-06-05 10:00"), model="opus", ratio=[1, None, {"a": "b"}])
        response = client.get("/api/v1/events", {"tenant": world.tenant.code})
        (event,) = response.json()["results"]
        assert event.pop("recorded_at").endswith("Z")
        assert event == {
            "event": str(UsageEvent.objects.get().pk),
            "id": "e1",
            "source": "test",
            "type": "llm.completion",
            "subject": world.tenant.code,
            "time": "2026-06-05T10:00:00Z",
            "data": {"total_tokens": 0.1, "model": "opus", "ratio": [1, None, {"a": "b"}]},
            "status": "counted",
            "code": "",
        }
        assert b'"total_tokens": 0.10' in response.content

    def test_times_are_half_open(self, client, world, stored):
        query = {"tenant": world.tenant.code, "from": "2026-06-05T00:00:00Z", "to": "2026-06-07T02:00:00+02:00"}
        assert listed(client, **query) == ["second", "first"]

    def test_filters_narrow(self, client, world, stored):
        make_world(code="other", now=NOW).use(1)
        assert listed(client, tenant="other") == ["e1"]
        assert listed(client, source="test", id="second") == ["second"]
        assert listed(client, source="gateway") == listed(client, tenant="nobody") == []

    def test_by_meter_only_those_that_it_counted(self, client, world, stored):
        make_meter("chats", event_type="llm.chat", aggregation="count", value_property=None)
        world.record(world.event(None, id="unmatched", time=NOW))
        assert listed(client, meter="tokens") == ["third", "second", "first"]
        world.record(NewEvent(world.tenant.code, "test", "chat", "llm.chat", NOW, {}))
        assert listed(client, meter="chats") == []
        assert client.get("/api/v1/events", {"id": "chat"}).json()["results"][0]["code"] == "not_in_tier"
        assert client.get("/api/v1/events", {"meter": "none"}).status_code == 404

    def test_pages_go_on_where_the_one_before_ended(self, client, world, stored):
        first = client.get("/api/v1/events", {"tenant": world.tenant.code, "limit": 2}).json()
        assert [event["id"] for event in first["results"]] == ["third", "second"]
        last = client.get(first["next"]).json()
        assert ([event["id"] for event in last["results"]], last["next"]) == (["first"], None)

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ({"tenent": "a"}, "unknown_field"),
            ({"from": "yesterday"}, "validation"),
            ({"tenant": "a/b"}, "validation"),
            ({"id": "a\x00b"}, "validation"),
            ({"id": ""}, "validation"),
            ({"limit": "0"}, "validation"),
            ({"cursor": "bm9uZQ"}, "validation"),
        ],
    )
    def test_bad_queries_are_400(self, client, query, code):
        response = client.get("/api/v1/events", query)
        assert (response.status_code, response.json()["code"]) == (400, code)

    def test_reading_needs_its_scope(self, world):
        _, secret = issue_key(name="gateway", scopes=["ingest", "gate"], actor="system")
        assert Client(headers={"Authorization": f"Bearer {secret}"}).get("/api/v1/events").status_code == 403


class TestOneEvent:
    def test_it_says_what_it_was_counted_as(self, client):
        make_meter(dimensions=["model"])
        world = make_world(version=publish("both", charges=[charge()]), now=NOW)
        world.use(10_000, time=at("2026-06-05 00:00"), model="haiku")
        world.use(40, time=at("2026-06-06 00:00"), model="opus")
        world.use(2, time=at("2026-06-07 00:00"), model="opus")
        event = UsageEvent.objects.get(event_id="e2")
        answer = client.get(f"/api/v1/events/{event.pk}").json()
        assert (answer["event"], answer["id"], answer["status"]) == (str(event.pk), "e2", "counted")
        assert answer["counted_as"] == [
            {
                "kind": "record",
                "meter": "tokens",
                "dimensions": {"model": "opus"},
                "quantity": "40",
                "period": {"starts_at": "2026-06-01T00:00:00Z", "ends_at": "2026-07-01T00:00:00Z"},
                "segment": {
                    "starts_at": "2026-06-01T00:00:00Z",
                    "quantity": "10042",
                    "events": 3,
                    "same_dimensions": {"quantity": "42", "events": 2},
                },
                "pool": {"dimensions": {}, "used": "10042", "covered": "10000", "overage": "42"},
            }
        ]

    def test_an_unmatched_one_says_why(self, client, world):
        world.use(None, time=NOW)
        answer = client.get(f"/api/v1/events/{UsageEvent.objects.get().pk}").json()
        assert (answer["status"], answer["code"], answer["counted_as"]) == ("unmatched", "property_missing", [])

    @pytest.mark.parametrize(
        "name",
        ["1", "abc", str(uuid4()), "ffffffff-ffff-7fff-bfff-ffffffffffff", "00000000-0000-7000-8000-000000000000"],
    )
    @pytest.mark.parametrize("action", ["", "/reverse"])
    def test_others_are_not_found(self, client, name, action):
        path = f"/api/v1/events/{name}{action}"
        ask = {"data": '{"reason": "x"}', "content_type": "application/json"} if action else {}
        response = (client.post if action else client.get)(path, **ask)
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert client.get(f"/api/v1/events/{uuid7()}").status_code == 404


class TestReversal:
    def test_it_takes_the_quantities_back_once_and_says_who_and_why(self, client, key, world):
        world.use(10_040, time=at("2026-06-05 00:00"))
        world.use(100, time=at("2026-06-06 00:00"))
        event = UsageEvent.objects.get(event_id="e1")
        response = post(client, f"{event.pk}/reverse", {"reason": "sent by a test"})
        assert response.status_code == 200
        answer = response.json()
        assert answer["status"] == "reversed"
        assert [(one["kind"], one["quantity"]) for one in answer["counted_as"]] == [
            ("record", "10040"),
            ("reversal", "-10040"),
        ]
        assert answer["counted_as"][0]["pool"] == {"dimensions": {}, "used": "100", "covered": "100", "overage": "0"}
        assert world.position() == ("100", "100", "0")
        entry = AuditEntry.objects.get(action="reverse")
        assert (entry.actor, entry.reason) == (f"key:{key[0].prefix}", "sent by a test")

        again = post(client, f"{event.pk}/reverse", {"reason": "again"})
        assert (again.status_code, again.json()["code"]) == (409, "event_reversed")
        assert world.position() == ("100", "100", "0")
        assert [one["status"] for one in client.get("/api/v1/events").json()["results"]] == ["counted", "reversed"]
        # It keeps its identity: the same event does not count again.
        repeat = world.event(10_040, time=at("2026-06-05 00:00"), id="e1")
        assert world.record(repeat).outcomes[0].status == "duplicate"

    def test_in_a_closed_period_overage_falls_first_and_the_rest_is_available_to_nobody(self, client, world):
        world.use(9_000, time=at("2026-06-05 00:00"))
        world.use(3_000, time=at("2026-06-06 00:00"))
        body = json.dumps({"to": "2026-07-01T02:00:00Z"})
        path = f"/api/v1/test-clocks/{world.clock.code}/advance"
        assert client.post(path, body, content_type="application/json").status_code == 200
        june = {"period__sequence": 1}
        assert world.position(**june) == ("12000", "10000", "2000")
        event = UsageEvent.objects.get(event_id="e2")
        assert post(client, f"{event.pk}/reverse", {"reason": "x"}).status_code == 200
        assert world.position(**june) == ("9000", "9000", "0")
        (grant,) = world.balance(**june).grants.all()
        assert (grant.burned, grant.expired, grant.remaining) == (9_000, 1_000, 0)

    def test_an_event_that_clamps_per_event_takes_its_own_amount_back(self, client):
        make_meter(precision=2)
        price = {"model": "percentage", "rate": "10", "minimum_per_event": "1", "maximum_per_event": "5"}
        world = make_world(version=publish("clamped", charges=[charge(included="0", price=price)]), now=NOW)
        for tokens in (1, 20, 100):
            world.use(tokens, time=at("2026-06-05 00:00"))
        balances = f"/api/v1/tenants/{world.tenant.code}/balances"
        amount = lambda: client.get(balances).json()["results"][0]["overage_amount_precise"]  # noqa: E731
        assert amount() == "8"
        assert post(client, f"{UsageEvent.objects.get(event_id='e3').pk}/reverse", {"reason": "x"}).status_code == 200
        assert amount() == "3"

    def test_what_was_never_counted_cannot_be_taken_back(self, client, world):
        world.use(None, time=NOW)
        response = post(client, f"{UsageEvent.objects.get().pk}/reverse", {"reason": "x"})
        assert (response.status_code, response.json()["code"]) == (409, "event_not_counted")

    @pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": 1}, {"reason": "x", "force": True}, [], None])
    def test_it_needs_a_reason_and_knows_nothing_else(self, client, world, body):
        world.use(1)
        assert post(client, f"{UsageEvent.objects.get().pk}/reverse", body).status_code == 422
        assert world.position() == ("1", "1", "0")

    @pytest.mark.parametrize("scope", ["ingest", "read"])
    def test_it_needs_the_scope_to_manage(self, world, scope):
        world.use(1)
        _, secret = issue_key(name="gateway", scopes=[scope], actor="system")
        client = Client(headers={"Authorization": f"Bearer {secret}"})
        assert post(client, f"{UsageEvent.objects.get().pk}/reverse", {"reason": "x"}).status_code == 403
        assert post(client, "replay", {}).status_code == 403


class TestReplay:
    def test_it_counts_what_matches_now_and_leaves_the_rest(self, client, world):
        world.record(
            world.event(5, id="a", time=NOW, images=3),
            world.event(None, id="b", time=NOW, images=4),
            world.event(None, id="c", time=NOW),
        )
        assert post(client, "replay", {}).json() == {"counted": 0, "unmatched": 2}
        assert listed(client, meter="tokens") == ["a"]

    def test_a_tenant_may_come_after_its_events_and_each_is_counted_once(self, client, world):
        early = make_world(code="early", now=NOW, version=publish("early"))
        sent = [early.event(7, id=name, time=at("2026-06-19 00:00")) for name in ("a", "b")]
        for event in sent:
            event.subject = "org_new"
            event.time = None
        early.record(*sent)
        assert post(client, "replay", {"tenant": "org_new"}).json() == {"counted": 0, "unmatched": 2}
        now = UsageEvent.objects.latest("occurred_at").occurred_at
        new = make_world(code="org_new", version=publish("new"), starts_at=now.replace(hour=0, minute=0), now=now)
        assert post(client, "replay", {"tenant": "early"}).json() == {"counted": 0, "unmatched": 0}
        assert post(client, "replay", {"tenant": "org_new"}).json() == {"counted": 2, "unmatched": 0}
        assert post(client, "replay", {}).json() == {"counted": 0, "unmatched": 0}
        assert new.position() == ("14", "14", "0")
        answer = client.get(f"/api/v1/events/{UsageEvent.objects.get(event_id='a').pk}").json()
        assert (answer["status"], answer["code"]) == ("counted", "")
        assert [(one["kind"], one["quantity"]) for one in answer["counted_as"]] == [("replay", "7")]
        assert sorted(listed(client, meter="tokens", tenant="org_new")) == ["a", "b"]

    @pytest.mark.parametrize("body", [{"tenant": "a b"}, {"all": True}, []])
    def test_it_knows_nothing_else(self, client, body):
        assert post(client, "replay", body).status_code == 422


def test_the_published_schema_names_exactly_the_members_of_the_answers(client, world):
    world.use(10_001, time=NOW)
    _, secret = issue_key(name="gateway", scopes=["ingest"], actor="system")
    gateway = Client(headers={"Authorization": f"Bearer {secret}"})
    event = {"id": "a", "subject": world.tenant.code, "type": "llm.completion", "data": {"total_tokens": 1}}
    stored = gateway.post("/api/v1/events", json.dumps(event), content_type="application/json").json()
    torn = gateway.post("/api/v1/events", json.dumps([event | {"data": {}}]), content_type="application/json").json()
    tenant = f"/api/v1/tenants/{world.tenant.code}"
    explained = client.get(f"/api/v1/events/{stored['event']}").json()
    explained.pop("invoice_lines")
    answers = {
        documents.IngestDocument: stored,
        documents.ProblemItem: torn["problems"][0],
        documents.BalanceDocument: stored["balances"][0],
        documents.EventDocument: client.get("/api/v1/events").json()["results"][0],
        documents.EventDetailDocument: explained,
        documents.CountedDocument: explained["counted_as"][0],
        documents.SegmentDocument: explained["counted_as"][0]["segment"],
        documents.PoolDocument: explained["counted_as"][0]["pool"],
        documents.UsageDocument: client.get(f"{tenant}/usage").json(),
        documents.UsageRowDocument: client.get(f"{tenant}/usage").json()["results"][0],
        documents.LedgerEntryDocument: client.get(f"{tenant}/ledger").json()["results"][0],
        documents.BalanceAtGateDocument: client.get(f"{tenant}/balances").json()["results"][0],
        documents.DecisionDocument: client.get(f"{tenant}/balances").json()["results"][0]["decision"],
        documents.ReplayDocument: post(client, "replay", {}).json(),
    }
    for document, answer in answers.items():
        assert set(document().fields) == set(answer), document.__name__
