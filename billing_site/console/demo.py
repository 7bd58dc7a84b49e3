"""
Demo data: five customers of three tiers, and two closed months of their usage, all through the services that serve real ones.

Owns who the customers are and what they use. They live on a test clock of their own, so that nothing of theirs meets wall time. What they
use follows from their codes and the date alone: loading again sends the same events, and finishes what was cut off.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from django.db import transaction

from invoices.models import Invoice
from invoices.services.advancing import advance
from invoices.services.subscribing import start_subscription
from metering.services.ingest import record_events
from metering.services.requests import ACCEPTED, DUPLICATE, NewEvent, Record
from subscriptions.models import BillingPeriod, Subscription, TestClock, TierVersion
from subscriptions.services import approvals, catalog, clocks, tenants

ACTOR = "demo"
CLOCK = "demo-clock"
METER = "demo-tokens"
EVENT_TYPE = "demo.llm.tokens"
REQUEST_EVENTS_MAX = 1000
# How far the clock moves at once, at most; well within the 35 days that a meter looks back.
STEP = timedelta(days=7)
# In USD per token: model → input, output.
PRICES = {
    "haiku": ("0.0000012", "0.000006"),
    "sonnet": ("0.0000036", "0.000018"),
    "opus": ("0.000006", "0.00003"),
}


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer of the demo, and how much it uses."""

    code: str
    name: str
    tier: str
    timezone: str
    country: str
    # Of the first month: the local day on which the subscription starts, at midnight.
    first_day: int
    # On a weekday of the first month.
    calls_per_day: int
    input_tokens: tuple[int, int]
    # Of a weekday's calls, on Saturdays and Sundays.
    weekend_percent: int
    # By how much the calls of a day grow in 30 days.
    growth_percent: int
    # Which hours of the local day its calls fall into; each is as likely as it is often.
    hours: tuple[int, ...]
    # Which models it calls, likewise.
    models: tuple[str, ...]


