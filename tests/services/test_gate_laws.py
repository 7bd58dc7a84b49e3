"""
No story of calls, usage and time grants a hold beyond a limit, refuses one that fits, loses a hold, or frees one twice.

Beside the real services runs a model that knows single events and holds, counts them anew at each question, and has no buckets and no order
of locks. Each story is a tenant of its own, with a hard limit, a bounded overage, a rolling window, and a spend cap over both meters, and changes its
tier as it goes: from then on the other one's limits hold, in the running period as well. On the second day a version is published to the first
tier's subscriptions; its limits hold once somebody has come to what is due, and in periods that begin later in any case. Some are paused: nothing is held after that.
How much of usage grants cover, and what is left of them, the model counts itself as long as there is the allowance alone; once others were given it
asks the books, which `test_oracle` holds to the walk.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invoices.services.advancing import advance
from invoices.services.changing import Asked, change_tier
from invoices.services.due import run_due
from invoices.services.pausing import pause_subscription
from metering.models import Authorization, CreditGrant, MeterBalance
from metering.services.checking import check_call
from metering.services.gate import perform
from metering.services.grants import GrantTerms, grant_credit, void_grant
from metering.services.ingest import record_events
from metering.services.requests import Authorize, Extend, NewEvent, Record, Release, Settle
from subscriptions.models import Meter, TestClock, Tier, TierVersion
from subscriptions.services import catalog
from tests.world import at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

START = at("2026-06-29 20:00")
PERIODS = [at("2026-06-01 00:00"), at("2026-07-01 00:00"), at("2026-08-01 00:00"), at("2026-09-01 00:00")]
GRACE = timedelta(hours=1)
WINDOW, BUCKET = timedelta(hours=5), timedelta(minutes=5)
TOKENS, IMAGES = "tokens", "images"
# Included by tier; overage at most, window at most, price of a unit of overage.
FIRST, OTHER, PUBLISHED = "laws", "more-laws", "laws, version 2"
INCLUDED = {
    FIRST: {TOKENS: 1000, IMAGES: 100},
    OTHER: {TOKENS: 1500, IMAGES: 40},
    PUBLISHED: {TOKENS: 700, IMAGES: 150},
}
PUBLISHED_AT = at("2026-06-30 12:00")
BEYOND = {TOKENS: 0, IMAGES: 80}
IN_WINDOW = {TOKENS: 600, IMAGES: None}
PRICE = {TOKENS: Decimal("0.01"), IMAGES: Decimal("0.10")}
CAP = Decimal(6)
_keys = count(1)


def period_of(instant):
    return max(place for place, starts_at in enumerate(PERIODS) if starts_at <= instant)


@dataclass
class Held:
    meter: str
    quantity: int
    amount: Decimal
    authorized_at: datetime
    expires_at: datetime
    is_live: bool = True


@dataclass
class Model:
    """What happened, one by one."""

    now: datetime = START
    usage: list[tuple[str, datetime, int]] = field(default_factory=list)
    holds: dict[object, Held] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    # Which tier, from which period on; a change says it for the whole of the period in which it comes.
    tiers: list[tuple[int, str]] = field(default_factory=lambda: [(0, FIRST)])
    awaits_publication: bool = True
    # From then on there is no period: what was held may still be settled, and nothing more is.
    paused_at: datetime | None = None
    # (meter, period) → what is covered and what is left of the grants in force, once there are others than the allowance.
    books: Callable[[str, int], tuple[Decimal, Decimal]] | None = None

    def expire(self):
        for hold in self.holds.values():
            if hold.expires_at <= self.now or period_of(hold.authorized_at) in self.closed:
                hold.is_live = False

    def close(self):
        """Let the periods close whose grace is over; nothing is held of them any more."""
        ends = [min(end, self.paused_at or end) for end in PERIODS[1:]]
        self.closed |= {place for place, end in enumerate(ends) if end + GRACE <= self.now}
        self.expire()

    def included(self, meter, place):
        tier = [tier for since, tier in self.tiers if since <= place][-1]
        if self.awaits_publication and tier == FIRST and place > period_of(PUBLISHED_AT):
            tier = PUBLISHED
        return INCLUDED[tier][meter]

    def carry_out(self):
        """Let the publication come into force, if its time has come and the tier is still the one that it is for."""
        if self.awaits_publication and min(self.now, self.paused_at or self.now) >= PUBLISHED_AT:
            self.awaits_publication = False
            if self.tiers[-1][1] == FIRST:
                self.tiers.append((period_of(PUBLISHED_AT), PUBLISHED))

    def used(self, meter, place):
        return sum(quantity for name, time, quantity in self.usage if name == meter and period_of(time) == place)

    def held(self, meter, place):
        self.expire()
        return sum(
            one.quantity
            for one in self.holds.values()
            if one.is_live and one.meter == meter and place in (None, period_of(one.authorized_at))
        )

    def cover(self, meter, place):
        """Return what of the period's usage is covered, and what is left of the grants in force."""
        if self.books is not None:
            return self.books(meter, place)
        used = self.used(meter, place)
        included = self.included(meter, place)
        return min(used, included), max(0, included - used)

    def overage(self, meter, place):
        return self.used(meter, place) - self.cover(meter, place)[0]

    def estimate(self, meter, quantity):
        place = period_of(self.now)
        # Usage that no grant covers is overage already; grants that are left cover holds first.
        left = self.cover(meter, place)[1] - self.held(meter, place)
        return PRICE[meter] * min(quantity, max(0, quantity - left))

    def fits(self, meter, quantity, *, window):
        place = period_of(self.now)
        taken = self.used(meter, place) + self.held(meter, place)
        in_window = self.held(meter, None) + sum(
            used for name, time, used in self.usage if name == meter and time > self.now - window
        )
        spent = sum(PRICE[one] * self.overage(one, place) for one in PRICE)
        covered, left = self.cover(meter, place)
        spent += sum(one.amount for one in self.holds.values() if one.is_live and period_of(one.authorized_at) == place)
        return (
            taken + quantity <= covered + left + BEYOND[meter]
            and (IN_WINDOW[meter] is None or in_window + quantity <= IN_WINDOW[meter])
            and spent + self.estimate(meter, quantity) <= CAP
        )


