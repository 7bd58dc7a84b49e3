"""
Hostile requests to the doors of metering: every row of tests/cases/hostile.jsonl in the groups EV-*, BATCH, AUTH and LIST.

The rows name things generically: `idempotency_key` is an event's `id`, `customer` its `subject`, `metric` its `type`, `quantity` the measured
property in `data`, `properties` the `data`, `occurred_at` its `time`; a batch is posted to `/events`. After each row nothing is half stored.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django_redis import get_redis_connection

from billing_site.http.authentication import FAILURES_MAX
from metering.models import EventKey, UsageEvent
from metering.services import committer
from subscriptions.services.keys import issue_key, revoke_key
from tests.world import World, at, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

EVENTS = "/api/v1/events"
ROWS = {
    row["id"]: row
    for row in map(json.loads, (Path(__file__).parent.parent / "cases" / "hostile.jsonl").read_text().splitlines())
}

# Rows that these doors cannot be asked, and why.
NOT_ASKED = {
    "EV-body-40": "socket: asked of a real server in tests/faults/test_sockets.py",
    "EV-key-29": "a tenant has no archived state: one without a subscription leaves its events unmatched (no_period)",
    "AUTH-12": "there are no keys of a test mode: test clocks belong to tenants, and keys to the operator",
}

# Rows that api.md or semantics.md answer otherwise: status, code (of the problem, or of the one event's), and why.
_NAMES_ITSELF = "the same status; the code says that it was the quantity"
_UNMATCHED = "stored and listed as unmatched, to be counted by a replay: usage that has happened is never lost"
_PER_ITEM = "a batch is answered with 202 whatever its parts"
_UNKNOWN_PARAMETER = "lists know no such parameter, and say so"
DIFFERENT = {
    **{
        row_id: (422, "invalid_quantity", _NAMES_ITSELF)
        for row_id, row in ROWS.items()
        if row_id.startswith("EV-num") and row["status"] == 422
    },
    "EV-time-18": (202, "", "events may lie 10 minutes ahead of the tenant's time; 11 minutes are 422 in_future"),
    "EV-key-19": (409, "conflict", "the same identity with other content is a conflict that names the fields"),
    "EV-key-27": (202, "unknown_tenant", _UNMATCHED),
    "EV-key-28": (
        202,
        "unknown_tenant",
        "an installation has one operator: there is no other's customer. " + _UNMATCHED,
    ),
    "EV-key-30": (202, "no_meter", _UNMATCHED),
    "EV-body-02": (400, "empty_batch", "an array is a batch, and this one holds nothing"),
    "EV-body-44": (400, "unknown_field", "no parameter chooses a form; unknown ones are refused"),
    **dict.fromkeys(("BATCH-02", "BATCH-05", "BATCH-08", "BATCH-09", "BATCH-11"), (202, "", _PER_ITEM)),
    "BATCH-06": (202, "conflict", _PER_ITEM),
    "BATCH-10": (202, "", "a key belongs to the operator, and a batch may hold events of many tenants"),
    "BATCH-13": (422, "all_rejected", "422 when all events of a batch were rejected; `problems` has each"),
    "AUTH-14": (302, "", "pages for people answer with the way to their login"),
    "LIST-02": (
        200,
        "",
        "`id` of this list is the sender's own id, any text; ours stands in the path, and is a UUID there",
    ),
    **dict.fromkeys(("LIST-08", "LIST-09", "LIST-10"), (400, "unknown_field", _UNKNOWN_PARAMETER)),
}

# What a row demands: a status, and a code that is empty where nothing is wrong.
Answer = tuple[int, str]


def expected(row_id: str) -> Answer:
    if row_id in DIFFERENT:
        return DIFFERENT[row_id][:2]
    return ROWS[row_id]["status"], ROWS[row_id]["problem"].replace("-", "_")


class Door:
    """A client with a key, and a tenant whose period ends at midnight, in two minutes."""

    NOW = at("2026-10-31 23:58")
    MIDNIGHT = at("2026-11-01 00:00")

    def __init__(self) -> None:
        self.world = make_world(starts_at=at("2026-10-01 00:00"), now=self.NOW)
        self.client = keyed_client("ingest", "read", "manage")

    def body(self, name: str, **members: str | None) -> str:
        """Return one event as text; `members` are texts of JSON, None leaves one out."""
        subject = json.dumps(self.world.tenant.code)
        event: dict[str, str | None] = {"id": json.dumps(name), "type": '"llm.completion"', "subject": subject}
        event |= {"data": '{"total_tokens":1}', **members}
        return "{" + ",".join(f'"{key}":{value}' for key, value in event.items() if value is not None) + "}"

    def post(self, body: str | bytes, content_type: str = "application/json", path: str = EVENTS, **extra: Any) -> Any:
        # Not through the client's `post`, which would itself encode them in the charset that the test invents.
        return self.client.generic("POST", path, body, content_type, **extra)

    def post_all(self, bodies: list[str]) -> Any:
        return self.post(f"[{','.join(bodies)}]")


def keyed_client(*scopes: str) -> Client:
    _, secret = issue_key(name="test", scopes=list(scopes), actor="system")
    return Client(headers={"Authorization": f"Bearer {secret}"}, raise_request_exception=False)


def answer_of(response: Any) -> Answer:
    """Return the status and the first code: the problem's, or that of the event that was not counted."""
    kind = response.headers.get("Content-Type", "")
    if response.status_code >= 400:
        assert kind == "application/problem+json", kind
        return response.status_code, response.json()["code"]
    problems = response.json().get("problems") if kind == "application/json" else None
    return response.status_code, problems[0]["code"] if problems else ""