OFFICE = (8, 9, 9, 10, 10, 10, 11, 11, 12, 13, 14, 14, 14, 15, 15, 16, 16, 17, 18, 20)
EVENING = (7, 8, 9, 11, 12, 13, 15, 17, 18, 18, 19, 19, 20, 20, 20, 21, 21, 22, 22, 23)
ALL_DAY = (*OFFICE, *EVENING, 0, 1, 2, 3, 4, 5, 6)
SMALL, MIXED, LARGE = ("haiku", "haiku", "sonnet"), ("haiku", "sonnet", "sonnet", "opus"), ("sonnet", "opus")
CUSTOMERS = (
    # The first one starts on the 1st: `_first_day` asks it when the demo began.
    Customer(
        "demo-lantern",
        "Lantern Legal",
        "demo-starter",
        "America/New_York",
        "US",
        1,
        10,
        (3000, 15000),
        20,
        15,
        OFFICE,
        SMALL,
    ),
    Customer(
        "demo-fjord", "Fjord Travel", "demo-starter", "Europe/Oslo", "NO", 1, 6, (500, 4000), 140, 5, EVENING, SMALL
    ),
    Customer(
        "demo-harbour",
        "Harbour Freight Desk",
        "demo-growth",
        "Europe/London",
        "GB",
        1,
        16,
        (10000, 60000),
        25,
        20,
        OFFICE,
        MIXED,
    ),
    Customer(
        "demo-kumo", "Kumo Tutors", "demo-growth", "Asia/Tokyo", "JP", 8, 12, (8000, 40000), 120, 25, EVENING, MIXED
    ),
    Customer(
        "demo-atlas",
        "Atlas Research",
        "demo-scale",
        "America/Los_Angeles",
        "US",
        1,
        20,
        (20000, 160000),
        60,
        10,
        ALL_DAY,
        LARGE,
    ),
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is there after loading: events that this run has added, and all invoices of the demo's customers."""

    events: int
    invoices: int


def load(
    *, now: datetime, say: Callable[[str], object], months: int = 2, days: int = 10, calls_percent: int = 100
) -> Loaded:
    """
    Load the demo data: `months` closed months and `days` of the running one, or what is missing of them.

    `now` is wall time; the demo ends on day `days` + 1 of the newest month that has so many days behind it. A later run goes by
    the beginning of the first. Give it the same numbers, of which `calls_percent` scales the calls of a day. `say` takes a line
    per step. Raises AlreadyExists (409) where one of the demo's codes belongs to somebody else.
    """
    clock = TestClock.objects.filter(code=CLOCK).first()
    if clock is None:
        first_day = _months_later((now.astimezone(UTC) - timedelta(days=days)).date(), -months)
        say(f"Demo data: three tiers and {len(CUSTOMERS)} customers from {first_day:%d %B %Y} on …")
        clock = _set_up(first_day=first_day, now=now)
    first_day = _first_day()
    end = _midnight(_months_later(first_day, months) + timedelta(days=days), UTC)
    events = _live(clock, first_day=first_day, end=end, now=now, calls_percent=calls_percent, say=say)
    return Loaded(events, Invoice.objects.filter(tenant__test_clock=clock).count())


def _live(
    clock: TestClock, *, first_day: date, end: datetime, now: datetime, calls_percent: int, say: Callable[[str], object]
) -> int:
    """
    Take the customers from the clock's time to `end`, and return how many events were new.

    The clock stops at every period's end, before the grace after it is over, so that no event comes late. The first step repeats
    the events of the last one, which may have been cut off.
    """
    if clock.advancing_to is not None and clock.advancing_to <= end:
        advance(clock_id=clock.pk, to=clock.advancing_to, actor=ACTOR)
        clock.refresh_from_db()
    since = clock.now - STEP
    total = 0
    while clock.now <= end and clock.advancing_to is None:
        events = sorted(
            (event for customer in CUSTOMERS for event in _usage(customer, first_day, since, clock.now, calls_percent)),
            key=lambda event: event.time or since,
        )
        recorded = _record(events, now=now)
        total += recorded
        say(f"Demo data: {clock.now:%d %B %Y %H:%M}, {recorded} events")
        if clock.now == end:
            break
        since = clock.now
        advance(clock_id=clock.pk, to=_next_stop(clock, end), actor=ACTOR)
        clock.refresh_from_db()
    return total


@transaction.atomic
def _set_up(*, first_day: date, now: datetime) -> TestClock:
    """Make clock, catalogue, customers and subscriptions, all or none of them."""
    clock = clocks.create_clock(code=CLOCK, now=_midnight(first_day, UTC), actor=ACTOR)
    catalog.create_meter(
        code=METER,
        name="Tokens (demo)",
        event_type=EVENT_TYPE,
        aggregation="sum",
        value_property="tokens",
        dimensions=["model", "direction"],
        unit="tokens",
        actor=ACTOR,
    )
    # A customer east of Greenwich starts before the clock does.
    effective_at = clock.now - timedelta(days=1)
    versions = {code: _publish(code, now=now, effective_at=effective_at) for code in _TIERS}
    for customer in CUSTOMERS:
        tenant = tenants.create_tenant(
            code=customer.code,
            name=customer.name,
            timezone=customer.timezone,
            country=customer.country,
            email=f"billing@{customer.code}.example",
            test_clock=CLOCK,
            actor=ACTOR,
        )
        starts_at = _midnight(first_day.replace(day=customer.first_day), ZoneInfo(customer.timezone))
        start_subscription(
            tenant=tenant,
            version=versions[customer.tier],
            starts_at=starts_at,
            anchor_at=starts_at,
            now=clock.now,
            actor=ACTOR,
        )
    return clock


def _per_token(amount: str) -> dict[str, Any]:
    return {"model": "per_unit", "unit_amount": amount}


def _growth_charges() -> list[dict[str, Any]]:
    """Return one allowance for all tokens, beyond which every model and direction has a price of its own."""
    priced = [
        {"meter": METER, "dimensions": {"model": model, "direction": direction}, "price": _per_token(amount)}
        for model, amounts in PRICES.items()
        for direction, amount in zip(("input", "output"), amounts, strict=True)
    ]
    return [{"meter": METER, "included": "10000000", "price": _per_token("0.000006")}, *priced]


_GRADUATED = {
    "model": "graduated",
    "bands": [
        {"up_to": "10000000", "unit_amount": "0.000010"},
        {"up_to": "30000000", "unit_amount": "0.000008"},
        {"up_to": None, "unit_amount": "0.000006"},
    ],
}
# Code → name, fee in USD a month, charges.
_TIERS: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "demo-starter": ("Starter", "29", [{"meter": METER, "included": "2000000", "price": _per_token("0.000012")}]),
    "demo-growth": ("Growth", "99", _growth_charges()),
    "demo-scale": ("Scale", "499", [{"meter": METER, "included": "25000000", "price": _GRADUATED}]),
}


