"""
What the simulator's story must have led to: single events in lists, calendars and terms, in exact arithmetic.

Rated by `tests.oracle`. Knows no segments, no totals, no bookings and no code of the product but the form of an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from metering.services.requests import NewEvent
from subscriptions.models import Subscription, Tenant, TestClock
from tests import oracle

BEGIN = datetime(2026, 6, 1, tzinfo=UTC)
# The wall time of receipt, by which only tenants count that nobody knows.
WALL = BEGIN + timedelta(days=1)
AHEAD = timedelta(minutes=10)
WINDOW = timedelta(days=35)
INSTANT = timedelta(microseconds=1)

TYPES = {"llm.completion": "tokens", "tool.call": "calls"}

# A version's document as it was published; each charge says its place, and the document the version's id.
Terms = dict[str, Any]


@dataclass(eq=False)
class Sent:
    """An event that took its key."""

    event: NewEvent
    # When it counts; the moment of receipt where no time was sent.
    time: datetime
    stored_as: UUID | None
    is_counted: bool = False
    is_reversed: bool = False
    place: Pool | None = None
    counted: oracle.Event | None = None


@dataclass(eq=False)
class Pool:
    """One pool of one period: the events in time, and what came after closing in its order."""

    period: Period
    meter: str
    key: str
    in_time: list[oracle.Event] = field(default_factory=list)
    late: list[tuple[oracle.Event, int]] = field(default_factory=list)
    # The position as it was last computed, and what it was computed from: how many events and changes of tier there were, and the period's end.
    _stand: oracle.Position | None = None
    _stands_at: tuple[int, int, datetime] | None = None
    _events: int = 0

    def count(self, event: oracle.Event) -> None:
        self._events += 1
        self.late.append((event, 1)) if self.period.is_closed else self.in_time.append(event)

    def take_back(self, event: oracle.Event) -> None:
        self._events += 1
        self.late.append((event, -1)) if self.period.is_closed else self.in_time.remove(event)

    @property
    def grants(self) -> list[oracle.Grant]:
        included = self.period.allowance(lambda terms: included_in(terms, self.meter, self.key))
        return [oracle.Grant("allowance", included, self.period.starts_at, expires_at=self.period.ends_at)]

    def position(self) -> oracle.Position:
        stands_at = self._events, len(self.period.changes), self.period.ends_at
        if self._stand is None or self._stands_at != stands_at:
            in_time = oracle.position(map(self._within, self.in_time), self.grants)
            self._stand, self._stands_at = self._with_late(in_time), stands_at
        return self._stand

    def amounts(self) -> dict[tuple[int, int], Fraction]:
        """Return what each charge has come to, by version and its place there."""
        versions = [
            oracle.Version(
                terms["version"],
                since,
                [
                    oracle.Charge(each["place"], each["price"], each.get("dimensions", {}))
                    for each in charges_of(terms, self.meter, self.key)
                ],
            )
            for since, terms in self.period.in_force().items()
        ]
        return oracle.bill_position(self.position(), self.grants, versions, ends_at=self.period.ends_at).amounts

    def _with_late(self, in_time: oracle.Position) -> oracle.Position:
        late = [(self._within(event), sign) for event, sign in self.late]
        if not self.period.changes:
            return oracle.late(in_time, late)
        # Of several versions each has its own part of the overage, so what came late stays where it is; nothing of theirs is taken back.
        added = [(event, Fraction(event.quantity)) for event, _ in late]
        more = sum((quantity for _, quantity in added), Fraction(0))
        uncovered = sorted([*in_time.uncovered, *added], key=lambda pair: pair[0].occurred_at)
        return replace(in_time, used=in_time.used + more, overage=in_time.overage + more, uncovered=uncovered)

    def _within(self, event: oracle.Event) -> oracle.Event:
        # A cancellation may cut the period under an event that was sent with a time a few minutes ahead; it stays the period's last one.
        return replace(event, occurred_at=min(event.occurred_at, self.period.ends_at - INSTANT))


@dataclass(eq=False)
class Change:
    """A change of tier within a period. One that replaces the allowance is as if it had been there from the beginning."""

    at: datetime
    terms: Terms
    replaces_allowance: bool


@dataclass(eq=False)
class Period:
    agreement: Agreement
    starts_at: datetime
    ends_at: datetime
    # The version it began with, and what it was to last before anything cut it.
    terms: Terms
    whole_ends_at: datetime
    changes: list[Change] = field(default_factory=list)
    # What changes and a cancellation gave back (negative) and charged.
    prorations: Decimal = Decimal(0)
    # The fee of which there is an item that can be given back.
    item_fee: Fraction = Fraction(0)
    is_closed: bool = False
    pools: dict[tuple[str, str], Pool] = field(default_factory=dict)

    @property
    def fee(self) -> Decimal:
        return Decimal(self.terms["fee"])

    @property
    def closes_at(self) -> datetime:
        return self.ends_at + timedelta(hours=self.terms["grace_hours"])

    def in_force(self) -> dict[datetime, Terms]:
        """Return the versions by the instants from which they are in force."""
        return {self.starts_at: self.terms} | {change.at: change.terms for change in self.changes}

    def allowance(self, included: Callable[[Terms], Decimal]) -> Decimal:
        """Return what the versions include, each for its share of the period, rounded once on the total."""
        values = [(self.starts_at, included(self.terms))]
        for change in self.changes:
            values = [
                *([] if change.replaces_allowance else values),
                (self.starts_at if change.replaces_allowance else change.at, included(change.terms)),
            ]
        total = self.share(values, self.whole_ends_at)
        return (Decimal(total.numerator) / total.denominator).quantize(Decimal(1), ROUND_HALF_UP)

    def left_from(self, instant: datetime) -> Fraction:
        """Return which share of the period begins with this instant, or with its day."""
        return self.share([(self.starts_at, 0), (instant, 1)], self.whole_ends_at)

    def share(self, values: list[tuple[datetime, oracle.Number]], until: datetime) -> Fraction:
        """Return the values' mean over the period, as the agreement counts time."""
        days_in = self.agreement.days_in
        whole = oracle.integral([(self.starts_at, 1)], self.starts_at, self.whole_ends_at, days_in=days_in)
        return oracle.integral(values, self.starts_at, until, days_in=days_in) / whole

    def change(self, change: Change, *, prorates: bool) -> None:
        """Let another version be in force from an instant; its fee is charged, and the one before given back, for what is left, or neither."""
        self.changes.append(change)
        if prorates:
            left, fee = self.left_from(change.at), Fraction(change.terms["fee"])
            self.prorations += rounded(fee * left) - rounded(self.item_fee * left)
            self.item_fee = fee

    def pool_of(self, meter: str, dimensions: dict[str, str]) -> Pool | None:
        """Return the pool of usage with these dimensions; None where the version charges nothing for the meter."""
        charges = [each for each in self.terms["charges"] if each["meter"] == meter]
        if not charges:
            return None
        fitting = [
            each
            for each in charges
            if all(dimensions.get(name) == value for name, value in each.get("dimensions", {}).items())
        ]
        best = max(fitting, key=lambda each: len(each.get("dimensions", {})), default=None)
        key = "opus" if best is not None and has_own_pool(best) else ""
        return self.pools.setdefault((meter, key), Pool(self, meter, key))

    def all_pools(self) -> Iterator[tuple[str, str, Pool]]:
        """Yield every pool of the version, used or not."""
        for meter in {each["meter"] for each in self.terms["charges"]}:
            for dimensions in ({"model": ""}, {"model": "opus"}):
                self.pool_of(meter, dimensions)
        yield from ((meter, key, pool) for (meter, key), pool in self.pools.items())


