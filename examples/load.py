#!/usr/bin/env python3
"""
Put load on a running installation, and compare its books with what it has acknowledged.

    python examples/load.py --key tb_… --rate 500 --duration 60 --mix single=80,batch100=15,duplicate=5

The mix gives shares of requests: `single` posts one new event, `batch100` a hundred (any size up to 1,000), `duplicate`
one that was posted before. The rate counts events of all kinds. All that falls due within the duration is sent, however
late; Ctrl-C ends it early. A request that fails (429, 5xx) or whose outcome is unknown (no answer) is sent again
unchanged, up to 60 times in all.

Latency counts from the moment at which the schedule meant a request to start, to its final answer: a server that stalls
is not spared the requests that could not even start meanwhile (coordinated omission). `started late` is the longest that
one waited for a free connection. With --rate 0 there is no schedule: each connection sends as soon as it has its answer,
and latency counts from there.

Nothing real is touched. A run makes a test clock, and tenants whose ids begin with the clock's; it prints them. The clock
stands still, so that no period of theirs closes and no invoice is made. All runs share the meter `load-tokens` and the
tier `load-tier`, which are no customer's. All of it stays: the books forget nothing. A tenant on a test clock is a little
more work than a real one: web processes look it up again for each group of requests.

The exit status is 0 when every event was acknowledged and the books hold exactly those, 1 otherwise, and 2 when there was
no run or the books could not be read. Standard library only.
"""

import argparse
import http.client
import itertools
import json
import math
import os
import random
import re
import secrets
import sys
import threading
import time
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

METER = {
    "code": "load-tokens",
    "name": "Tokens of load tests",
    "event_type": "load.tokens",
    "aggregation": "sum",
    "value_property": "total_tokens",
    "unit": "token",
}
TIER = "load-tier"
VERSION = {
    "currency": "USD",
    "interval": "month",
    "fee": "0",
    "charges": [
        {
            "kind": "usage",
            "meter": METER["code"],
            "included": "10000",
            "price": {"model": "per_unit", "unit_amount": "0.0002"},
        }
    ],
}
BATCH_MAX = 1000
TRIES = 60  # two minutes; an installation restarts in less
TRIES_AT_FIRST = 5  # a wrong address should not take that long to be told
TIMEOUT_SECONDS = 30
# Servers close a connection on which nothing has come for a while; a request that crosses that would count as a failure.
IDLE_SECONDS = 10
NO_ANSWER = 0
TENANTS_SHOWN = 10


class CannotRun(Exception):
    """The installation cannot be reached, or refuses what a run needs."""


@dataclass(frozen=True)
class Answer:
    """A status and the decoded body; NO_ANSWER and the reason where the connection broke."""

    status: int
    body: dict

    def __str__(self) -> str:
        return f"{self.status or 'no answer'} {json.dumps(self.body)}"

    @property
    def leaves_open(self) -> bool:
        """Whether the same request may well succeed later, or has succeeded already."""
        return self.status in (NO_ANSWER, 429) or self.status >= 500


