"""
A seeded story of a small installation, told to the real services and to a model beside them.

Each step draws an operation by weight, does it through the services on the real PostgreSQL and Redis, and does the same to the model
(`tests.faults.model`). Then both must say the same: what became of each event, every balance, and, once a period has closed, every charge, fee
and proration on invoices. Time is virtual: each tenant lives on a test clock that only the story moves.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from django.db import connection
from django_redis import get_redis_connection

from invoices.models import Invoice, InvoiceLine, TenantCreditEntry
from invoices.selectors.books import breaches
from invoices.services import invoicing
from invoices.services.advancing import advance
from invoices.services.changing import Asked, change_tier
from invoices.services.closing import book_balance
from invoices.services.due import sweep
from invoices.services.subscribing import cancel_subscription, start_subscription
from metering.models import MeterBalance
from metering.services.ingest import record_events
from metering.services.replaying import replay_events
from metering.services.requests import NewEvent, Record
from metering.services.reversing import EventReversed, reverse_event
from subscriptions.models import TierVersion
from subscriptions.services import catalog, clocks, tenants
from subscriptions.services.agreement import SubscriptionEnded
from subscriptions.services.linting import BlockedByLinter
from tests.faults.draws import document, quantity
from tests.faults.model import (
    AHEAD,
    BEGIN,
    INSTANT,
    TYPES,
    WALL,
    WINDOW,
    Agreement,
    Change,
    Customer,
    Model,
    Terms,
    rounded,
    shape,
)
from tests.world import ACTOR, make_meter

TENANTS_MAX = 5
AUDIT_EVERY = 10


class Died(BaseException):
    """The transaction ended here, as if its process had; nothing that catches Exception catches it."""


class Differs(AssertionError):
    """The product and the model do not say the same. The message holds the seed and the whole story."""


class Simulator:
    """One story. `run` raises Differs when the product says something else than the model."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.story: list[str] = []
        self.counts: Counter[str] = Counter()
        self.model = Model()
        self.versions: list[tuple[TierVersion, Terms]] = []
        self.events_sent = 0
        self._touched: set[str] = set()
        make_meter(dimensions=["model"])
        make_meter("calls", event_type="tool.call", aggregation="count", value_property=None)
        self.publish()
        self.publish()
        for _ in range(2):
            self.subscribe(self.create())

    def run(self, steps: int) -> None:
        """Tell so many steps, then let everything end and be billed."""
        operations, weights = zip(*self._operations(), strict=True)
        step = 0
        try:
            for step in range(steps):
                operation = self.dice.choices(operations, weights)[0]
                self.counts[operation.__name__] += 1
                operation()
                self._compare_balances()
                if step % AUDIT_EVERY == AUDIT_EVERY - 1:
                    self._audit()
            self._settle()
        except Differs:
            raise
        except Exception as error:
            self._differ(f"step {step} failed with {type(error).__name__}: {error}", error)

    def _operations(self) -> list[tuple[Callable[[], None], int]]:
        return [
            (self.ingest_single, 22),
            (self.ingest_batch, 14),
            (self.repeat, 8),
            (self.conflict, 3),
            (self.ingest_late, 8),
            (self.ingest_outside_window, 2),
            (self.ingest_unmatched, 5),
            (self.reverse, 8),
            (self.replay, 3),
            (self.jump, 12),
            (self.jump_to_boundary, 6),
            (self.run_due_work, 3),
            (self.book, 4),
            (self.publish, 2),
            (self.create_or_subscribe, 4),
            (self.change, 6),
            (self.cancel, 2),
            (self.void, 2),
            (self.flush_redis, 3),
        ]

    # Operations: usage

    def ingest_single(self) -> None:
        """Send one event of the last two days, or of now."""
        self._send([[self._event(self._customer())]])

    def ingest_batch(self) -> None:
        """Send up to three requests as one group, with tenants mixed, out of order, and some events twice."""
        requests = []
        for _ in range(self.dice.randint(1, 3)):
            events = [self._event(self._customer()) for _ in range(self.dice.randint(2, 12))]
            events += self.dice.sample(events, self.dice.randint(0, 2))
            self.dice.shuffle(events)
            requests.append(events)
        self._send(requests)

    def ingest_late(self) -> None:
        """Send an event from anywhere in the window: of an older period, perhaps a closed one."""
        customer = self._customer()
        self._send([[self._event(customer, time=customer.now - self._span(WINDOW))]])

    def ingest_outside_window(self) -> None:
        """Send an event that is too old, or too far ahead."""
        customer = self._customer()
        outside = [customer.now - WINDOW - self._span(timedelta(days=20)), customer.now + AHEAD + self._span(WINDOW)]
        self._send([[self._event(customer, time=self.dice.choice(outside))]])

    def ingest_unmatched(self) -> None:
        """Send an event of a tenant to come, of a type that nothing counts, or without its quantity."""
        kind = self.dice.choice(["tenant", "type", "property"])
        customer = self._customer()
        if kind == "tenant":
            unknown = [each for each in self.model.customers if not each.is_known]
            customer = unknown[0] if unknown else self._make_customer()
            event = self._event(customer, time=BEGIN + self._span(timedelta(days=1)))
        elif kind == "type":
            event = replace(self._event(customer), type="nobody.counts")
        else:
            event = replace(self._event(customer), type="llm.completion", data={"model": "opus"})
        self._send([[event]])

    def repeat(self) -> None:
        """Send events again that were sent before, perhaps long ago."""
        if self.model.sent:
            known = self.dice.choices(list(self.model.sent.values()), k=self.dice.randint(1, 5))
            self._send([[each.event for each in known]])

    def conflict(self) -> None:
        """Send another content under an identity that is taken."""
        if self.model.sent:
            event = self.dice.choice(list(self.model.sent.values())).event
            self._send([[replace(event, data={**event.data, "changed": self.dice.randint(1, 9)})]])

    def reverse(self) -> None:
        """Take a counted event back, sometimes a second time; none of a closed period of several versions, of which the model knows no order."""
        counted = [
            each
            for each in self.model.sent.values()
            if each.place is not None and not (each.place.period.is_closed and each.place.period.changes)
        ]
        if not counted:
            return
        sent = self.dice.choice(counted)
        self._say(f"reverse {sent.event.subject} {sent.event.id}")
        assert sent.stored_as is not None
        stored_as = sent.stored_as
        try:
            self._perhaps_dying(lambda: reverse_event(event_id=stored_as, reason="simulated", actor=ACTOR))
            was_refused = False
        except EventReversed:
            was_refused = True
        self._same("a second reversal is refused", was_refused, sent.is_reversed)
        if not sent.is_reversed:
            assert sent.place is not None
            assert sent.counted is not None
            sent.is_reversed = True
            sent.place.take_back(sent.counted)
        self._touched.add(sent.event.subject)

    def replay(self) -> None:
        """Count what was unmatched and has a match by now."""
        self._say("replay")
        counted = replay_events(now=WALL).counted
        self._same("events counted by a replay", counted, self.model.replay())
        self._touched |= {each.code for each in self.model.tenants}

    # Operations: time

    def jump(self) -> None:
        """Move a tenant's time, by minutes or by weeks."""
        longest = self.dice.choices([timedelta(hours=2), timedelta(days=3), timedelta(days=50)], [2, 3, 1])[0]
        customer = self._customer()
        self._advance(customer, customer.now + self._span(longest))

    def jump_to_boundary(self) -> None:
        """Move a tenant's time to where its period ends or closes, to the instant before or after, or a few minutes before."""
        customer = self._customer()
        ahead = [edge for each in customer.periods() for edge in (each.ends_at, each.closes_at) if edge > customer.now]
        if ahead:
            offset = self.dice.choice([-AHEAD / 2, -INSTANT, timedelta(0), INSTANT])
            self._advance(customer, max(customer.now, min(ahead) + offset))

    def run_due_work(self) -> None:
        """Run what is due without moving any clock, as beat does."""
        self._say("sweep")
        sweep(now=datetime(2020, 1, 1, tzinfo=UTC), seconds_max=60)
        for customer in self.model.tenants:
            self._check_bills(customer, customer.run_until(customer.now))
            self._touched.add(customer.code)

    def book(self) -> None:
        """Book a balance's overage out of turn, as its doorbell does."""
        customer = self._customer()
        balances = list(MeterBalance.objects.filter(tenant=customer.row).order_by("pk"))
        if balances:
            place = self.dice.randrange(len(balances))
            balance = balances[place]
            self._say(f"book balance {place} of {customer.code}")
            self._perhaps_dying(lambda: book_balance(balance_id=balance.pk, now=customer.now))

    # Operations: agreements

    def publish(self) -> None:
        """Publish a version of a new tier, or the next version of one; terms that the linter refuses stay a draft, and others are drawn."""
        terms = document(self.dice)
        if self.versions and self.dice.random() < 0.5:
            tier = self.dice.choice(self.versions)[0].tier
        else:
            tier = catalog.create_tier(code=f"tier-{self.seed}-{len(self.story)}", name="Tier", actor=ACTOR)
        version = catalog.create_version(tier=tier, actor=ACTOR, document=terms)
        try:
            version = catalog.publish(version_id=version.pk, now=BEGIN, actor=ACTOR)
        except BlockedByLinter as refusal:
            self._say(f"draft, not published ({refusal.detail}): {terms}")
            self.publish()
            return
        placed = [each | {"place": place} for place, each in enumerate(terms["charges"])]
        self.versions.append((version, terms | {"charges": placed, "version": version.pk}))
        self._say(f"publish version {len(self.versions) - 1}: {terms}")

    def create_or_subscribe(self) -> None:
        """Create a tenant, or subscribe one that has no subscription."""
        free = [each for each in self.model.tenants if each.running is None]
        unknown = [each for each in self.model.customers if not each.is_known]
        if free and (self.dice.random() < 0.6 or len(self.model.customers) >= TENANTS_MAX):
            self.subscribe(self.dice.choice(free))
        elif unknown or len(self.model.customers) < TENANTS_MAX:
            self.create(unknown[0] if unknown else None)

    def create(self, customer: Customer | None = None) -> Customer:
        """Create a tenant on a clock of its own."""
        customer = customer or self._make_customer()
        self._say(f"create {customer.code}")
        customer.clock = clocks.create_clock(code=customer.code, now=customer.now, actor=ACTOR)
        customer.row = tenants.create_tenant(
            code=customer.code, name=customer.code, actor=ACTOR, test_clock=customer.clock.code
        )
        return customer

    def subscribe(self, customer: Customer) -> None:
        """Subscribe a tenant to any version that was ever published, from now."""
        number = self.dice.randrange(len(self.versions))
        version, terms = self.versions[number]
        self._say(f"subscribe {customer.code} to version {number} at {customer.now}")
        assert customer.row is not None
        row = start_subscription(
            tenant=customer.row,
            version=version,
            starts_at=customer.now,
            anchor_at=customer.now,
            now=customer.now,
            actor=ACTOR,
        )
        days_in = self.dice.choice(["UTC", None])
        customer.agreements.append(Agreement(row, terms, customer.now, days_in))
        customer.agreements[-1].open_until(customer.now)
        self._touched.add(customer.code)

    def change(self) -> None:
        """Change the tier of a subscription now, up or down, to a version with the same kind of periods and pools."""
        customer = self._customer()
        agreement = customer.running
        if agreement is None or agreement.ends_at is not None:
            return
        agreement.open_until(customer.now)
        newest, before = agreement.periods[-1], agreement.terms
        others = [
            number
            for number, (_, terms) in enumerate(self.versions)
            if terms["version"] != before["version"] and shape(terms) == shape(before)
        ]
        if not others or newest.starts_at > customer.now:
            return
        number = self.dice.choice(others)
        version, terms = self.versions[number]
        choices = {
            "fee": self.dice.choice(["prorate", "prorate", "none"]),
            "grain": "second" if agreement.days_in is None else "day",
            "allowance": self.dice.choice(["prorated", "prorated", "full_new"]),
            "bill": self.dice.choice(["next", "now"]),
        }
        self._say(f"change {customer.code} to version {number} at {customer.now}: {choices}")
        about = {"subscription_id": agreement.row.pk, "now": customer.now, "actor": ACTOR}
        asked = Asked(to_version=version, when="now", choices=choices)
        self._perhaps_dying(lambda: change_tier(**about, asked=asked, read=lambda change: None))
        agreement.terms = terms
        change = Change(customer.now, terms, replaces_allowance=choices["allowance"] == "full_new")
        newest.change(change, prorates=choices["fee"] == "prorate")
        self._touched.add(customer.code)

    def cancel(self) -> None:
        """Cancel a subscription now, or at the end of its period; with or without a credit."""
        customer = self._customer()
        if customer.running is not None:
            self._cancel(customer, self.dice.choice(["now", "period_end"]), self.dice.choice(["unused", "none"]))

    def void(self) -> None:
        """Void an open invoice: what it billed stands on the next one."""
        customer = self._customer()
        invoices = list(Invoice.objects.filter(tenant=customer.row, status="open").order_by("pk"))
        if invoices:
            invoice = self.dice.choice(invoices)
            self._say(f"void {invoice.printed_number} ({invoice.reason}) of {customer.code}")
            invoicing.void(invoice_id=invoice.pk, now=customer.now, actor=ACTOR, reason="simulated")

    def flush_redis(self) -> None:
        """Empty Redis: nothing may change."""
        self._say("FLUSHDB")
        get_redis_connection("default").flushdb()

    # How operations are done

    def _send(self, requests: list[list[NewEvent]]) -> None:
        """Send a group of requests, and compare what became of each event."""
        for events in requests:
            for event in events:
                self._say(f"send {event.subject} {event.source}/{event.id} {event.type} {event.time} {event.data}")
        reports = self._perhaps_dying(lambda: record_events([Record(events, WALL) for events in requests]))
        for events, report in zip(requests, reports, strict=True):
            for event, outcome in zip(events, report.outcomes, strict=True):
                self.events_sent += 1
                expected = self.model.expect(event, outcome.event_id)
                self._same(f"status of {event.subject} {event.id} ({outcome.code})", outcome.status, expected)
                self._touched.add(event.subject)

    def _advance(self, customer: Customer, to: datetime) -> None:
        self._say(f"advance {customer.code} to {to}")
        assert customer.clock is not None
        clock_id = customer.clock.pk
        self._perhaps_dying(lambda: advance(clock_id=clock_id, to=to, actor=ACTOR))
        customer.now = to
        self._check_bills(customer, customer.run_until(to))
        self._touched.add(customer.code)

    def _cancel(self, customer: Customer, when: str, credit: str) -> None:
        agreement = customer.running
        assert agreement is not None
        agreement.open_until(customer.now)
        newest = agreement.periods[-1]
        if newest.starts_at > customer.now:
            return  # usage sent ahead has opened the next period
        self._say(f"cancel {customer.code} {when} credit={credit} at {customer.now}")
        terms = {"subscription_id": agreement.row.pk, "when": when, "credit": credit, "now": customer.now}
        try:
            cancel_subscription(**terms, actor=ACTOR)
            was_refused = False
        except SubscriptionEnded:
            was_refused = True
        ends_at = newest.ends_at if when == "period_end" else max(customer.now, newest.starts_at + INSTANT)
        is_no_sooner = agreement.ends_at is not None and agreement.ends_at <= ends_at
        self._same("an end that is no sooner is refused", was_refused, is_no_sooner)
        if is_no_sooner:
            return
        if when == "period_end":
            agreement.ends_at = ends_at
            return
        if credit == "unused":
            whole = (newest.ends_at.date() - newest.starts_at.date()).days
            unused = max((newest.ends_at.date() - ends_at.date()).days - 1, 0)  # the day of cancelling counts as used
            newest.prorations -= rounded(newest.item_fee * Fraction(unused, whole))
        newest.ends_at = agreement.ends_at = ends_at

    def _perhaps_dying(self, call: Callable[[], Any]) -> Any:
        """Call; in one of six cases die before some statement first, and call again, as whoever got no answer does."""
        if self.dice.random() < 1 / 6:
            place = left = self.dice.randint(1, 40)

            def die(execute: Callable[..., Any], *statement: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Died
                return execute(*statement)

            try:
                with connection.execute_wrapper(die):
                    return call()
            except Died:
                self._say(f"  … died before statement {place}, and is done again")
                self.counts["died"] += 1
        return call()

    def _say(self, line: str) -> None:
        self.story.append(line)

    def _settle(self) -> None:
        """End every subscription, let every window pass, and compare everything that was ever billed."""
        for customer in self.model.tenants:
            self._advance(customer, customer.now + 2 * AHEAD)
            if customer.running is not None:
                self._cancel(customer, "now", "none")
            for wait in (WINDOW + timedelta(days=1), timedelta(hours=1)):
                self._advance(customer, customer.now + wait)
            self._check_bills(customer, customer.agreements)
            self._check_money(customer)
        self._compare_balances()
        self._audit()

    # What must be the same

    def _compare_balances(self) -> None:
        """Compare used and covered of every pool of the tenants that were touched."""
        touched = [each for each in self.model.tenants if each.code in self._touched]
        rows = MeterBalance.objects.filter(tenant__in=[each.row for each in touched]).values_list(
            "tenant__code", "period__starts_at", "meter__code", "pool", "used", "covered"
        )
        stored = {
            (code, at, meter, "opus" if pool else ""): (used, covered) for code, at, meter, pool, used, covered in rows
        }
        told = {
            (customer.code, period.starts_at, meter, key): (pool.position().used, pool.position().covered)
            for customer in touched
            for period in customer.periods()
            for meter, key, pool in period.all_pools()
        }
        nothing = (Decimal(0), Decimal(0))
        for place in told.keys() | stored.keys():
            code, *where = place
            self._same(f"used and covered of {code} {where}", stored.get(place, nothing), told.get(place, nothing))
        self._touched.clear()

    def _check_bills(self, customer: Customer, agreements: list[Agreement]) -> None:
        """Compare what invoices bill of agreements whose period has just closed: all of it, to the cent."""
        for agreement in agreements:
            closed = [each for each in agreement.periods if each.is_closed]
            until = closed[-1].ends_at
            lines = InvoiceLine.objects.filter(invoice__subscription=agreement.row).exclude(
                invoice__status__in=["void", "draft"]
            )
            billed: Counter[tuple[Any, ...]] = Counter()
            for start, kind, version, place, amount in lines.values_list(
                "period__starts_at", "kind", "charge__version", "charge__position", "amount"
            ):
                billed[start, kind if place is None else (version, place)] += amount
            for period in agreement.periods:
                where = f"{customer.code} {period.starts_at}"
                if period.starts_at <= until:
                    self._same(f"fee of {where}", billed.pop((period.starts_at, "fee"), 0), period.fee)
                prorations = billed.pop((period.starts_at, "proration"), 0)
                if not period.is_closed:
                    continue
                self._same(f"prorations of {where}", prorations, period.prorations)
                for _, _, pool in period.all_pools():
                    for (version, place), amount in pool.amounts().items():
                        found = billed.pop((period.starts_at, (version, place)), 0)
                        self._same(f"charge {place} of {where}", found, rounded(amount))
            left = {key: amount for key, amount in billed.items() if amount}
            self._same(f"other lines of {customer.code}", left, {})

    def _check_money(self, customer: Customer) -> None:
        """Compare what is due in all with what was billed and what is left as credit."""
        invoices = Invoice.objects.filter(tenant=customer.row).exclude(status="void")
        subtotals = sum(each.subtotal for each in invoices)
        credit = sum(TenantCreditEntry.objects.filter(tenant=customer.row).values_list("amount", flat=True))
        self._same(f"money of {customer.code}", sum(each.amount_due for each in invoices), subtotals + credit)

    def _audit(self) -> None:
        self._same("the audit", breaches(), [])

    def _same(self, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            self._differ(f"{what}: the product says {found}, the model {expected}")

    def _differ(self, what: str, cause: Exception | None = None) -> None:
        story = "\n".join(f"{number:4} {line}" for number, line in enumerate(self.story))
        raise Differs(
            f"seed {self.seed}: {what}\nRun it again with SIM_SEEDS={self.seed}. The story:\n{story}"
        ) from cause

    # What is drawn

    def _customer(self) -> Customer:
        return self.dice.choice(self.model.tenants)

    def _make_customer(self) -> Customer:
        customer = Customer(f"org-{self.seed}-{len(self.model.customers)}")
        self.model.customers.append(customer)
        return customer

    def _span(self, longest: timedelta) -> timedelta:
        return timedelta(microseconds=self.dice.randint(1, longest // INSTANT))

    def _event(self, customer: Customer, *, time: datetime | None = None) -> NewEvent:
        if time is None and self.dice.random() < 0.8:
            time = customer.now - self._span(timedelta(days=2)) + self.dice.choice([timedelta(0), AHEAD])
            time = min(time, customer.now + AHEAD)
        kind = self.dice.choices(list(TYPES), [4, 1])[0]
        data: dict[str, Any] = {"total_tokens": quantity(self.dice)} if kind == "llm.completion" else {}
        model = self.dice.choice(["opus", "haiku", ""])
        source = self.dice.choice(["gate-a", "gate-b"])
        number = f"{len(self.story)}-{self.dice.randrange(10**6)}"
        return NewEvent(customer.code, source, number, kind, time, data | ({"model": model} if model else {}))
