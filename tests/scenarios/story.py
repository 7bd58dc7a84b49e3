"""
A customer's story, told through the public API with a test clock: what is offered, what the customer does, what the bills say.

Times are written as the customer's own wall time ("2026-06-15", "2026-06-15 10:00"). Every step must be answered as a story needs it, so that a step that
fails does so where it stands.
"""

import json
from datetime import UTC, datetime
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

from django.http import HttpResponse
from django.test import Client

from invoices import tasks
from subscriptions.services.keys import issue_key

PER_TOKEN = {"model": "per_unit", "unit_amount": "0.0002"}
LONG_AGO = "2016-01-01T00:00:00Z"


def tokens(included: str | None, **terms: Any) -> dict[str, Any]:
    """Return the charge for tokens: so many included, $0.0002 beyond."""
    return {"kind": "usage", "meter": "tokens", "included": included, "price": PER_TOKEN} | terms


class Story:
    """One customer, who lives on a test clock in a zone of their own."""

    def __init__(self, begins: str, *, zone: str = "UTC", currency: str = "USD", customer: str = "acme") -> None:
        self.zone, self.currency, self.customer = zone, currency, customer
        _, secret = issue_key(name="story", scopes=["ingest", "gate", "read", "manage"], actor="system")
        self._client = Client(headers={"Authorization": f"Bearer {secret}"})
        self._numbers = count(1)
        self._done("POST", "/test-clocks", {"id": f"clock-of-{customer}", "now": self.instant(begins)})
        meter = {"name": "Tokens", "event_type": "llm.completion", "aggregation": "sum", "value_property": "tokens"}
        self._send("POST", "/meters", {"code": "tokens"} | meter)  # 409 where another customer's story has made it
        tenant = {"id": customer, "name": customer.title(), "currency": currency, "timezone": zone}
        self._done("POST", "/tenants", tenant | {"test_clock": f"clock-of-{customer}"})
        self.subscription = ""

    # The offer.

    def offer(self, tier: str, fee: str, included: str | None, *, charge: Any = None, **terms: Any) -> None:
        """Offer a tier, monthly unless the terms say otherwise: a fee in advance, so many tokens included, $0.0002 beyond."""
        self._done("POST", "/tiers", {"code": tier, "name": tier.title()})
        self.publish(tier, fee, included, charge=charge, **terms)

    def publish(
        self,
        tier: str,
        fee: str,
        included: str | None,
        *,
        cohort: str = "new",
        at: str | None = None,
        charge: Any = None,
        **terms: Any,
    ) -> int:
        """Publish the next version of a tier to a cohort, from long ago on unless `at` is given; return its number."""
        document = {"currency": self.currency, "fee": fee, "charges": [charge or tokens(included)]} | terms
        number: int = self._done("POST", f"/tiers/{tier}/versions", document)["number"]
        body = {"cohort": cohort, "effective_at": LONG_AGO if at is None else self.instant(at)}
        self._done("POST", f"/tiers/{tier}/versions/{number}/publish", body)
        if cohort != "new":
            tasks.plan_publications()  # a worker does, whose doorbell was rung
        return number

    def version(self, tier: str, number: int) -> dict[str, Any]:
        """Return a version's document."""
        return self._done("GET", f"/tiers/{tier}/versions/{number}")

    def withdraw(self, tier: str, number: int) -> None:
        """Undo the publication of a version that is still to come."""
        self._done("POST", f"/tiers/{tier}/versions/{number}/undo")
        tasks.plan_publications()

    # What the customer does.

    def subscribe(self, tier: str, **terms: Any) -> dict[str, Any]:
        """Subscribe now, unless the terms say otherwise."""
        body = {"tenant": self.customer, "tier": tier}
        document = self._done("POST", "/subscriptions", body | terms)
        self.subscription = document["id"]
        return document

    def measure(self, meter: str, aggregation: str) -> None:
        """Measure something else than tokens."""
        how = {
            "name": meter.title(),
            "event_type": "llm.completion",
            "aggregation": aggregation,
            "value_property": meter,
        }
        self._done("POST", "/meters", {"code": meter} | how)

    def use(self, quantity: int, on: str | None = None, *, of: str = "tokens") -> str:
        """Use something, now or on a day that has been; return what became of the event: accepted, or unmatched."""
        time = {} if on is None else {"time": self.instant(on)}
        event = {"id": f"e{next(self._numbers)}", "subject": self.customer, "type": "llm.completion"} | time
        counted = self._done("POST", "/events", event | {"data": {of: quantity}})
        return next(name for name in ("accepted", "unmatched", "rejected") if counted[name])

    def buy(self, quantity: int) -> None:
        """Buy tokens that do not expire."""
        grant = {"meter": "tokens", "quantity": quantity, "kind": "purchased", "key": f"bought-{next(self._numbers)}"}
        self._done("POST", f"/tenants/{self.customer}/grants", grant)

    def on(self, instant: str) -> list[str]:
        """Wait until then; return what was done by itself meanwhile."""
        answer = self._done("POST", f"/test-clocks/clock-of-{self.customer}/advance", {"to": self.instant(instant)})
        return [entry["what"] for entry in answer["journal"]]

    def change(self, tier: str, when: str = "now", **choices: Any) -> dict[str, Any]:
        """Change the tier; `when` is now, period_end, or a time. Returns the statement, which the preview has told before."""
        when = when if when in ("now", "period_end") else self.instant(when)
        foretold = self.do("change", tier=tier, when=when, preview=True, **choices)
        statement = self.do("change", tier=tier, when=when, **choices)
        assert _figures(foretold) == _figures(statement)
        return statement

    def do(self, verb: str, **body: Any) -> dict[str, Any]:
        """Do something to the subscription: change, cancel, pause, resume, reactivate, anchor, trial, undo."""
        return self._done("POST", f"/subscriptions/{self.subscription}/{verb}", body)

    def refused(self, verb: str, **body: Any) -> str:
        """Try something that is refused; return the status and code of the refusal."""
        if verb == "subscribe":
            answer = self._send("POST", "/subscriptions", {"tenant": self.customer} | body)
        else:
            answer = self._send("POST", f"/subscriptions/{self.subscription}/{verb}", body)
        assert answer.status_code >= 400, answer.content
        return f"{answer.status_code} {answer.json()['code']}"

    def move_to(self, zone: str) -> None:
        """Move the customer to another zone, in which times are written from now on."""
        self._done("PATCH", f"/tenants/{self.customer}", {"timezone": zone})
        self.zone = zone

    # What there is to see.

    def balance(self) -> dict[str, str]:
        """Return used, included, remaining and overage of tokens in the running period; nothing where none runs."""
        balances = self._done("GET", f"/tenants/{self.customer}/balances")["results"]
        figures = ("used", "included", "remaining", "overage")
        return next(({name: one[name] for name in figures} for one in balances if one["meter"] == "tokens"), {})

    def may_use(self, quantity: int) -> str:
        """Ask the gate, without holding anything."""
        body = {"tenant": self.customer, "meter": "tokens", "quantity": quantity, "hold": False}
        return str(self._done("POST", "/authorizations", body)["decision"])

    def shown(self) -> dict[str, Any]:
        """Return the subscription's document."""
        return self._done("GET", f"/subscriptions/{self.subscription}")

    def status(self) -> str:
        """Return how the subscription stands."""
        return str(self.shown()["status"])

    def periods(self) -> list[tuple[str, str]]:
        """Return the periods, the oldest first, each by its kind and the wall time of its end."""
        return [(one["kind"], self.wall(one["ends_at"])) for one in reversed(self.shown()["periods"])]

    def statement(self, change: dict[str, Any]) -> dict[str, Any]:
        """Return the statement of a change as it is now."""
        return self._done("GET", f"/subscriptions/{self.subscription}/changes/{change['id']}")

    def invoices(self) -> list[dict[str, Any]]:
        """Return the invoices, the oldest first."""
        found = self._done("GET", "/invoices", {"tenant": self.customer, "limit": 100})["results"]
        return list(reversed(found))

    def bills(self) -> list[tuple[str, str]]:
        """Return the invoices, the oldest first, each by its reason and total."""
        return [(one["reason"], one["total"]) for one in self.invoices()]

    def last_bill(self) -> list[tuple[str, str]]:
        """Return the lines of the newest invoice, each by its kind and amount."""
        return [(line["kind"], line["amount"]) for line in self.invoices()[-1]["lines"]]

    def last_bill_says(self) -> list[str]:
        """Return what the lines of the newest invoice say."""
        return [line["description"] for line in self.invoices()[-1]["lines"]]

    def credit(self) -> str:
        """Return what was applied of the customer's credit by the newest invoice."""
        return str(self.invoices()[-1]["credit_applied"])

    def verify(self) -> None:
        """Rate every invoice again from its sources."""
        for invoice in self.invoices():
            verified = self._done("POST", f"/invoices/{invoice['id']}/verify", {})
            assert verified == {"equal": True, "differences": []}, (invoice["number"], verified)

    # How it is written.

    def instant(self, wall: str) -> str:
        """Return the instant of a wall time of the customer's: the first, where it comes twice."""
        local = datetime.fromisoformat(wall).replace(tzinfo=ZoneInfo(self.zone))
        return local.astimezone(UTC).isoformat().replace("+00:00", "Z")

    def wall(self, instant: str) -> str:
        """Return the customer's wall time of an instant."""
        return f"{datetime.fromisoformat(instant).astimezone(ZoneInfo(self.zone)):%Y-%m-%d %H:%M}"

    def _done(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._send(method, path, body or {})
        assert answer.status_code < 400, (path, body, answer.content)
        document: dict[str, Any] = answer.json()
        return document

    def _send(self, method: str, path: str, body: dict[str, Any]) -> HttpResponse:
        address = f"/api/v1{path}"
        if method == "GET":
            return self._client.get(address, body)
        headers = {"Idempotency-Key": f"{self.customer}-{next(self._numbers)}"}
        return self._client.generic(method, address, json.dumps(body), "application/json", headers=headers)


def _figures(statement: dict[str, Any]) -> dict[str, Any]:
    """Return what a preview foretells: all but the identity, the state and the numbers of invoices."""
    lines = [line | {"invoice": None} for line in statement["lines"]]
    return statement | {"id": None, "status": None, "words": None, "lines": lines}
