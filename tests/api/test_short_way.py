"""The short way to events and balances takes the plain case, and answers it as Django would."""

import json
from threading import Thread

import pytest
from django.db import connection, transaction
from django.test import Client, override_settings

from metering.api import short_way
from metering.models import UsageEvent
from metering.services import reading
from subscriptions.selectors.keys import forget_keys
from subscriptions.services.keys import issue_key, revoke_key
from tests.doors import ShortWayClient
from tests.world import make_world

pytestmark = pytest.mark.django_db(transaction=True)

EVENTS = "/api/v1/events"
AUTHORIZATIONS = "/api/v1/authorizations"


def knocking(kind: type[Client], *scopes: str) -> Client:
    """Return a client whose key the process remembers."""
    _, secret = issue_key(name="test", scopes=list(scopes), actor="system")
    client = kind(headers={"Authorization": f"Bearer {secret}"})
    client.get("/api/v1/meters")
    return client


def body(world, name, tokens=1):
    return json.dumps(
        {"id": name, "type": "llm.completion", "subject": world.tenant.code, "data": {"total_tokens": tokens}}
    )


@pytest.mark.parametrize("tokens", [1, -1, None], ids=["accepted", "rejected", "unmatched"])
def test_both_ways_give_the_same_answer(tokens):
    world = make_world()
    by_view = knocking(Client, "ingest").post(EVENTS, body(world, "one", tokens), content_type="application/json")
    client = knocking(ShortWayClient, "ingest")
    shortly = client.post(EVENTS, body(world, "two", tokens), content_type="application/json")
    assert client.taken == 1
    assert (shortly.status_code, dict(shortly.headers)) == (
        by_view.status_code,
        dict(by_view.headers) | {"Content-Length": shortly.headers["Content-Length"]},
    )
    assert shortly.json().keys() == by_view.json().keys()


def test_a_conflict_and_an_unreadable_body_are_problem_documents_by_both_ways():
    world = make_world()
    for content in ("{", body(world, "x", 2), body(world, "x", 3)):
        answers = [
            knocking(kind, "ingest").post(EVENTS, content, content_type="application/json")
            for kind in (Client, ShortWayClient)
        ]
        kinds = {answer.headers["Content-Type"] for answer in answers}
        assert len(kinds) == 1
    assert UsageEvent.objects.count() == 1


def test_what_is_not_plain_goes_on_to_django():
    world = make_world()
    client = knocking(ShortWayClient, "ingest", "read")
    post = {"data": body(world, "x"), "content_type": "application/json"}
    assert client.get(EVENTS).status_code == 200
    assert client.post(f"{EVENTS}?limit=1", **post).status_code == 400
    assert client.post(EVENTS, headers={"Accept": "text/html"}, **post).status_code == 406
    assert client.post(EVENTS, headers={"Host": "elsewhere.example"}, **post).status_code == 400
    assert client.post(EVENTS, headers={"Authorization": "Bearer nobody"}, **post).status_code == 401
    assert knocking(ShortWayClient, "read").post(EVENTS, **post).status_code == 403
    assert client.taken == 0
    assert UsageEvent.objects.count() == 0


def test_a_revoked_key_is_refused_where_it_is_forgotten():
    world = make_world()
    key, secret = issue_key(name="test", scopes=["ingest"], actor="system")
    client = ShortWayClient(headers={"Authorization": f"Bearer {secret}"})
    assert client.post(EVENTS, body(world, "one"), content_type="application/json").status_code == 202
    assert client.post(EVENTS, body(world, "two"), content_type="application/json").status_code == 202
    assert client.taken == 1
    revoke_key(key=key, actor="system")
    forget_keys()
    assert client.post(EVENTS, body(world, "three"), content_type="application/json").status_code == 401