def _publish(code: str, *, now: datetime, effective_at: datetime) -> TierVersion:
    name, fee, charges = _TIERS[code]
    tier = catalog.create_tier(code=code, name=f"{name} (demo)", actor=ACTOR)
    document = {"currency": "USD", "interval": "month", "fee": fee, "charges": charges}
    version = catalog.create_version(tier=tier, document=document, actor=ACTOR)
    # Where a second person has to agree, the demo has one.
    approvals.approve(version_id=version.pk, expected_revision=version.revision, now=now, actor=f"{ACTOR}-reviewer")
    return catalog.publish(version_id=version.pk, now=now, effective_at=effective_at, actor=ACTOR)


def _usage(
    customer: Customer, first_day: date, since: datetime, until: datetime, calls_percent: int
) -> Iterator[NewEvent]:
    """Yield the customer's events in [since, until), in the order of the calls of each day."""
    day = max(since.date() - timedelta(days=1), first_day.replace(day=customer.first_day))
    while day <= until.date() + timedelta(days=1):
        for event in _usage_of_day(customer, day, (day - first_day).days, calls_percent):
            if event.time is not None and since <= event.time < until:
                yield event
        day += timedelta(days=1)


def _usage_of_day(customer: Customer, day: date, age: int, calls_percent: int) -> Iterator[NewEvent]:
    """Yield two events per call: the tokens that went in, and those that came out."""
    drawn = random.Random(f"{customer.code} {day}")  # noqa: S311 - the same numbers each time is what is wanted
    zone = ZoneInfo(customer.timezone)
    weekday_percent = customer.weekend_percent if day.weekday() >= 5 else 100
    grown_percent = 100 + customer.growth_percent * age // 30
    percents = weekday_percent * grown_percent * drawn.randint(85, 115) * calls_percent
    for call in range(customer.calls_per_day * percents // 100**4):
        moment = time(drawn.choice(customer.hours), drawn.randint(0, 59), drawn.randint(0, 59))
        instant = datetime.combine(day, moment, tzinfo=zone).astimezone(UTC)
        model = drawn.choice(customer.models)
        tokens_in = drawn.randint(*customer.input_tokens)
        tokens_out = drawn.randint(tokens_in // 12, tokens_in // 5)
        for direction, tokens in (("input", tokens_in), ("output", tokens_out)):
            data = {"model": model, "direction": direction, "tokens": tokens}
            yield NewEvent(customer.code, "demo", f"{day}-{call}-{direction}", EVENT_TYPE, instant, data)


def _record(events: list[NewEvent], *, now: datetime) -> int:
    """Record the events, and return how many were new; one that is neither counted now nor before is an error."""
    recorded = 0
    for first in range(0, len(events), REQUEST_EVENTS_MAX):
        [report] = record_events([Record(events[first : first + REQUEST_EVENTS_MAX], now)])
        for outcome in report.outcomes:
            if outcome.status not in (ACCEPTED, DUPLICATE):
                raise RuntimeError(f"an event of the demo was not counted: {outcome.status} {outcome.code}")
            recorded += outcome.status == ACCEPTED
    return recorded


def _next_stop(clock: TestClock, end: datetime) -> datetime:
    ends = BillingPeriod.objects.filter(tenant__test_clock=clock, ends_at__gt=clock.now)
    return min(clock.now + STEP, end, *ends.values_list("ends_at", flat=True))


def _first_day() -> date:
    """Return the first day of the demo, as its first customer's subscription has kept it."""
    return Subscription.objects.filter(tenant__code=CUSTOMERS[0].code).earliest("starts_at").anchor_date


def _months_later(day: date, months: int) -> date:
    """Return the first day of the month that lies `months` after that of `day`."""
    years, month = divmod(day.month - 1 + months, 12)
    return date(day.year + years, month + 1, 1)


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time(), tzinfo=zone)