@dataclass(eq=False)
class Agreement:
    """A subscription: the terms that are in force, and its periods as a calendar says."""

    row: Subscription
    terms: Terms
    starts_at: datetime
    # Where changes of tier count days; None where they count the time itself.
    days_in: str | None = None
    ends_at: datetime | None = None
    periods: list[Period] = field(default_factory=list)

    def open_until(self, instant: datetime) -> None:
        """Add the periods that have begun at the instant."""
        while True:
            start = self.boundary(len(self.periods))
            if start > instant or (self.ends_at is not None and start >= self.ends_at):
                return
            end = self.boundary(len(self.periods) + 1)
            self.periods.append(Period(self, start, end, self.terms, end, item_fee=Fraction(self.terms["fee"])))

    def boundary(self, number: int) -> datetime:
        """Return the start of a period, counted from the first start: weeks, or months cut to their last day."""
        if self.terms["interval"] == "week":
            return self.starts_at + timedelta(weeks=number)
        months = self.starts_at.month - 1 + number
        year, month = self.starts_at.year + months // 12, months % 12 + 1
        last = (datetime(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)).day
        return self.starts_at.replace(year=year, month=month, day=min(self.starts_at.day, last))


@dataclass(eq=False)
class Customer:
    """A tenant on a clock of its own."""

    code: str
    row: Tenant | None = None
    clock: TestClock | None = None
    now: datetime = BEGIN
    agreements: list[Agreement] = field(default_factory=list)

    @property
    def is_known(self) -> bool:
        return self.row is not None

    @property
    def running(self) -> Agreement | None:
        last = self.agreements[-1] if self.agreements else None
        return last if last is not None and (last.ends_at is None or last.ends_at > self.now) else None

    def periods(self) -> Iterator[Period]:
        for agreement in self.agreements:
            yield from agreement.periods

    def period_at(self, instant: datetime) -> Period | None:
        """Return the period that covers the instant; opens it where usage may."""
        if instant <= self.now + AHEAD and self.agreements:
            self.agreements[-1].open_until(instant)
        return next((each for each in self.periods() if each.starts_at <= instant < each.ends_at), None)

    def run_until(self, instant: datetime) -> list[Agreement]:
        """Open and close what is due at the instant; return the agreements of which something closed."""
        closed = []
        for agreement in self.agreements:
            agreement.open_until(instant)
            due = [each for each in agreement.periods if not each.is_closed and each.closes_at <= instant]
            for period in due:
                period.is_closed = True
            closed += [agreement] if due else []
        return closed