class Story:
    """A tenant, and the model beside it."""

    def __init__(self):
        self.model = Model()
        self.world = make_world(version=limited_versions()[FIRST], starts_at=PERIODS[0], now=START, spend_cap=CAP)
        self.sent = 0
        self.grants = []

    @property
    def wall(self):
        return datetime.now(tz=UTC)

    def asking(self, meter, quantity, ttl_seconds=300):
        key = f"law-{next(_keys)}"
        return Authorize(self.world.tenant.code, meter, Decimal(quantity), key, {}, ttl_seconds, self.wall)

    def do(self, name, *given):
        getattr(self, name)(*given)
        self.compare()

    def authorize(self, meter, quantity, ttl_seconds):
        request = self.asking(meter, quantity, ttl_seconds)
        asked = check_call(request)
        [answer] = perform([request])
        if self.model.paused_at is not None:
            assert {(one.decision.decision, one.decision.reason) for one in (asked, answer)} == {("deny", "no_period")}
            return
        assert (asked.decision, asked.estimated_amount) == (answer.decision, answer.estimated_amount)
        assert self.decided(answer, meter, quantity)
        if answer.authorization is not None:
            expires_at = self.model.now + timedelta(seconds=ttl_seconds)
            self.model.holds[answer.authorization] = Held(
                meter, quantity, answer.estimated_amount, self.model.now, expires_at
            )

    def authorize_many(self, meter, quantity, times):
        """Several calls of one group: each counts for the next."""
        requests = [self.asking(meter, quantity) for _ in range(times)]
        for answer in perform(requests):
            if self.model.paused_at is not None:
                assert answer.decision.reason == "no_period"
                continue
            assert self.decided(answer, meter, quantity)
            if answer.authorization is not None:
                self.model.holds[answer.authorization] = Held(
                    meter, quantity, answer.estimated_amount, self.model.now, self.model.now + timedelta(seconds=300)
                )

    def decided(self, answer, meter, quantity):
        """Whether the answer is right: granted only if it fits, and if it fits with a bucket to spare."""
        assert answer.estimated_amount == self.model.estimate(meter, quantity)
        if answer.decision.decision == "deny":
            return not self.model.fits(meter, quantity, window=WINDOW + BUCKET)
        return self.model.fits(meter, quantity, window=WINDOW)

    def settle(self, place, quantity):
        if (found := self.hold(place)) is None:
            return
        authorization, hold = found
        self.model.expire()
        [ended] = perform([Settle(authorization, Decimal(quantity), None, self.wall)])
        assert ended.found.hold.freed_by != "settled" or hold.is_live
        self.model.usage.append((hold.meter, hold.authorized_at, quantity))
        del self.model.holds[authorization]
        # Again: the same, and something else.
        again, other = perform(
            [
                Settle(authorization, Decimal(quantity), None, self.wall),
                Settle(authorization, Decimal(quantity + 1), None, self.wall),
            ]
        )
        assert (again.found.hold.settled_quantity, other.code) == (quantity, "conflict")

    def release(self, place):
        if (found := self.hold(place)) is None:
            return
        authorization, hold = found
        for _ in range(2):
            [ended] = perform([Release(authorization, self.wall)])
            assert ended.found.hold.freed_by in ("released", "expired")
        hold.is_live = False

    def extend(self, place, quantity, ttl_seconds):
        if (found := self.hold(place)) is None:
            return
        authorization, hold = found
        self.model.expire()
        fits = self.model.fits(hold.meter, quantity, window=WINDOW)
        fits_early = self.model.fits(hold.meter, quantity, window=WINDOW + BUCKET)
        [answer] = perform([Extend(authorization, Decimal(quantity), ttl_seconds, self.wall)])
        if not hold.is_live:
            assert answer.code == "authorization_ended"
        elif self.model.paused_at is not None or period_of(hold.authorized_at) != period_of(self.model.now):
            assert answer.decision.reason == "period_ended"
        elif answer.decision.decision == "deny":
            assert not fits_early
        else:
            assert fits
            hold.quantity += quantity
            hold.amount += answer.estimated_amount
            hold.expires_at = max(hold.expires_at, self.model.now + timedelta(seconds=ttl_seconds))

    def record(self, meter, quantity, back):
        time = max(self.model.now - timedelta(seconds=back), PERIODS[0])
        self.sent += 1
        data = {"total_tokens": Decimal(quantity)} if meter == TOKENS else {"images": Decimal(quantity)}
        event = NewEvent(self.world.tenant.code, "law", f"e{self.sent}", meter, time, data)
        [report] = record_events([Record([event], self.wall)])
        if self.model.paused_at is not None and time >= self.model.paused_at:
            assert [(outcome.status, outcome.code) for outcome in report.outcomes] == [("unmatched", "no_period")]
            return
        assert [outcome.status for outcome in report.outcomes] == ["accepted"]
        self.model.usage.append((meter, time, quantity))

    def grant(self, meter, quantity, seconds):
        """Give a grant from now on: for a time, or for ever."""
        self.model.books = self.books
        ends_at = None if seconds is None else self.model.now + timedelta(seconds=seconds)
        terms = GrantTerms(
            meter=Meter.objects.get(code=meter),
            dimensions={},
            kind="purchased",
            quantity=Decimal(quantity),
            priority=0,
            effective_at=None,
            expires_at=ends_at,
            key="",
        )
        grant, _ = grant_credit(tenant=self.world.tenant, terms=terms, now=self.model.now, actor="system")
        self.grants.append(grant)

    def void(self, place):
        if self.grants:
            grant = self.grants.pop(place % len(self.grants))
            if grant.expires_at is None or grant.expires_at > self.model.now:
                void_grant(grant=grant, reason="a mistake", now=self.model.now, actor="system")

    def books(self, meter, place):
        """Return what the books say is covered in a period, and left of the grants in force now."""
        balances = MeterBalance.objects.filter(tenant=self.world.tenant, meter__code=meter)
        balance = balances.filter(period__starts_at=PERIODS[place]).first()
        if balance is None:  # not opened yet: nothing was used
            covered, own = Decimal(0), CreditGrant.objects.none()
            allowance = Decimal(self.model.included(meter, place))
        else:
            covered, own, allowance = balance.covered, CreditGrant.objects.filter(balance=balance), Decimal(0)
        of_pool = CreditGrant.objects.filter(tenant=self.world.tenant, meter__code=meter, balance=None)
        now = self.model.now
        in_force = [
            one.remaining
            for one in (*own, *of_pool)
            if one.effective_at <= now and all(end is None or now < end for end in (one.expires_at, one.voided_at))
        ]
        return covered, allowance + sum(in_force)

    def change(self):
        """Change to the other tier now; its allowance takes the place of the present one's."""
        if self.model.paused_at is not None:
            return
        self.model.carry_out()
        to = FIRST if self.model.tiers[-1][1] == OTHER else OTHER
        choices = {"fee": "prorate", "allowance": "full_new"}
        change_tier(
            subscription_id=self.world.subscription.pk,
            asked=Asked(to_version=limited_versions()[to], when="now", choices=choices),
            now=self.model.now,
            actor="system",
            read=lambda change: change,
        )
        self.model.tiers.append((period_of(self.model.now), to))

    def pause(self, dice):
        """In one of four cases pause for good, a minute after what was held last."""
        if self.model.paused_at is None and dice == 0:
            self.drift(60)
            self.model.carry_out()
            self.model.paused_at = self.model.now
            pause_subscription(
                subscription_id=self.world.subscription.pk, credit="unused", now=self.model.now, actor="system"
            )

    def drift(self, seconds):
        """Let time pass without anybody coming to what is due."""
        self.model.now += timedelta(seconds=seconds)
        TestClock.objects.filter(pk=self.world.clock.pk).update(now=self.model.now)

    def sweep(self):
        """Let everything due be done: openings, closings, expiries."""
        self.world.clock.refresh_from_db()
        run_due(until=self.model.now, clock=self.world.clock)
        self.model.carry_out()
        self.model.close()

    def advance(self, seconds):
        self.model.now += timedelta(seconds=seconds)
        self.sweep()
        advance(clock_id=self.world.clock.pk, to=self.model.now, actor="system")
        self.model.close()

    def hold(self, place):
        if not self.model.holds:
            return None
        return list(self.model.holds.items())[place % len(self.model.holds)]

    def compare(self):
        """Hold every balance, and every hold, to the model."""
        stored = Authorization.objects.filter(tenant=self.world.tenant)
        overdue = stored.filter(due_at__lte=self.model.now)
        for balance in MeterBalance.objects.filter(tenant=self.world.tenant).select_related("meter", "period"):
            place = period_of(balance.period.starts_at)
            held_late = sum(one.quantity for one in overdue if one.balance_id == balance.pk)
            assert balance.used == self.model.used(balance.meter.code, place)
            assert balance.held - held_late == self.model.held(balance.meter.code, place)


