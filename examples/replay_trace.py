#!/usr/bin/env python3
"""
Replay a trace of an LLM service into a running installation, and see it billed.

    python examples/replay_trace.py azure_llm_trace_2023_code.csv --key tb_…

The file has the columns TIMESTAMP, ContextTokens and GeneratedTokens (the Azure LLM inference trace of 2023 does). Each row becomes one
CloudEvent. The script makes what it needs (a test clock, a meter, a tier of $99 with 10,000 tokens and $0.0002 beyond, a tenant), posts
single events and batches from several threads, in shuffled order and every tenth event twice, then advances the clock past the period's
end and prints the invoices. Running it again changes nothing: every event has an identity. Standard library only.
"""

import argparse
import csv
import hashlib
import http.client
import itertools
import json
import os
import random
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

TENANT = "trace-org"
METER = "trace-tokens"
TIER = "trace-tier"
CLOCK = "trace-clock"
EVENT_TYPE = "llm.completion.trace"
RETRIED = {429, 502, 503, 504}
TRIES = 60


@dataclass(frozen=True)
class Answer:
    """A status and the decoded body."""

    status: int
    body: dict


class Api:
    """A client that sends a request again, unchanged, until it knows what became of it."""

    def __init__(self, url: str, key: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host = parts.netloc
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request to a path below /api/v1; repeat it on a broken connection, on 503, and while a clock advances."""
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(TRIES):
            try:
                answer = self._send(method, f"/api/v1{path}", data, self._headers | headers)
            except (OSError, http.client.HTTPException) as error:
                last: object = error
            else:
                if answer.status not in RETRIED and answer.body.get("code") != "clock_advancing":
                    return answer
                last = answer
            time.sleep(min(2.0, 0.05 * 2**attempt))
        sys.exit(f"{method} {path} was not answered after {TRIES} tries: {last}")

    def make(self, path: str, body: object, **headers: str) -> bool:
        """Create something; whether it is new."""
        answer = self.call("POST", path, body, **headers)
        if answer.status in (200, 201):
            return True
        if answer.status == 409:
            return False
        sys.exit(f"POST {path}: {answer.status} {json.dumps(answer.body)}")

    def read(self, path: str) -> dict:
        """Read something that must be there."""
        answer = self.call("GET", path)
        if answer.status != 200:
            sys.exit(f"GET {path}: {answer.status} {json.dumps(answer.body)}")
        return answer.body

    def _send(self, method: str, path: str, data: bytes | None, headers: dict) -> Answer:
        connection = self._connect(self._host, timeout=60)
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            return Answer(response.status, json.loads(response.read() or b"{}"))
        finally:
            connection.close()


def read_events(path: str) -> list[dict]:
    """Return one CloudEvent per row; the row's number is its identity."""
    events = []
    with open(path, newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            given, generated = int(row["ContextTokens"]), int(row["GeneratedTokens"])
            events.append(
                {
                    "specversion": "1.0",
                    "id": f"row-{number}",
                    "source": "trace",
                    "type": EVENT_TYPE,
                    "subject": TENANT,
                    "time": row["TIMESTAMP"].strip().replace(" ", "T") + "Z",
                    "data": {"input_tokens": given, "output_tokens": generated, "total_tokens": given + generated},
                }
            )
    return events


def set_up(api: Api, last: datetime) -> datetime:
    """Make the clock, catalogue, tenant and subscription where they are missing; return the end of the billed month."""
    month = last.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    api.make("/test-clocks", {"id": CLOCK, "now": (last + timedelta(minutes=1)).isoformat()})
    api.make(
        "/meters",
        {
            "code": METER,
            "name": "Tokens of the trace",
            "event_type": EVENT_TYPE,
            "aggregation": "sum",
            "value_property": "total_tokens",
            "unit": "token",
        },
    )
    api.make("/tiers", {"code": TIER, "name": "Trace", "description": "$99 with 10,000 tokens, $0.0002 beyond"})
    if api.read(f"/tiers/{TIER}").get("live_version") is None:
        publish(api)
    api.make("/tenants", {"id": TENANT, "name": "Trace Org", "currency": "USD", "timezone": "UTC", "test_clock": CLOCK})
    start = {"tenant": TENANT, "tier": TIER, "starts_at": month.isoformat()}
    api.make("/subscriptions", start, **{"Idempotency-Key": f"{TENANT}-start"})
    return (month + timedelta(days=32)).replace(day=1)


def publish(api: Api) -> None:
    """Draft and publish the tier's version."""
    version = {
        "currency": "USD",
        "interval": "month",
        "fee": "99.00",
        "charges": [
            {
                "kind": "usage",
                "meter": METER,
                "included": "10000",
                "price": {"model": "per_unit", "unit_amount": "0.0002"},
            }
        ],
    }
    draft = api.call("POST", f"/tiers/{TIER}/versions", version)
    if draft.status != 201:
        sys.exit(f"the version was refused: {json.dumps(draft.body)}")
    path = f"/tiers/{TIER}/versions/{draft.body['number']}/publish"
    # Live from long before the trace, because its tenant lives in the past.
    published = api.call("POST", path, {"cohort": "new", "effective_at": "2000-01-01T00:00:00Z"})
    if published.status not in (200, 201):
        sys.exit(f"the version was not published: {json.dumps(published.body)}")


def requests_of(events: list[dict], seed: int) -> list[list[dict]]:
    """Shuffle the events, every tenth twice, into single events and batches of 2 to 500."""
    generator = random.Random(seed)
    sent = events + events[::10]
    generator.shuffle(sent)
    parts = []
    while sent:
        size = 1 if generator.random() < 0.7 else generator.randint(2, 500)
        parts.append(sent[:size])
        del sent[:size]
    return parts


def post(api: Api, part: list[dict]) -> dict[str, int]:
    """Post one request, and return how many events were what."""
    single = len(part) == 1
    kind = "application/cloudevents+json" if single else "application/cloudevents-batch+json"
    answer = api.call("POST", "/events", part[0] if single else part, **{"Content-Type": kind})
    if answer.status not in (200, 202):
        sys.exit(f"POST /events: {answer.status} {json.dumps(answer.body)}")
    return {name: answer.body[name] for name in ("accepted", "duplicates", "conflicts", "rejected", "unmatched")}


def main() -> None:
    """Run the replay."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", help="the trace, as CSV")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the installation (default: %(default)s)")
    parser.add_argument("--key", default=os.environ.get("TIERBOOK_API_KEY"), help="an API key with every scope")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if not arguments.key:
        parser.error("give --key, or set TIERBOOK_API_KEY")
    api = Api(arguments.url, arguments.key)

    events = read_events(arguments.file)
    last = max(datetime.fromisoformat(event["time"][:19]).replace(tzinfo=UTC) for event in events)
    ends_at = set_up(api, last)
    parts = requests_of(events, arguments.seed)
    checksum = hashlib.sha256(json.dumps(events).encode()).hexdigest()[:12]
    print(f"{len(events)} events ({checksum}) in {len(parts)} requests of {arguments.threads} threads …", flush=True)

    started = time.monotonic()
    totals: dict[str, int] = {}
    with ThreadPoolExecutor(arguments.threads) as threads:
        for counts in threads.map(post, itertools.repeat(api), parts):
            for name, number in counts.items():
                totals[name] = totals.get(name, 0) + number
    print(f"posted in {time.monotonic() - started:.1f} s: " + ", ".join(f"{n} {name}" for name, n in totals.items()))

    target = ends_at + timedelta(hours=2)
    if datetime.fromisoformat(api.read(f"/test-clocks/{CLOCK}")["now"]) < target:
        for balance in api.read(f"/tenants/{TENANT}/balances")["results"]:
            print(f"used {balance['used']}, overage {balance['overage']}, amount {balance['overage_amount_precise']}")
        answer = api.call("POST", f"/test-clocks/{CLOCK}/advance", {"to": target.isoformat()})
        if answer.status != 200:
            sys.exit(f"the clock did not advance: {json.dumps(answer.body)}")
        for entry in answer.body["journal"]:
            print(f"  {entry['at']}  {entry['what']:<16} {entry['object']}")
    show_invoices(api)


def show_invoices(api: Api) -> None:
    """Print every invoice with its lines, and whether it can be proved from the events."""
    for listed in reversed(api.read(f"/invoices?tenant={TENANT}")["results"]):
        invoice = api.read(f"/invoices/{listed['id']}")
        print(f"{invoice['number']} {invoice['reason']} {invoice['status']}: {invoice['total']} {invoice['currency']}")
        for line in invoice["lines"]:
            print(f"  {line['amount']:>12}  {line['description']} (precisely {line['amount_precise']})")
        key = f"{invoice['id']}-verify-{time.time_ns()}"
        verified = api.call("POST", f"/invoices/{invoice['id']}/verify", {}, **{"Idempotency-Key": key})
        print(f"  verified from events: {json.dumps(verified.body)}")


if __name__ == "__main__":
    main()
