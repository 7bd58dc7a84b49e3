"""
Clients that send usage and note what they are told: what was acknowledged must be stored, what is stored must have been sent, each once.

They do what a gateway should: a request whose outcome is unknown (a broken connection, a 503) is sent again with the same ids until it
is answered. Some single events are given up instead, as by a gateway that dies: these may be stored or not.
"""

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

import psycopg

from tests.faults.installation import until

# A request is answered within this time or counts as hung: the product's own longest wait is half a minute.
HANG_SECONDS = 45
# The pause before an unknown request is sent again.
PAUSE_SECONDS = 0.05
# How long the clients may go on repeating when they have been asked to stop.
STOP_SECONDS = 90
# Of the single requests that became unknown, every so many is given up.
GIVE_UP_EVERY = 5

REFUSED, CUT, HUNG = "refused", "cut", "hung"
ACKNOWLEDGED = (200, 202)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sending of a request: by the monotonic clock in seconds, with a status, or what became of the connection."""

    began: float
    ended: float
    outcome: int | str
    events: int
    # 1 for the first sending of a request.
    sending: int

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Sent:
    """An event as it was sent."""

    subject: str
    tokens: int


class AckLog:
    """
    Threads that send for the length of the context, seven single events to three batches, spread over the subjects.

    `check` compares what they noted with what the database holds.
    """

    def __init__(
        self,
        url: str,
        key: str,
        subjects: Sequence[str],
        *,
        source: str = "ack-log",
        event_type: str = "llm.completion",
        threads: int = 8,
        batch_max: int = 50,
    ) -> None:
        self._host = urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._subjects = list(subjects)
        self._source, self._type, self._batch_max = source, event_type, batch_max
        self.sent: dict[str, Sent] = {}
        self.acknowledged: set[str] = set()
        self.attempts: list[Attempt] = []
        # Answers that no client should ever get, whatever died: each is a violation.
        self.odd: list[str] = []
        self.given_up = 0
        self._failures: list[BaseException] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(place,)) for place in range(threads)]
        self._began = self._ended = 0.0

    def __enter__(self) -> "AckLog":
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stopping.set()
        self._ended = time.monotonic()
        for thread in self._threads:
            thread.join(timeout=STOP_SECONDS + HANG_SECONDS)
        if error is None:
            assert not any(thread.is_alive() for thread in self._threads), "a client hangs"
            assert not self._failures, self._failures

    # What was noted

    def outcomes(self, *, since: float = 0, before: float = float("inf")) -> Counter[int | str]:
        """Count what became of the requests that began in this span."""
        return Counter(one.outcome for one in self._between(since, before))

    def recovery(self, since: float) -> float:
        """Wait for the first acknowledgement of a request that was sent after the moment; return the seconds from then until it came."""

        def acknowledged() -> list[float]:
            found = self._between(since, float("inf"))
            return [one.ended for one in found if one.outcome in ACKNOWLEDGED]

        return min(until(acknowledged, what="an acknowledgement", seconds=STOP_SECONDS)) - since

    def percentile(self, share: float, *, since: float = 0, before: float = float("inf")) -> float:
        """Return how many seconds this share of the single events that began in this span waited at most for their acknowledgement."""
        found = self._between(since, before)
        seconds = sorted(one.seconds for one in found if one.events == 1 and one.outcome in ACKNOWLEDGED)
        return seconds[min(len(seconds) - 1, int(share * len(seconds)))]

    def most_sendings(self) -> int:
        """Return how often the request that was sent most often was sent."""
        return max(one.sending for one in self.attempts)

    def longest_silence(self) -> float:
        """Return the longest time in seconds without any acknowledgement, while the clients were sending."""
        moments = sorted(one.ended for one in self.attempts if one.outcome in ACKNOWLEDGED and one.ended <= self._ended)
        marks = [self._began, *moments, self._ended]
        return max(later - earlier for earlier, later in itertools.pairwise(marks))

    def summary(self) -> str:
        """Return throughput, what became of the requests, and the 99th percentile of the single ones, for the report."""
        events = sum(one.events for one in self.attempts if one.outcome in ACKNOWLEDGED and one.ended <= self._ended)
        told = ", ".join(f"{number} × {what}" for what, number in sorted(self.outcomes().items(), key=str))
        told += f", {self.given_up} given up" if self.given_up else ""
        p99 = self.percentile(0.99) * 1000
        return f"{events / (self._ended - self._began):.0f} events/s; p99 {p99:.0f} ms; {told}"

    def _between(self, since: float, before: float) -> list[Attempt]:
        return [one for one in list(self.attempts) if since <= one.began < before]

    # What must hold

    def check(self, database: str) -> None:
        """
        Compare with the database, which nobody else writes these subjects' usage to.

        Acknowledged ⊆ stored ⊆ sent, each once and as it was sent; the balances are the sum of what is stored.
        """
        assert self.odd == [], self.odd[:3]
        assert not self.outcomes()[HUNG], "a request was not answered"
        with psycopg.connect(database) as connection:
            # The audit that follows joins what has grown faster than the server's own statistics follow.
            connection.execute("ANALYZE metering_usageevent, metering_eventkey, metering_posting, metering_ledgerentry")
            stored = connection.execute(
                "SELECT event_id, subject, (data ->> 'total_tokens')::int FROM metering_usageevent WHERE source = %s",
                [self._source],
            ).fetchall()
            usage = connection.execute(
                "SELECT t.code, sum(b.used), sum(b.events) FROM metering_meterbalance b"
                " JOIN subscriptions_tenant t ON t.id = b.tenant_id WHERE t.code = ANY (%s) GROUP BY t.code",
                [self._subjects],
            ).fetchall()
        identities = [identity for identity, _, _ in stored]
        assert len(identities) == len(set(identities)), "an event is stored twice"
        lost = self.acknowledged - set(identities)
        assert not lost, f"{len(lost)} acknowledged events are lost, {sorted(lost)[:3]} among them"
        assert {identity: Sent(subject, tokens) for identity, subject, tokens in stored}.items() <= self.sent.items()
        expected = {
            subject: (
                sum(tokens for _, whose, tokens in stored if whose == subject),
                sum(whose == subject for _, whose, _ in stored),
            )
            for subject in self._subjects
        }
        assert {code: (used, events) for code, used, events in usage} == expected

    def repeat(self) -> None:
        """Send everything that was acknowledged once more: all of it must be known. Changes no book."""
        identities = sorted(self.acknowledged)
        connection = http.client.HTTPConnection(self._host, timeout=HANG_SECONDS)
        for start in range(0, len(identities), 1000):
            part = identities[start : start + 1000]
            status, answer = self._post(connection, [self._event(one, self.sent[one]) for one in part])
            assert (status, answer.get("duplicates")) == (202, len(part)), (status, answer)
        connection.close()

    # The threads

    def _run(self, place: int) -> None:
        try:
            self._send_on(place)
        except BaseException as error:
            self._failures.append(error)

    def _send_on(self, place: int) -> None:
        generator = random.Random(place)
        connection = http.client.HTTPConnection(self._host, timeout=HANG_SECONDS)
        number = unknown = 0
        while not self._stopping.is_set():
            size = 1 if generator.random() < 0.7 else generator.randint(2, self._batch_max)
            events = []
            for _ in range(size):
                number += 1
                identity, sent = f"{place}-{number}", Sent(generator.choice(self._subjects), generator.randint(1, 900))
                self.sent[identity] = sent
                events.append(self._event(identity, sent))
            sending = 1
            while not self._attempt(connection, events, sending):
                sending += 1
                unknown += size == 1
                if size == 1 and unknown % GIVE_UP_EVERY == 0:
                    self.given_up += 1
                    break
                assert not self._ended or time.monotonic() < self._ended + STOP_SECONDS, "no answer in time"
                time.sleep(PAUSE_SECONDS)
        connection.close()

    def _event(self, identity: str, sent: Sent) -> dict[str, object]:
        return {
            "id": identity,
            "source": self._source,
            "type": self._type,
            "subject": sent.subject,
            "data": {"total_tokens": sent.tokens},
        }

    def _attempt(self, connection: http.client.HTTPConnection, events: list[dict[str, object]], sending: int) -> bool:
        """Send a request, note what became of it, and return whether that is settled."""
        began = time.monotonic()
        try:
            outcome, answer = self._post(connection, events)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            outcome, answer = _kind_of(error), {}
        self.attempts.append(Attempt(began, time.monotonic(), outcome, len(events), sending))
        if outcome in ACKNOWLEDGED:
            if answer.get("accepted", 0) + answer.get("duplicates", 0) == len(events):
                self.acknowledged.update(str(event["id"]) for event in events)
            else:
                self.odd.append(f"{outcome}: {answer}")
            return True
        if isinstance(outcome, int) and not (outcome == 503 and answer.get("retry_after")):
            self.odd.append(f"{outcome}: {answer}")
        return False

    def _post(self, connection: http.client.HTTPConnection, events: list[dict[str, object]]) -> tuple[int, dict]:
        body = json.dumps(events[0] if len(events) == 1 else events).encode()
        connection.request("POST", "/api/v1/events", body, self._headers)
        response = connection.getresponse()
        answer = json.loads(response.read() or b"{}")
        return response.status, {**answer, "retry_after": response.headers.get("Retry-After")}


def _kind_of(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return REFUSED
    return HUNG if isinstance(error, TimeoutError) else CUT