def limited_versions():
    """Return the versions that all stories run on, by name."""
    if Tier.objects.filter(code=FIRST).exists():
        found = {tier: TierVersion.objects.get(tier__code=tier, number=1) for tier in (FIRST, OTHER)}
        return found | {PUBLISHED: TierVersion.objects.get(tier__code=FIRST, number=2)}
    make_meter(TOKENS, event_type=TOKENS)
    make_meter(IMAGES, event_type=IMAGES, value_property="images")
    found = {tier: publish(tier, charges=charges_of(tier)) for tier in (FIRST, OTHER)}
    document = {
        "currency": "USD",
        "interval": "month",
        "fee": "99.00",
        "charges": charges_of(PUBLISHED),
        "change": {"allowance": "full_new"},
    }
    second = catalog.create_version(tier=found[FIRST].tier, actor="system", document=document)
    catalog.publish(version_id=second.pk, now=PERIODS[0], actor="system", cohort="now", effective_at=PUBLISHED_AT)
    return found | {PUBLISHED: second}


def charges_of(name):
    tokens, images = ({"model": "per_unit", "unit_amount": str(PRICE[meter])} for meter in (TOKENS, IMAGES))
    limits = [{"quantity": str(IN_WINDOW[TOKENS]), "window": "PT5H"}]
    included = INCLUDED[name]
    return [
        charge(meter=TOKENS, included=str(included[TOKENS]), at_limit="deny", limits=limits, price=tokens),
        charge(meter=IMAGES, included=str(included[IMAGES]), overage_quantity_max=str(BEYOND[IMAGES]), price=images),
    ]