@override_settings(SECURE_SSL_REDIRECT=True)
def test_where_https_is_asked_for_a_plain_request_is_django_s_to_redirect():
    short_way._is_welcome.cache_clear()
    world = make_world()
    client = knocking(ShortWayClient, "ingest")
    assert client.post(EVENTS, body(world, "x"), content_type="application/json").status_code == 301
    assert client.post(EVENTS, body(world, "x"), content_type="application/json", secure=True).status_code in (202, 401)
    short_way._is_welcome.cache_clear()


def asking(world, key, quantity="100"):
    return json.dumps({"tenant": world.tenant.code, "meter": "tokens", "quantity": quantity, "key": key})


@pytest.mark.parametrize("quantity", ["100", "-1"], ids=["held", "refused"])
def test_a_call_is_authorized_and_settled_the_same_by_both_ways(quantity):
    world = make_world()
    answers = []
    for kind, key in ((Client, "one"), (ShortWayClient, "two")):
        client = knocking(kind, "gate")
        made = client.post(AUTHORIZATIONS, asking(world, key, quantity), content_type="application/json")
        settled = [
            client.post(
                f"{AUTHORIZATIONS}/{made.json()['id']}/settle", '{"quantity": 70}', content_type="application/json"
            )
            for _ in range(2 if made.status_code == 201 else 0)
        ]
        answers.append([made, *settled])
    assert client.taken == len(answers[1])
    for by_view, shortly in zip(*answers, strict=True):
        assert shortly.status_code == by_view.status_code
        assert shortly.json().keys() == by_view.json().keys()
        assert dict(shortly.headers) == dict(by_view.headers) | {
            name: shortly.headers[name]
            for name in ("Content-Length", "X-Tierbook-Remaining")
            if name in shortly.headers
        }


def test_of_the_gate_too_what_is_not_plain_goes_on_to_django():
    world = make_world()
    client = knocking(ShortWayClient, "gate")
    post = {"data": asking(world, "x"), "content_type": "application/json"}
    assert client.get(AUTHORIZATIONS).status_code == 405
    assert client.post(f"{AUTHORIZATIONS}?dry=1", **post).status_code == 400
    assert client.post(f"{AUTHORIZATIONS}/nonsense/settle", **post).status_code == 404
    assert knocking(ShortWayClient, "ingest").post(AUTHORIZATIONS, **post).status_code == 403
    assert client.taken == 0
    assert world.balance().held == 0


def test_balances_are_the_same_by_both_ways():
    world = make_world()
    world.use(10_400)
    address = f"/api/v1/tenants/{world.tenant.code}/balances"
    by_view, client = knocking(Client, "read").get(address), knocking(ShortWayClient, "read")
    taken = client.taken
    shortly = client.get(address)
    assert client.taken == taken + 1
    [pool], [of_view] = shortly.json()["results"], by_view.json()["results"]
    assert pool.pop("fresh_at") > of_view.pop("fresh_at")
    assert pool == of_view
    assert pool["overage"] == "400"
    assert dict(shortly.headers) == dict(by_view.headers) | {"Content-Length": str(len(shortly.content))}


def test_balances_of_nobody_and_with_a_query_are_django_s_to_refuse():
    client = knocking(ShortWayClient, "read")
    assert client.get("/api/v1/tenants/nobody/balances").status_code == 404
    assert client.get("/api/v1/tenants/a%2Fb/balances").status_code == 404
    world = make_world()
    assert client.get(f"/api/v1/tenants/{world.tenant.code}/balances?limit=1").status_code == 400
    assert knocking(ShortWayClient, "ingest").get(f"/api/v1/tenants/{world.tenant.code}/balances").status_code == 403
    assert client.taken == 0


def test_where_balances_cannot_be_read_the_short_way_says_so_itself(monkeypatch):
    monkeypatch.setattr(reading, "ANSWER_SECONDS", 0.5)
    client = knocking(ShortWayClient, "read")
    answers = []
    asking = Thread(target=lambda: answers.append(client.get("/api/v1/tenants/anybody/balances")))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE subscriptions_tenant IN ACCESS EXCLUSIVE MODE")
        asking.start()
        asking.join(20)
    [answer] = answers
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert answer.headers["Retry-After"]
    assert client.taken == 1
