"""Test clocks over HTTP: made, shown, advanced forward only."""

import pytest

from subscriptions.models import AuditEntry, TestClock
from subscriptions.services import clocks
from tests.api.test_invoices_api import Api
from tests.world import at, make_world

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api():
    return Api()


def advance(api, clock, to):
    return api.post(f"/test-clocks/{clock}/advance", {"to": to})


def test_a_clock_is_made_once_and_shown(api):
    made = api.post("/test-clocks", {"id": "june", "now": "2026-06-01T02:00:00+02:00"})
    clock = {"id": "june", "now": "2026-06-01T00:00:00Z", "status": "ready", "advancing_to": None}
    assert (made.status_code, made.json()) == (201, clock)
    assert api.get("/test-clocks/june").json() == made.json()
    assert api.get("/test-clocks").json()["results"] == [made.json()]
    again = api.post("/test-clocks", {"id": "june", "now": "2026-06-01T00:00:00Z"})
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")


@pytest.mark.parametrize(
    "body", [{}, {"id": "june"}, {"id": "a b", "now": "2026-06-01T00:00:00Z"}, {"id": "june", "now": "2026-06-01"}]
)
def test_a_clock_needs_an_id_and_a_time(api, body):
    assert api.post("/test-clocks", body).status_code == 422
    assert not TestClock.objects.exists()


def test_a_free_clock_advances_and_says_that_nothing_was_due(api):
    api.post("/test-clocks", {"id": "june", "now": "2026-06-01T00:00:00Z"})
    answer = advance(api, "june", "2026-07-01T00:00:00Z")
    assert (answer.status_code, answer.json()) == (200, {"now": "2026-07-01T00:00:00Z", "journal": []})
    assert AuditEntry.objects.get(action="advance").actor.startswith("key:")


def test_the_journal_tells_what_was_run_when(api):
    world = make_world()
    answer = advance(api, world.clock.code, "2026-07-01T01:00:00Z").json()
    assert [(entry["at"], entry["what"]) for entry in answer["journal"]] == [
        ("2026-07-01T00:00:00Z", "open_period"),
        ("2026-07-01T01:00:00Z", "close_period"),
    ]
    assert all(set(entry) == {"at", "what", "object"} for entry in answer["journal"])


def test_a_clock_does_not_go_back(api):
    world = make_world()
    answer = advance(api, world.clock.code, "2026-05-31T00:00:00Z")
    assert (answer.status_code, answer.json()["code"]) == (422, "clock_moves_forward")
    assert world.now == at("2026-06-01 00:00")


def test_an_advance_that_was_cut_off_waits_for_the_same_goal(api):
    world = make_world()
    clocks.begin_advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"))
    other = advance(api, world.clock.code, "2026-08-02T00:00:00Z")
    assert (other.status_code, other.json()["code"], other.headers["Retry-After"]) == (409, "clock_advancing", "1")
    shown = api.get(f"/test-clocks/{world.clock.code}").json()
    assert (shown["status"], shown["advancing_to"]) == ("advancing", "2026-07-02T00:00:00Z")
    resumed = advance(api, world.clock.code, "2026-07-02T00:00:00Z")
    assert (resumed.status_code, resumed.json()["now"]) == (200, "2026-07-02T00:00:00Z")
    shown = api.get(f"/test-clocks/{world.clock.code}").json()
    assert (shown["status"], shown["advancing_to"]) == ("ready", None)


def test_an_unknown_clock_is_not_found(api):
    assert api.get("/test-clocks/nothing").status_code == 404
    assert advance(api, "nothing", "2026-07-01T00:00:00Z").status_code == 404


def test_advancing_needs_the_scope():
    clocks.create_clock(code="june", now=at("2026-06-01 00:00"), actor="system")
    assert advance(Api("read"), "june", "2026-07-01T00:00:00Z").status_code == 403
    assert Api("manage").get("/test-clocks/june").status_code == 403