class Line:
    """A connection that is kept, for one thread."""

    def __init__(self, url: str, key: str, *, tries: int = TRIES) -> None:
        parts = urllib.parse.urlsplit(url)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = connect(parts.netloc, timeout=TIMEOUT_SECONDS)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._tries = tries
        self._used_at = 0.0
        self.failures: Counter[int] = Counter()  # by status, of every try
        self.repeats = 0

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request to a path below /api/v1; again, unchanged, while its outcome is open."""
        data = None if body is None else json.dumps(body).encode()
        answer = self._send(method, f"/api/v1{path}", data, self._headers | headers)
        for repeat in range(1, self._tries):
            if not answer.leaves_open:
                break
            self.repeats += 1
            time.sleep(min(2.0, 0.05 * 2**repeat))
            answer = self._send(method, f"/api/v1{path}", data, self._headers | headers)
        return answer

    def make(self, path: str, body: object, **headers: str) -> bool:
        """Create something; False where it is there already."""
        answer = self.ask("POST", path, body, **headers)
        if answer.status not in (200, 201, 409):
            raise CannotRun(f"POST {path}: {answer}")
        return answer.status != 409

    def read(self, path: str) -> dict:
        """Read something that must be there."""
        answer = self.ask("GET", path)
        if answer.status != 200:
            raise CannotRun(f"GET {path}: {answer}")
        return answer.body

    def _send(self, method: str, path: str, data: bytes | None, headers: dict) -> Answer:
        if time.monotonic() - self._used_at > IDLE_SECONDS:
            self._connection.close()
        try:
            self._connection.request(method, path, data, headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self.failures[NO_ANSWER] += 1
            return Answer(NO_ANSWER, {"detail": repr(error)})
        self._used_at = time.monotonic()
        if response.status >= 300:
            self.failures[response.status] += 1
        return Answer(response.status, _decoded(content))


def _decoded(content: bytes) -> dict:
    try:
        return json.loads(content or b"{}")
    except ValueError:  # a proxy's page
        return {"detail": content[:200].decode(errors="replace")}


@dataclass(frozen=True)
class Kind:
    """A kind of request of the mix: its name, how many events it has, and its share."""

    name: str
    size: int
    weight: float

    @property
    def is_new(self) -> bool:
        """Whether its events were not posted before."""
        return self.name != "duplicate"


def parse_mix(text: str) -> list[Kind]:
    """Read `single=80,batch100=15,duplicate=5`. Raises ArgumentTypeError."""
    kinds = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(single|duplicate|batch([0-9]{1,4}))=([0-9]+(?:\.[0-9]+)?)\s*", part)
        if not found:
            raise argparse.ArgumentTypeError(f"{part!r} is not single=…, batch<size>=… or duplicate=…")
        kinds.append(Kind(found[1], int(found[2] or 1), float(found[3])))
        if not 1 <= kinds[-1].size <= BATCH_MAX:
            raise argparse.ArgumentTypeError(f"a batch has 1 to {BATCH_MAX} events")
    if not any(kind.is_new and kind.weight for kind in kinds):
        raise argparse.ArgumentTypeError("some requests must have new events")
    return kinds


@dataclass(frozen=True)
class Run:
    """The name of a run, its tenants, and its events: each follows from its number."""

    name: str
    tenants: Sequence[str]
    at: datetime  # where the run's clock stands

    @classmethod
    def named_now(cls, *, tenants: int) -> "Run":
        """Return a run that no other has the name of."""
        now = datetime.now(UTC)
        name = f"load-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        return cls(name, [f"{name}-{number}" for number in range(1, tenants + 1)], now)

    def tenant_of(self, number: int) -> str:
        """Return the tenant of an event: all take turns."""
        return self.tenants[number % len(self.tenants)]

    def tokens_of(self, number: int) -> int:
        """Return how much an event uses: 1 to 2,000, so that sums tell which events are missing better than a constant would."""
        return 1 + number * 7919 % 2000

    def event(self, number: int) -> dict:
        """Return an event as it is posted, every time the same."""
        return {
            "id": str(number),
            "source": self.name,
            "type": METER["event_type"],
            "subject": self.tenant_of(number),
            "time": self.at.isoformat(),
            "data": {METER["value_property"]: self.tokens_of(number)},
        }


@dataclass(frozen=True)
class Request:
    """What is to be posted, and when, by time.monotonic()."""

    kind: str
    numbers: range
    due: float


class Schedule:
    """Hands out the requests of a run to its threads, in order."""

    def __init__(self, mix: Sequence[Kind], *, rate: float, duration: float, seed: int) -> None:
        self._mix = mix
        self._weights = [kind.weight for kind in mix]
        self._rate = rate
        self._duration = duration
        self._generator = random.Random(seed)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._began = time.monotonic()
        self.events = 0  # handed out, of all kinds
        self.acknowledged = bytearray()  # one for each different event

    def take(self) -> Request | None:
        """Wait until the next request is due, and return it; None when the duration is over."""
        with self._lock:
            elapsed = time.monotonic() - self._began
            due = self.events / self._rate if self._rate else elapsed
            if due >= self._duration or self._stopped.wait(max(0.0, due - elapsed)):
                return None
            kind = self._generator.choices(self._mix, self._weights)[0]
            made = len(self.acknowledged)
            if not kind.is_new and not made:  # nothing is there yet to be repeated
                kind = next(kind for kind in self._mix if kind.is_new and kind.weight)
            if kind.is_new:
                numbers = range(made, made + kind.size)
                self.acknowledged.extend(bytes(kind.size))
            else:
                number = self._generator.randrange(made)
                numbers = range(number, number + 1)
            self.events += kind.size
            return Request(kind.name, numbers, self._began + due)

    def stop(self) -> None:
        """Hand out nothing more."""
        self._stopped.set()


@dataclass
class Tally:
    """What became of the requests of a run, as all its threads see it."""

    acknowledged: bytearray  # the schedule's
    latencies: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # seconds, by kind
    events: Counter[str] = field(default_factory=Counter)  # accepted, duplicates
    problems: Counter[str] = field(default_factory=Counter)  # of events within answers, by code
    lag: float = 0.0  # seconds from the intended start of a request to its first byte, at most
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take_in(self, request: Request, answer: Answer, *, began: float) -> None:
        """Count what became of a request and its events."""
        ended = time.monotonic()
        with self._lock:
            self.latencies[request.kind].append(ended - request.due)
            self.lag = max(self.lag, began - request.due)
            if answer.status not in (200, 202):
                return
            problems = {problem["index"]: problem["code"] for problem in answer.body["problems"]}
            self.problems.update(problems.values())
            self.events.update({name: answer.body[name] for name in ("accepted", "duplicates")})
            for index, number in enumerate(request.numbers):
                if index not in problems:
                    self.acknowledged[number] = 1


def set_up(desk: Line, run: Run) -> None:
    """Make the run's clock and tenants, subscribed; and the meter and tier, where no run has made them."""
    if not desk.make("/meters", METER):
        found = desk.read(f"/meters/{METER['code']}")
        if any(found[name] != METER[name] for name in ("event_type", "aggregation", "value_property")):
            raise CannotRun(f"there is a meter {METER['code']} that is not of load tests")
    desk.make("/tiers", {"code": TIER, "name": "Load", "description": "Of load tests; no customer's"})
    if desk.read(f"/tiers/{TIER}")["live_version"] is None:
        publish(desk)
    desk.make("/test-clocks", {"id": run.name, "now": run.at.isoformat()})
    for tenant in run.tenants:
        described = {"id": tenant, "name": f"Load test {tenant}", "currency": "USD", "test_clock": run.name}
        desk.make("/tenants", described)
        start = {"tenant": tenant, "tier": TIER}
        # Sent again with its key, a start whose answer was lost is answered 201 once more; so 409 is a refusal.
        if not desk.make("/subscriptions", start, **{"Idempotency-Key": f"{tenant}-start"}):
            raise CannotRun(f"{tenant} could not be subscribed to {TIER}")


