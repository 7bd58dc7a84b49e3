"""
Random histories of changes of tier, among usage, grants, reversals and closings, against a twin that counts single events and single days.

Each history is a tenant of its own on a family of tiers: several fees, allowances and kinds of price, one of another interval; monthly or with a
fee that spans three periods. What the twin knows: the fee of a span is the sum over its days (or its elapsed time) of the price of the version
in force then, each line rounded once; the allowance of a period likewise, rounded on the total; position and amounts are the oracle's.
Besides, each preview is the execution, and what is final stays as it is.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invoices.models import Invoice
from invoices.selectors.books import breaches
from invoices.selectors.statements import statement_of
from invoices.selectors.verifying import verify
from invoices.services.advancing import advance
from invoices.services.changing import Asked, change_tier, preview_change, preview_scheduled
from invoices.services.undoing import undo
from metering.models import CreditGrant, MeterBalance, OverageCharge
from metering.services.grants import GrantTerms, grant_credit, void_grant
from metering.services.reversing import reverse_event
from subscriptions.models import BillingPeriod, FeeItem, Meter, ScheduledChange
from tests import oracle
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

GRACE = timedelta(hours=1)
MOMENT = timedelta(microseconds=1)
MINOR_UNIT = {"USD": Decimal("0.01"), "JPY": Decimal(1), "KWD": Decimal("0.001")}
PRICES = {
    "free": {"model": "per_unit", "unit_amount": "0.5"},
    "graduated": {
        "model": "graduated",
        "bands": [
            {"up_to": "15", "unit_amount": "0.3", "flat_amount": "1"},
            {"up_to": "40", "unit_amount": "0.2", "flat_amount": "2"},
            {"up_to": None, "unit_amount": "0.07"},
        ],
    },
    "volume": {
        "model": "volume",
        "bands": [
            {"up_to": "25", "unit_amount": "0.3", "flat_amount": "3"},
            {"up_to": None, "unit_amount": "0.11"},
        ],
    },
    "package": {"model": "package", "size": "7", "amount": "0.9", "free_units": "3"},
    "short": {"model": "per_unit", "unit_amount": "0.04"},
}
# Name → whole units of the fee, what is included, days of a period.
TIERS = {
    "free": ("0", "5", 10),
    "graduated": ("99", "20", 10),
    "volume": ("499", "130", 10),
    "package": ("31", "0", 10),
    "short": ("70", "33", 4),
}
OPUS = {"free": "0.7", "graduated": "0.01", "volume": "0.2", "package": "0.05", "short": "1"}
# Currency, and how many periods a fee pays for.
FAMILIES = [("USD", 1), ("JPY", 1), ("KWD", 3)]
ZONES = ["UTC", "Europe/Berlin", "America/New_York"]
# The weeks before clocks change in New York and in Berlin, and one in which nothing does.
STARTS = [at("2026-03-02 00:00"), at("2026-03-23 12:00"), at("2026-06-01 00:00")]

quantities = st.integers(1, 40).map(Decimal)
# How far back, in quarters of a day: late within the period, or of an earlier one.
back = st.one_of(st.integers(0, 3), st.integers(0, 60))
dialects = st.sampled_from(["opus", "haiku"])
targets = st.sampled_from([*TIERS, "graduated", "volume", "package"])
allowances = st.sampled_from(["prorated", "prorated", "prorated", "full_new", "reset"])
bills = st.sampled_from(["next", "next", "now"])
changes = st.tuples(st.just("change"), targets, allowances, bills)
steps = st.one_of(
    st.tuples(st.just("use"), back, quantities, dialects),
    st.tuples(st.just("use"), back, quantities, dialects),
    changes,
    changes,
    st.tuples(st.just("change_at"), targets, allowances, bills, st.integers(1, 50)),
    st.tuples(st.just("change_at_end"), targets, allowances, bills),
    st.tuples(st.just("undo"), st.integers(0, 20)),
    st.tuples(st.just("grant"), quantities, st.integers(-30, 30), st.one_of(st.none(), st.integers(1, 60))),
    st.tuples(st.just("void"), st.integers(0, 50)),
    st.tuples(st.just("reverse"), st.integers(0, 50)),
    st.tuples(st.just("wait"), st.integers(1, 24)),
)
histories = st.tuples(
    st.sampled_from(FAMILIES),
    st.sampled_from(["day", "second"]),
    st.sampled_from(ZONES),
    st.sampled_from(STARTS),
    st.sampled_from(list(TIERS)),
    st.integers(0, 40),
    st.lists(steps, min_size=3, max_size=22),
)


@dataclass
class Stretch:
    """A billing period, or the span of a fee: what was in force in it, and where it was to end before it was cut."""

    starts_at: datetime
    whole_ends_at: datetime
    ends_at: datetime
    values: list[tuple[datetime, str]]

    def so_far(self, worth, zone):
        """Return the sum of what its versions are worth, each for its share of the whole."""
        values = [(since, worth(name)) for since, name in self.values]
        whole = oracle.integral([(self.starts_at, 1)], self.starts_at, self.whole_ends_at, days_in=zone)
        return oracle.integral(values, self.starts_at, self.ends_at, days_in=zone) / whole


@dataclass
class Awaited:
    """A change that was scheduled, `at` an instant or, without one, for the boundary after `wanted_at`."""

    row: ScheduledChange
    to: str
    allowance: str
    wanted_at: datetime
    at: datetime | None


@dataclass
class Twin:
    """What a subscription's life comes to, told one thing after the other."""

    fees: dict[str, Decimal]
    fee_every: int
    # Where days are counted; None where seconds are.
    days_in: str | None
    zone: str
    now: datetime
    version: str
    pool: oracle.Pool = field(default_factory=lambda: oracle.Pool(0))
    anchor: datetime = None
    # How many periods since the anchor, and in the running span of the fee.
    of_anchor: int = 0
    of_span: int = 0
    periods: list[Stretch] = field(default_factory=list)
    spans: list[Stretch] = field(default_factory=list)
    # The allowance of each period, as (since, version): a change that replaces it leaves one.
    included: list[Stretch] = field(default_factory=list)
    awaited: list[Awaited] = field(default_factory=list)

    def __post_init__(self):
        self.begin(self.now)

    def boundary(self, number):
        wall = self.anchor.astimezone(ZoneInfo(self.zone)).replace(tzinfo=None)
        wall += number * timedelta(days=TIERS[self.version][2])
        return wall.replace(tzinfo=ZoneInfo(self.zone)).astimezone(UTC)

    def begin(self, instant):
        """Begin a run of periods, with a new span of the fee."""
        self.anchor, self.of_anchor, self.of_span = instant, 0, 0
        self.open(instant)

    def open(self, instant):
        ends_at = self.boundary(self.of_anchor + 1)
        self.pool.allowance = Decimal(TIERS[self.version][1])
        self.pool.open(instant, ends_at)
        for each in (self.periods, self.included):
            each.append(Stretch(instant, ends_at, ends_at, [(instant, self.version)]))
        if self.of_span == 0:
            span_ends_at = self.boundary(self.of_anchor + self.fee_every)
            self.spans.append(Stretch(instant, span_ends_at, span_ends_at, [(instant, self.version)]))

    def change(self, to, allowance, instant):
        """Change within the running period, or end it; not before it has begun, which a reset at its start puts off by a moment."""
        instant = max(instant, self.periods[-1].starts_at)
        if allowance == "reset" or TIERS[to][2] != TIERS[self.version][2]:
            instant = max(instant, self.periods[-1].starts_at + MOMENT)
            self.pool.cut(instant)
            for each in (self.periods, self.included, self.spans):
                each[-1].ends_at = instant
            self.version = to
            self.begin(instant)
            return
        self.version = to
        for each in (self.periods, self.spans):
            each[-1].values.append((instant, to))
        if allowance == "full_new":
            self.included[-1].values = [(self.included[-1].starts_at, to)]
        else:
            self.included[-1].values.append((instant, to))
        self.pool.rescale(self.allowance())

    def allowance(self):
        """Return what the newest period includes."""
        total = self.included[-1].so_far(lambda name: Fraction(TIERS[name][1]), self.days_in)
        cents = Decimal(total.numerator) / Decimal(total.denominator)
        return cents.quantize(Decimal(1), ROUND_HALF_UP)

    def cross(self):
        """Go over the end of the newest period, with what waits for it."""
        instant, before = self.periods[-1].ends_at, self.version
        due = [one for one in self.awaited if (one.wanted_at < instant and one.at is None) or one.at == instant]
        due.sort(key=lambda one: (one.wanted_at, one.row.pk))
        for one in due:
            self.awaited.remove(one)
            self.version = one.to
        if any(one.allowance == "reset" for one in due) or TIERS[before][2] != TIERS[self.version][2]:
            self.spans[-1].ends_at = instant
            self.begin(instant)
            return
        self.of_anchor += 1
        self.of_span = (self.of_span + 1) % self.fee_every
        if self.of_span:
            self.spans[-1].values += [(instant, one.to) for one in due]
        self.open(instant)

    def move(self, to):
        while True:
            boundary = self.periods[-1].ends_at
            dated = [one for one in self.awaited if one.at is not None]
            first = min(dated, key=lambda one: (one.at, one.row.pk), default=None)
            if first is not None and first.at < boundary and first.at <= to:
                self.awaited.remove(first)
                self.change(first.to, first.allowance, first.at)
            elif boundary <= to:
                self.cross()
            else:
                break
        self.now = to
        while self.pool.periods[self.pool.closed][1] + GRACE <= to:
            self.pool.close()