def check(answers: Iterator[tuple[str, Any]], *, stores: bool = True) -> set[str]:
    """Compare the answer to each row, and see that it was stored as a whole, or not at all. Returns the rows."""
    faults, asked, before = [], set(), UsageEvent.objects.count()
    for row_id, response in answers:
        asked.add(row_id)
        answer, events, keys = answer_of(response), UsageEvent.objects.count(), EventKey.objects.count()
        if answer != expected(row_id):
            faults.append((row_id, answer, expected(row_id), response.content[:300]))
        if events != keys:
            faults.append((row_id, "half stored", events, keys))
        if stores and events - before != (answer[0] == 202):
            faults.append((row_id, "stored", events - before, answer))
        before = events
    assert faults == []
    return asked


def rows_of(group: str) -> set[str]:
    return {row_id for row_id in ROWS if row_id.startswith(group) and row_id not in NOT_ASKED}


def literal(row_id: str) -> str:
    """Return the JSON value in a row's input, without the remark behind it."""
    text = ROWS[row_id]["input"].removeprefix('..."quantity":')
    return re.sub(r" \([^)]*\)\Z", "", text).replace('"999...9"', f'"{"9" * 2_000}"')


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run the work on as many threads, all at the same moment."""
    barrier = Barrier(count)

    def run(number: int) -> Any:
        barrier.wait(30)
        try:
            return work(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


def test_the_table_of_differences_holds_nothing_that_is_no_difference():
    assert set(DIFFERENT) | set(NOT_ASKED) <= set(ROWS)
    for row_id, (status, code, _) in DIFFERENT.items():
        assert (status, code) != (ROWS[row_id]["status"], ROWS[row_id]["problem"].replace("-", "_")), row_id


def test_quantities():
    door = Door()

    def ask() -> Iterator[tuple[str, Any]]:
        for row_id in rows_of("EV-num"):
            yield row_id, door.post(door.body(row_id, data=f'{{"total_tokens":{literal(row_id)}}}'))

    assert check(ask()) == rows_of("EV-num")
    listed = door.client.get(EVENTS, {"tenant": door.world.tenant.code}).content.decode()
    for exact in ("0.1", "12345678901234567.123456", "9007199254740993"):
        assert f'"total_tokens":{exact}}}' in listed.replace(" ", ""), exact


def test_times():
    door = Door()

    def ask() -> Iterator[tuple[str, Any]]:
        special = {"EV-time-18", "EV-time-23", "EV-time-25"}
        for row_id in rows_of("EV-time") - special:
            yield row_id, door.post(door.body(row_id, time=literal(row_id)))
        yield "EV-time-18", door.post(door.body("ahead", time='"2026-11-01T00:04:00Z"'))
        last_instant = (door.MIDNIGHT - timedelta(microseconds=1)).isoformat()
        yield "EV-time-23", door.post(door.body("last", time=f'"{last_instant}"'))
        yield "EV-time-25", door.post(door.body("summer", time='"2026-10-25T02:30:00+02:00"'))
        yield "EV-time-25", door.post(door.body("winter", time='"2026-10-25T02:30:00+01:00"'))

    assert check(ask()) == rows_of("EV-time")
    far = door.post(door.body("far", time='"2026-11-01T00:09:00Z"'))
    assert answer_of(far) == (422, "in_future")
    october, november = (
        door.world.balance(period__ends_at=end) for end in (door.MIDNIGHT, door.MIDNIGHT + timedelta(days=30))
    )
    assert (october.events, november.events) == (3, 1)


KEYS = {
    "EV-key-01": [None],
    "EV-key-02": ['""'],
    "EV-key-03": ['" "'],
    "EV-key-07": [f'"{"k" * 255}"'],
    "EV-key-08": [f'"{"k" * 256}"'],
    "EV-key-10": [r'"a\u0000b"'],
    "EV-key-11": [r'"\ud800"'],
    "EV-key-12": [r'"a\nb"', r'"a\r\nX-Evil: 1"'],
    "EV-key-13": [r'"\u202eabc"'],
    "EV-key-15": ['"A"', '"a"'],
}


def test_keys_and_what_they_name():
    door = Door()

    def ask() -> Iterator[tuple[str, Any]]:
        for row_id, keys in KEYS.items():
            for key in keys:
                yield row_id, door.post(door.body("", id=key))
        yield "EV-key-27", door.post(door.body("of-nobody", subject='"nobody"'))
        yield "EV-key-28", door.post(door.body("of-another", subject='"another"'))
        yield "EV-key-30", door.post(door.body("no-metric", type='"no.metric"'))

    asked = check(ask()) | REPEATED
    assert asked == rows_of("EV-key")
    unknown = [door.post(door.body("again", subject=f'"{name}"')).json()["problems"][0] for name in ("n1", "n2")]
    assert unknown[0] == {**unknown[1], "detail": unknown[1]["detail"].replace("n2", "n1")}


REPEATED = {"EV-key-18", "EV-key-19", "EV-key-22", "EV-key-23", "EV-key-25", "EV-key-26"}


def test_repeats(monkeypatch):
    door = Door()

    def ask() -> Iterator[tuple[str, Any]]:
        door.post(door.body("k", data='{"total_tokens":"1"}'))
        yield "EV-key-18", door.post(door.body("k", data='{"total_tokens":"1.0"}'))
        yield "EV-key-19", door.post(door.body("k", data='{"total_tokens":"2"}'))
        get_redis_connection("default").flushall()
        yield "EV-key-23", door.post(door.body("k", data='{"total_tokens":"1"}'))
        assert door.post(door.body("mended", data='{"total_tokens":"x"}')).status_code == 422
        yield "EV-key-25", door.post(door.body("mended", data='{"total_tokens":"3"}'))
        with monkeypatch.context() as patch:
            patch.setattr(committer, "record_events", _broken)
            assert answer_of(door.post(door.body("broken"))) == (500, "internal_error")
        assert UsageEvent.objects.count() == EventKey.objects.count() == 2
        yield "EV-key-26", door.post(door.body("broken"))
        answers = together(50, lambda _: door.post(door.body("raced")))
        statuses = sorted(one.status_code for one in answers)
        assert statuses == [200] * 49 + [202]
        yield "EV-key-22", next(one for one in answers if one.status_code == 202)

    assert check(ask(), stores=False) == REPEATED
    assert (UsageEvent.objects.count(), door.world.position()) == (4, ("6", "6", "0"))


def _broken(*_: Any, **__: Any) -> None:
    raise RuntimeError("a fault of ours")


def test_documents():
    door = Door()
    wide = ",".join(f'"k{number}":1' for number in range(200_000))
    xxe = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'
    bodies = {
        "EV-body-02": "[]",
        "EV-body-05": '{"a":1,}',
        "EV-body-07": '{/*c*/"a":1}',
        "EV-body-09": door.body("utf-16").encode("utf-16"),
        "EV-body-13": door.body("nul", data=r'{"a":"x\u0000y"}'),
        "EV-body-17": door.body("deep", data="[" * 100_000 + "]" * 100_000),
        "EV-body-18": door.body("deep", data='{"a":' * 7_000 + "1" + "}" * 7_000),
        "EV-body-21": door.body("wide", data=f"{{{wide}}}"),
        "EV-body-25": door.body("proto", data='{"__proto__":{"x":1},"total_tokens":1}'),
        "EV-body-27": door.body("unknown", total="0"),
    }
    event = door.body("kinds")
    requests: dict[str, Callable[[], Any]] = {
        "EV-body-30": lambda: door.post(event, "text/plain"),
        "EV-body-31": lambda: door.post(xxe, "application/xml"),
        "EV-body-33": lambda: door.post(event, "multipart/form-data; boundary=x"),
        "EV-body-36": lambda: door.post(event, "application/json; charset=foo"),
        # That the connection closes is the server's part.
        "EV-body-39": lambda: door.post(event, CONTENT_LENGTH="5"),
        "EV-body-43": lambda: door.post(event, headers={"Accept": "application/xml"}),
        "EV-body-44": lambda: door.post(event, path=f"{EVENTS}?format=xml"),
        "EV-body-45": lambda: door.post(door.body("override"), headers={"X-HTTP-Method-Override": "DELETE"}),
        "EV-body-48": lambda: door.client.put(EVENTS, event, content_type="application/json"),
        "EV-body-49": lambda: door.client.trace(EVENTS),
    }

    def ask() -> Iterator[tuple[str, Any]]:
        for row_id, body in bodies.items():
            yield row_id, door.post(body)
        for row_id, request in requests.items():
            yield row_id, request()
        yield "EV-body-17", door.post(door.body("open", data="[" * 100_000))
        yield "EV-body-44", door.post(event, path=f"{EVENTS}?format=api")

    assert check(ask()) == rows_of("EV-body")
    assert "POST" in door.client.put(EVENTS, event, content_type="application/json")["Allow"]
    assert door.client.trace("/").status_code == 405
    kept = door.client.get(EVENTS, {"id": "proto"}).json()["results"]
    assert kept[0]["data"] == {"__proto__": {"x": 1}, "total_tokens": 1}


def test_batches():
    door = Door()
    thousand = [door.body(f"thousand-{number}", data='{"total_tokens":11}') for number in range(1_000)]
    few = [door.body(f"few-{number}") for number in range(40)]
    other = make_world(version=publish("other"), starts_at=at("2026-10-01 00:00"), now=door.NOW)

    def ask() -> Iterator[tuple[str, Any]]:
        first = door.post_all(thousand)
        assert (first.json()["accepted"], len(first.json()["balances"])) == (1_000, 1)
        yield "BATCH-02", first
        # 10,000 are included, and 1,000 events of 11 go beyond.
        assert door.world.position() == ("11000", "10000", "1000")
        yield "BATCH-11", first
        again = door.post_all(thousand)
        assert (again.json()["accepted"], again.json()["duplicates"]) == (0, 1_000)
        yield "BATCH-08", again
        twice = door.post_all([door.body("twice"), door.body("twice")])
        assert (twice.json()["accepted"], twice.json()["duplicates"]) == (1, 1)
        yield "BATCH-05", twice
        torn = door.post_all([door.body("torn"), door.body("torn", data='{"total_tokens":2}')])
        assert (torn.json()["accepted"], torn.json()["problems"][0]["index"]) == (1, 1)
        yield "BATCH-06", torn
        crossed = together(2, lambda number: door.post_all(few[::-1] if number else few))
        assert sorted(one.json()["accepted"] + one.json()["duplicates"] for one in crossed) == [40, 40]
        assert sum(one.json()["accepted"] for one in crossed) == 40
        yield from (("BATCH-09", one) for one in crossed)
        two = door.post_all([door.body("own"), door.body("own", subject=json.dumps(other.tenant.code))])
        assert two.json()["accepted"] == 2
        yield "BATCH-10", two
        yield "BATCH-12", door.post(f'{{"events":{{"0":{door.body("nested")}}}}}')
        nothing = door.post('{"events":[null,1,"x",[]]}')
        assert [one["index"] for one in nothing.json()["problems"]] == [0, 1, 2, 3]
        yield "BATCH-13", nothing

    assert check(ask(), stores=False) == rows_of("BATCH")
    assert UsageEvent.objects.count() == 1_000 + 1 + 1 + 40 + 2
    assert door.world.position() == ("11043", "10000", "1043")


def _with_header(authorization: str, path: str = EVENTS, **extra: Any) -> Any:
    return Client(headers={"Authorization": authorization}).get(path, **extra)


def test_keys_of_the_api():
    _, secret = issue_key(name="read", scopes=["read"], actor="system")
    revoked, revoked_secret = issue_key(name="revoked", scopes=["read"], actor="system")
    _, ingest = issue_key(name="ingest", scopes=["ingest"], actor="system")
    past = datetime.now(tz=UTC) - timedelta(seconds=1)
    _, expired = issue_key(name="expired", scopes=["read"], actor="system", expires_at=past)
    staff = Client()
    staff.force_login(get_user_model().objects.create_superuser("root"))

    def ask() -> Iterator[tuple[str, Any]]:
        assert _with_header(f"Bearer {secret}").status_code == 200
        yield "AUTH-02", _with_header("Bearer")
        yield "AUTH-04", Client().get(EVENTS, {"api_key": secret})
        yield "AUTH-05", _with_header(f"Bearer {secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}")
        assert _with_header(f"Bearer {revoked_secret}").status_code == 200
        revoke_key(key=revoked, actor="system")
        yield "AUTH-07", _with_header(f"Bearer {revoked_secret}")
        yield "AUTH-08", _with_header(f"Bearer {expired}")
        yield "AUTH-10", _with_header(f"Bearer {ingest}", path="/api/v1/invoices")
        yield "AUTH-10", _with_header(f"Bearer {ingest}")
        yield "AUTH-13", staff.get(EVENTS)
        yield "AUTH-14", _with_header(f"Bearer {secret}", path="/admin/")
        yield "AUTH-15", _with_header(f"Bearer {secret}\n")
        yield "AUTH-15", _with_header(f"Bearer {secret}\0")
        yield "AUTH-16", _with_header(f"Bearer {secret},Bearer {secret}")
        guesser = {"REMOTE_ADDR": "203.0.113.7"}
        guesses = {_with_header("Bearer tb_wrong_key", **guesser).status_code for _ in range(FAILURES_MAX)}
        assert guesses == {401}
        slowed = _with_header("Bearer tb_wrong_key", **guesser)
        assert int(slowed["Retry-After"]) >= 1
        yield "AUTH-18", slowed
        assert _with_header(f"Bearer {secret}", **guesser).status_code == 200

    assert check(ask(), stores=False) == rows_of("AUTH")


def _lists(world: World) -> list[str]:
    return [EVENTS, f"/api/v1/tenants/{world.tenant.code}/ledger"]


def test_lists():
    door = Door()
    queries = {
        "LIST-02": ["id=abc"],
        "LIST-05": ["limit=0", "limit=-1", "limit=abc", "limit=1e9", "limit=101"],
        "LIST-08": ["ordering=password"],
        "LIST-09": ["ordering=-total;drop%20table"],
        "LIST-10": ["expand=customer.tenant.api_keys"],
        "LIST-12": ["unknown=1"],
        "LIST-13": ["tenant=a&tenant=b"],
        "LIST-15": [f"tenant={'a' * 20_480}"],
    }

    def ask() -> Iterator[tuple[str, Any]]:
        for row_id, texts in queries.items():
            # The ledger's tenant stands in its path; only events are listed by tenant and id.
            paths = [EVENTS] if row_id in ("LIST-02", "LIST-13") else _lists(door.world)
            for path in paths:
                for text in texts:
                    yield row_id, door.client.get(f"{path}?{text}")
        assert answer_of(door.client.get(f"{EVENTS}/abc")) == (404, "not_found")
        first = _page_through_while_rows_arrive(door)
        yield "LIST-14", first

    assert check(ask(), stores=False) == rows_of("LIST")


def _page_through_while_rows_arrive(door: Door) -> Any:
    """Read a list of 1,000 events of one moment to its end, with new ones before, at and after it between the pages."""
    moment = at("2026-10-20 12:00")
    sent = [f"same-{number}" for number in range(1_000)]
    stored = door.post_all([door.body(name, time=f'"{moment.isoformat()}"') for name in sent])
    assert stored.json()["accepted"] == 1_000
    first = response = door.client.get(EVENTS, {"tenant": door.world.tenant.code, "limit": 100})
    seen: list[str] = []
    for number in range(20):
        document = response.json()
        seen += [event["id"] for event in document["results"]]
        if document["next"] is None:
            break
        for offset in (-1, 0, 1):
            time = (moment + timedelta(seconds=offset)).isoformat()
            assert door.post(door.body(f"new{offset}-{number}", time=f'"{time}"')).status_code == 202
        response = door.client.get(document["next"])
    assert len(seen) == len(set(seen))
    assert sorted(name for name in seen if name.startswith("same-")) == sorted(sent)
    return first