def publish(desk: Line) -> None:
    """Draft and publish the tier's version, from long ago: whose clock is right does not matter."""
    draft = desk.ask("POST", f"/tiers/{TIER}/versions", VERSION)
    if draft.status != 201:
        raise CannotRun(f"the version of {TIER} was refused: {draft}")
    path = f"/tiers/{TIER}/versions/{draft.body['number']}/publish"
    desk.make(path, {"cohort": "new", "effective_at": "2000-01-01T00:00:00Z"})


def put_load(lines: Sequence[Line], run: Run, schedule: Schedule) -> Tally:
    """Post all that the schedule hands out, each line in a thread of its own."""
    tally = Tally(schedule.acknowledged)
    with ThreadPoolExecutor(len(lines)) as threads:
        sending = [threads.submit(send, line, run, schedule, tally) for line in lines]
        try:
            wait(sending)
        except KeyboardInterrupt:
            schedule.stop()
        for one in sending:
            one.result()
    return tally


def send(line: Line, run: Run, schedule: Schedule, tally: Tally) -> None:
    """Post requests, one at a time, until there are no more."""
    while request := schedule.take():
        began = time.monotonic()
        events = [run.event(number) for number in request.numbers]
        answer = line.ask("POST", "/events", events if request.kind.startswith("batch") else events[0])
        tally.take_in(request, answer, began=began)


def percentile(latencies: Sequence[float], share: float) -> float:
    """Return the smallest of the sorted latencies that so large a share of them does not exceed."""
    return latencies[max(0, math.ceil(share * len(latencies)) - 1)]


def show(tally: Tally, lines: Sequence[Line], schedule: Schedule, seconds: float) -> None:
    """Print what was sent, what came of it, and how fast."""
    requests = sum(map(len, tally.latencies.values()))
    meant = len(tally.latencies["duplicate"])
    rates = f"{tally.events.total() / seconds:,.0f} events/s, {requests / seconds:,.0f} requests/s"
    failures = sum((line.failures for line in lines), Counter())
    errors = [f"{number:,} × {status or 'no answer'}" for status, number in sorted(failures.items())]
    errors += [f"{number:,} × {code}" for code, number in sorted(tally.problems.items())]
    repeats = sum(line.repeats for line in lines)
    print(f"sent          {schedule.events:,} events in {requests:,} requests; sent again: {repeats:,}")
    print(f"accepted      {tally.events['accepted']:,}")
    print(f"duplicates    {tally.events['duplicates']:,} ({meant:,} were meant to be)")
    print(f"errors        {', '.join(errors) or 'none'}")
    print(f"throughput    {rates}, for {seconds:.1f} s")
    print(f"started late  {tally.lag * 1000:,.1f} ms at most")
    print(f"{'ms':<14}{'requests':>10}{'p50':>10}{'p95':>10}{'p99':>10}{'max':>10}")
    for kind, latencies in [*sorted(tally.latencies.items()), ("all", itertools.chain(*tally.latencies.values()))]:
        if ordered := sorted(latencies):
            figures = "".join(f"{percentile(ordered, share) * 1000:>10,.1f}" for share in (0.5, 0.95, 0.99, 1))
            print(f"{kind:<14}{len(ordered):>10,}{figures}")