class History:
    """The same things done to the product and to the twin."""

    def __init__(self, versions, family, grain, zone, starts_at, first, quarters):
        self.currency, fee_every = family
        self.grain = grain
        self.versions = versions[family]
        self.world = make_world(
            version=self.versions[first], starts_at=starts_at, now=starts_at, currency=self.currency, timezone=zone
        )
        fees = {name: Decimal(fee) for name, (fee, _, _) in TIERS.items()}
        self.twin = Twin(fees, fee_every, zone if grain == "day" else None, zone, starts_at, first)
        self.starts_at = starts_at
        self.events, self.grants, self.final = {}, {}, {}
        self.wait(quarters)

    @property
    def pool(self):
        return self.twin.pool

    def wait(self, quarters):
        to = self.twin.now + timedelta(days=quarters / 4)
        if to > self.twin.now:
            advance(clock_id=self.world.clock.pk, to=to, actor=ACTOR)
            self.twin.move(to)

    def use(self, quarters, quantity, dialect):
        # Not at this very instant: what counted in a period stays there when a reset ends it then.
        ago = timedelta(days=quarters / 4) or timedelta(seconds=1)
        time = max(self.twin.now - ago, self.starts_at)
        [outcome] = self.world.use(quantity, time=time, model=dialect).outcomes
        assert outcome.status == "accepted", outcome
        event = oracle.Event(time, quantity, {"model": dialect, "id": str(outcome.event_id)})
        self.pool.receive(event)
        self.events[outcome.event_id] = event

    def grant(self, quantity, since, lasts):
        first_open = self.pool.periods[self.pool.closed][0]
        effective_at = max(self.twin.now + timedelta(days=since / 4), first_open)
        expires_at = None if lasts is None else effective_at + timedelta(days=lasts / 4)
        terms = GrantTerms(
            meter=Meter.objects.get(code="tokens"),
            dimensions={},
            kind="purchased",
            quantity=quantity,
            priority=0,
            effective_at=effective_at,
            expires_at=expires_at,
            key="",
        )
        grant, _ = grant_credit(tenant=self.world.tenant, terms=terms, now=self.twin.now, actor=ACTOR)
        self.grants[grant.pk] = grant
        self.pool.give(oracle.Grant(grant.pk, quantity, effective_at, expires_at, paid=True))

    def void(self, number):
        now = self.twin.now
        live = [one for one in self.grants.values() if not one.voided_at and (one.ends_at is None or one.ends_at > now)]
        if live:
            grant = live[number % len(live)]
            self.grants[grant.pk] = void_grant(grant=grant, reason="why", now=now, actor=ACTOR)
            self.pool.void(grant.pk, now)

    def reverse(self, number):
        still_open = [
            key
            for key, event in self.events.items()
            if event in self.pool.in_time and self.pool.period_of(event) >= self.pool.closed
        ]
        if still_open:
            key = still_open[number % len(still_open)]
            reverse_event(event_id=key, reason="why", actor=ACTOR)
            self.pool.reverse(self.events.pop(key))

    def change(self, to, allowance, bill):
        if to == self.twin.version and allowance != "reset":
            return
        self.ask(to, allowance, bill, "now")
        self.twin.change(to, allowance, self.twin.now)

    def change_at(self, to, allowance, bill, quarters):
        instant = self.twin.now + timedelta(days=quarters / 4)
        row = self.ask(to, allowance, bill, instant)
        self.twin.awaited.append(Awaited(row, to, allowance, instant, instant))

    def change_at_end(self, to, allowance, bill):
        row = self.ask(to, allowance, bill, "period_end")
        self.twin.awaited.append(Awaited(row, to, allowance, self.twin.now, None))

    def ask(self, to, allowance, bill, when):
        """Ask for a change, and hold its preview to what is done."""
        choices = {"fee": "prorate", "grain": self.grain, "allowance": allowance, "bill": bill}
        asked = Asked(to_version=self.versions[to], when=when, choices=choices)
        about = {"subscription_id": self.world.subscription.pk, "asked": asked, "now": self.twin.now, "actor": ACTOR}
        preview = preview_change(**about, read=told)
        row, done = change_tier(**about, read=told)
        assert done == preview
        if row is not None:
            assert preview_scheduled(change=row, now=self.twin.now, read=told) == preview
        return row

    def undo(self, number):
        if self.twin.awaited:
            one = self.twin.awaited.pop(number % len(self.twin.awaited))
            undo(
                subscription_id=self.world.subscription.pk,
                change=str(one.row.public_id),
                now=self.twin.now,
                actor=ACTOR,
            )
            one.row.refresh_from_db()
            assert one.row.status == "undone"

    def look(self):
        """What is final stays as it was; versions and fees are the twin's."""
        for invoice in Invoice.objects.filter(tenant=self.world.tenant).exclude(status="draft"):
            content = content_of(invoice)
            assert self.final.setdefault(invoice.pk, content) == content
        assert set(self.final) == set(
            Invoice.objects.filter(tenant=self.world.tenant).exclude(status="draft").values_list("pk", flat=True)
        )
        self.world.subscription.refresh_from_db()
        assert self.world.subscription.version_id == self.versions[self.twin.version].pk

    def check(self):
        """Hold periods, fees, allowances, position, amounts and invoices to the twin."""
        tenant = self.world.tenant
        stored = list(BillingPeriod.objects.filter(tenant=tenant).order_by("sequence"))
        assert [(one.starts_at, one.ends_at) for one in stored] == self.pool.periods
        self.check_fees()
        balances = MeterBalance.objects.filter(tenant=tenant).order_by("period__sequence")
        assert [(Fraction(one.used), Fraction(one.covered)) for one in balances] == self.pool.used_and_covered()
        burns = self.pool.position().burns
        for grant in CreditGrant.objects.filter(tenant=tenant).select_related("balance__period"):
            name = grant.pk if grant.kind != "allowance" else f"allowance {grant.balance.period.sequence}"
            assert grant.quantity == self.pool.grants[name].quantity
            assert Fraction(grant.burned) == burns.pop(name, 0), name
        # An allowance of nothing is no grant.
        assert not any(burns.values())
        assert breaches() == []
        for invoice in Invoice.objects.filter(tenant=tenant):
            assert verify(invoice) == []

    def check_fees(self):
        for span in self.twin.spans:
            items = [
                item
                for item in FeeItem.objects.filter(tenant=self.world.tenant).select_related("period", "credits__period")
                if (item.credits or item).period.fee_starts_at == span.starts_at
            ]
            exact = span.so_far(lambda name: Fraction(self.twin.fees[name]), self.twin.days_in)
            found = sum(item.amount for item in items)
            assert abs(Fraction(found) - exact) <= len(items) * Fraction(MINOR_UNIT[self.currency]), (span, items)

    def check_amounts(self):
        """Hold what is booked of each period, when all are closed, to the oracle's amounts."""
        position = self.pool.position()
        uncovered = [*position.uncovered, *((event, Fraction(event.quantity)) for event in self.pool.late)]
        stand = oracle.Position(uncovered=sorted(uncovered, key=lambda pair: pair[0].occurred_at))
        for number, period in enumerate(self.twin.periods, start=1):
            in_force = dict(period.values)
            versions = [oracle.Version(name, since, CHARGES[name]) for since, name in in_force.items()]
            owed = oracle.bill_position(
                stand, list(self.pool.grants.values()), versions, ends_at=period.ends_at
            ).amounts
            booked = {}
            latest = OverageCharge.objects.filter(tenant=self.world.tenant, period__sequence=number)
            for one in latest.select_related("charge__version").order_by("sequence"):
                name = one.charge.version.tier.code.split("-")[0]
                booked[name, one.charge.dimensions.get("model", "")] = Fraction(one.amount_numerator) / Fraction(
                    one.amount_denominator
                )
            assert {key: amount for key, amount in booked.items() if amount} == {
                key: amount for key, amount in owed.items() if amount
            }, number