METERS = st.sampled_from([TOKENS, IMAGES])
QUANTITIES = st.sampled_from([1, 7, 20, 60, 99, 100, 250, 400, 600])
PLACES = st.integers(0, 20)
# Some that only bring the next minute, and some that pass an expiry, a window, a boundary, a closing.
SECONDS = st.sampled_from([1, 59, 60, 301, 3600, 5 * 3600, 18_301, 86_400, 86_400 * 2])
TTL = st.sampled_from([1, 60, 300, 86_400])
OPERATIONS = st.one_of(
    st.tuples(st.just("authorize"), METERS, QUANTITIES, TTL),
    st.tuples(st.just("authorize"), METERS, QUANTITIES, TTL),
    st.tuples(st.just("authorize_many"), METERS, QUANTITIES, st.integers(2, 5)),
    st.tuples(st.just("settle"), PLACES, QUANTITIES),
    st.tuples(st.just("release"), PLACES),
    st.tuples(st.just("extend"), PLACES, QUANTITIES, TTL),
    st.tuples(st.just("record"), METERS, QUANTITIES, st.sampled_from([0, 30, 3600, 18_000, 90_000])),
    st.tuples(st.just("grant"), METERS, QUANTITIES, st.sampled_from([3600, 86_400, None])),
    st.tuples(st.just("void"), PLACES),
    st.tuples(st.just("change")),
    st.tuples(st.just("pause"), st.integers(0, 3)),
    st.tuples(st.just("drift"), SECONDS),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("advance"), SECONDS),
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(OPERATIONS, min_size=5, max_size=40))
def test_every_story_of_calls_usage_and_time_is_that_of_its_single_events(operations):
    story = Story()
    for name, *given_ in operations:
        story.do(name, *given_)
    story.sweep()
    story.compare()