def used_in_books(desk: Line, tenants: Iterable[str]) -> dict[str, Decimal]:
    """Ask what each tenant has used."""
    used = {}
    for tenant in tenants:
        balances = desk.read(f"/tenants/{tenant}/balances")["results"]
        used[tenant] = sum((Decimal(one["used"]) for one in balances if one["meter"] == METER["code"]), Decimal(0))
    return used


def compare(desk: Line, run: Run, acknowledged: bytearray) -> bool:
    """Print what the books say and what was acknowledged; return whether they agree and no event was left out."""
    expected = dict.fromkeys(run.tenants, Decimal(0))
    for number in itertools.compress(range(len(acknowledged)), acknowledged):
        expected[run.tenant_of(number)] += run.tokens_of(number)
    books = used_in_books(desk, run.tenants)
    counted = sum(acknowledged)
    missing = len(acknowledged) - counted
    print(f"acknowledged  {sum(expected.values()):,} tokens of {counted:,} events; {missing:,} were not")
    print(f"in the books  {sum(books.values()):,} tokens")
    print(f"difference    {sum(books.values()) - sum(expected.values()):,} tokens")
    differing = [tenant for tenant in run.tenants if books[tenant] != expected[tenant]]
    for tenant in differing[:TENANTS_SHOWN]:
        print(f"  {tenant}: {books[tenant]:,} in the books, {expected[tenant]:,} acknowledged")
    if len(differing) > TENANTS_SHOWN:
        print(f"  and {len(differing) - TENANTS_SHOWN:,} more tenants")
    return not differing and not missing


def at_least(least: int, kind: type = float) -> Callable[[str], float]:
    """Return a reader of numbers from `least` on, for argparse."""

    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"must be {least} or more")
        return value

    return number


def parser() -> argparse.ArgumentParser:
    """Return what the command line may say."""
    about, _, rest = __doc__.partition("\n\n")
    form = argparse.RawDescriptionHelpFormatter
    options = argparse.ArgumentParser(description=about, epilog=rest, formatter_class=form)
    options.add_argument("--url", default="http://127.0.0.1:8000", help="the installation (default: %(default)s)")
    options.add_argument("--key", default=os.environ.get("TIERBOOK_API_KEY"), help="an API key with every scope")
    options.add_argument("--rate", type=at_least(0), default=100, help="events a second; 0: as fast as possible (100)")
    options.add_argument("--duration", type=at_least(1), default=10, help="seconds (10)")
    options.add_argument("--connections", type=at_least(1, int), default=16, help="kept open, a thread each (16)")
    options.add_argument("--mix", type=parse_mix, default="single=80,batch100=15,duplicate=5", help="(%(default)s)")
    options.add_argument("--tenants", type=at_least(1, int), default=10, help="that take turns (10)")
    options.add_argument("--seed", type=int, default=1, help="of the order of requests (1)")
    return options


def main() -> int:
    """Run the load; return the exit status."""
    options = parser()
    arguments = options.parse_args()
    if not arguments.key:
        options.error("give --key, or set TIERBOOK_API_KEY")
    run = Run.named_now(tenants=arguments.tenants)
    lines = [Line(arguments.url, arguments.key) for _ in range(arguments.connections)]
    try:
        set_up(Line(arguments.url, arguments.key, tries=TRIES_AT_FIRST), run)
        last = run.tenants[-1].removeprefix(run.name)
        print(f"test clock {run.name}, tenants {run.tenants[0]} to {last} on {TIER}", flush=True)
        schedule = Schedule(arguments.mix, rate=arguments.rate, duration=arguments.duration, seed=arguments.seed)
        began = time.monotonic()
        tally = put_load(lines, run, schedule)
        show(tally, lines, schedule, time.monotonic() - began)
        return 0 if compare(lines[0], run, schedule.acknowledged) else 1
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