CHARGES = {
    name: [
        oracle.Charge("", PRICES[name]),
        oracle.Charge("opus", {"model": "per_unit", "unit_amount": OPUS[name]}, {"model": "opus"}),
    ]
    for name in TIERS
}


def make_family(currency, fee_every):
    """Publish the tiers of a family, and return them by their names."""
    suffix = f"{currency.lower()}-{fee_every}"
    return {
        name: publish(
            f"{name}-{suffix}",
            currency=currency,
            interval="day",
            interval_count=days,
            fee=fee,
            fee_every=fee_every,
            fee_timing="arrears" if name == "package" else "advance",
            charges=[
                charge(included=included, price=PRICES[name]),
                charge(
                    included=None,
                    dimensions={"model": "opus"},
                    price={"model": "per_unit", "unit_amount": OPUS[name]},
                ),
            ],
        )
        for name, (fee, included, days) in TIERS.items()
    }


def told(change):
    """Return what a statement says, without the names of rows."""
    statement = statement_of(change)
    lines = [line.values for line in statement.lines]
    return statement.credit, statement.charge, statement.allowances, statement.words, lines


def content_of(invoice):
    """Return all that an invoice says, but its status."""
    fields = (
        "number",
        "series",
        "reason",
        "currency",
        "subtotal",
        "tax",
        "total",
        "credit_applied",
        "amount_due",
        "billed_to",
    )
    return [getattr(invoice, name) for name in (*fields, "finalized_at")], list(
        invoice.lines.order_by("number").values_list(
            "number", "kind", "description", "quantity", "unit_amount", "amount", "amount_precise", "components"
        )
    )