def has_own_pool(charge: dict[str, Any]) -> bool:
    return bool(charge.get("dimensions")) and "included" in charge


def charges_of(terms: Terms, meter: str, key: str) -> list[dict[str, Any]]:
    """Return a version's charges that burn from a pool."""
    return [each for each in terms["charges"] if each["meter"] == meter and has_own_pool(each) == bool(key)]


def included_in(terms: Terms, meter: str, key: str) -> Decimal:
    """Return what a version includes of a pool."""
    leaders = [each for each in charges_of(terms, meter, key) if key or not each.get("dimensions")]
    return Decimal(leaders[0].get("included", 0)) if leaders else Decimal(0)


def shape(terms: Terms) -> tuple[str, frozenset[tuple[str, bool]]]:
    """Return what two versions have in common where a change between them keeps the period and its pools."""
    return terms["interval"], frozenset((each["meter"], has_own_pool(each)) for each in terms["charges"])


def rounded(amount: Fraction) -> Decimal:
    """Round to cents, halves away from zero."""
    cents = (abs(amount) * 100 + Fraction(1, 2)).__floor__()
    return Decimal(cents if amount >= 0 else -cents) / 100


class Model:
    """All customers, and every event that took its key."""

    def __init__(self) -> None:
        self.customers: list[Customer] = []
        self.sent: dict[tuple[str, str, str], Sent] = {}

    @property
    def tenants(self) -> list[Customer]:
        return [each for each in self.customers if each.is_known]

    def customer_of(self, code: str) -> Customer:
        return next(each for each in self.customers if each.code == code)

    def replay(self) -> int:
        """Count what has a match by now; how many events."""
        unmatched = [each for each in self.sent.values() if not each.is_counted]
        return sum(self.count(self.customer_of(each.event.subject), each) for each in unmatched)

    def expect(self, event: NewEvent, stored_as: UUID | None) -> str:
        """Do to the model what the event does, and return what the product must answer."""
        identity = (event.subject, event.source, event.id)
        known = self.sent.get(identity)
        if known is not None:
            return (
                "duplicate"
                if (known.event.type, known.event.data, known.event.time)
                == (
                    event.type,
                    event.data,
                    event.time,
                )
                else "conflict"
            )
        customer = self.customer_of(event.subject)
        now = customer.now if customer.is_known else WALL
        time = event.time or now
        if not now - WINDOW <= time <= now + AHEAD:
            return "rejected"
        sent = self.sent[identity] = Sent(event, time, stored_as)
        return "accepted" if self.count(customer, sent) else "unmatched"

    def count(self, customer: Customer, sent: Sent) -> bool:
        """Count an event in the model; whether anything counts it."""
        event = sent.event
        period = customer.period_at(sent.time) if customer.is_known else None
        meter = TYPES.get(event.type)
        if period is None or meter is None or (meter == "tokens" and "total_tokens" not in event.data):
            return False
        dimensions = {"model": event.data.get("model", "")} if meter == "tokens" else {}
        pool = period.pool_of(meter, dimensions)
        if pool is None:
            return False
        quantity = event.data["total_tokens"] if meter == "tokens" else Decimal(1)
        sent.counted = oracle.Event(sent.time, quantity, dimensions)
        sent.is_counted, sent.place = True, pool
        pool.count(sent.counted)
        return True