def tell(versions, history):
    """Tell the product and the twin one history, and hold one to the other; leaves nothing behind."""
    *how, steps = history
    with transaction.atomic():
        told_twice = History(versions, *how)
        for what, *given_ in steps:
            getattr(told_twice, what)(*given_)
            told_twice.look()
        told_twice.check()
        told_twice.wait(4 * 40)
        told_twice.look()
        told_twice.check()
        told_twice.check_amounts()
        transaction.set_rollback(True)


def make_versions():
    """Publish the tiers of all families, and return them by family and name."""
    make_meter(window_days=60, dimensions=["model"])
    return {family: make_family(*family) for family in FAMILIES}


def hold(examples):
    """Hold so many histories to the twin."""
    versions = make_versions()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(histories)
    def check(history):
        tell(versions, history)

    check()


@pytest.mark.parametrize("then", ["reset", "prorated"])
def test_changes_at_one_instant_follow_one_another_where_they_reset(then):
    at_once = [("change_at", to, "reset", "next", 26) for to in ("free", "short", "short")]
    last = ("change_at", "graduated", then, "next", 26)
    tell(make_versions(), (("USD", 1), "day", "UTC", STARTS[0], "free", 17, [*at_once, last]))


def test_any_history_of_changes_is_what_its_days_and_events_come_to():
    hold(7)


@pytest.mark.long
def test_many_histories_of_changes_are_what_their_days_and_events_come_to():
    hold(200)
