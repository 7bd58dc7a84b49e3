"""
Changes of tier, a publication's change, usage, authorizations, a pause or an end, and a closing at once come to what some serial order comes to.

The threads are not left to chance: each stops before statements that dice have chosen until the others have gone on, so that transactions are cut into
each other at every seam. What decides is then read from the books: the chain of changes is the serial order, and fees, allowances, usage and
holds must be what that order comes to.
"""

import random
from collections import Counter
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from django.db import connection

from billing_site.http.problems import DomainError
from invoices.models import Invoice
from invoices.selectors.books import breaches
from invoices.selectors.verifying import verify
from invoices.services.changing import Asked, carry_out, change_tier
from invoices.services.closing import close_periods
from invoices.services.due import run_due
from invoices.services.pausing import pause_subscription
from invoices.services.publishing import plan
from invoices.services.subscribing import cancel_subscription, start_subscription
from metering.models import Authorization, CreditGrant, MeterBalance, UsageEvent
from metering.services.gate import perform
from metering.services.ingest import record_events
from metering.services.requests import Authorize, NewEvent, Record
from subscriptions.models import BillingPeriod, FeeItem, ScheduledChange, Tenant, TierChange
from subscriptions.services import catalog, tenants
from tests import oracle
from tests.races import interleaved
from tests.world import ACTOR, JUNE, at, charge, make_meter, publish

pytestmark = pytest.mark.django_db(transaction=True)

MIDDLE, BOUNDARY = at("2026-06-15 09:00"), at("2026-07-01 00:00")
CENT = Fraction(1, 100)
# Fee and what is included; every tier denies what is beyond.
TIERS = {"basic": ("99", 1000), "small": ("31", 300), "large": ("499", 5000), "basic-2": ("120", 1500)}
REFUSALS = {"SubscriptionEnded", "SubscriptionPaused", "NothingChanges"}


def make_tiers(cohort, effective_at):
    """Publish the tiers, and to a cohort the second version of the first; its subscriptions join that with their start."""
    make_meter()
    versions = {
        name: publish(name, fee=fee, charges=[charge(included=str(included), at_limit="deny")])
        for name, (fee, included) in TIERS.items()
        if name != "basic-2"
    }
    fee, included = TIERS["basic-2"]
    document = {
        "currency": "USD",
        "interval": "month",
        "fee": fee,
        "charges": [charge(included=str(included), at_limit="deny")],
    }
    second = catalog.create_version(tier=versions["basic"].tier, actor=ACTOR, document=document)
    versions["basic-2"] = catalog.publish(
        version_id=second.pk, now=JUNE, actor=ACTOR, cohort=cohort, effective_at=effective_at
    )
    return versions


class Round:
    """One tenant in wall time, and what happens to it at once."""

    def __init__(self, number, versions, now):
        self.dice, self.versions, self.now = random.Random(number), versions, now
        self.tenant = tenants.create_tenant(code=f"race-{number}", name="Race", actor=ACTOR)
        self.subscription = start_subscription(
            tenant=self.tenant, version=versions["basic"], starts_at=JUNE, anchor_at=JUNE, now=JUNE, actor=ACTOR
        )
        self.sent = Counter()
        self.answers = []
        self.use(100, JUNE + timedelta(days=1), now=JUNE + timedelta(days=1))

    def use(self, quantity, time, *, now=None):
        self.sent["events"] += 1
        name = f"{time:%d%H%M}-{self.dice.random()}"
        event = NewEvent(self.tenant.code, "race", name, "llm.completion", time, {"total_tokens": quantity})
        [report] = record_events([Record([event], now or self.now)])
        # Again: it counts once.
        [again] = record_events([Record([event], now or self.now)])
        assert again.outcomes[0].status == "duplicate"
        outcome = report.outcomes[0]
        if outcome.status == "accepted":
            self.sent["quantity"] += quantity
        else:
            assert (outcome.status, outcome.code) == ("unmatched", "no_period"), outcome
        return outcome.status

    def use_some(self, *times):
        return lambda: [self.use(self.dice.choice([1, 20, 300]), time) for time in times]

    def authorize_some(self, times):
        def call():
            for _ in range(times):
                quantity = Decimal(self.dice.choice([10, 200, 700]))
                key = f"{self.tenant.code}-{self.dice.random()}"
                [answer] = perform([Authorize(self.tenant.code, "tokens", quantity, key, {}, 86_400, self.now)])
                self.answers.append(answer)

        return call

    def change(self, to, when="now", allowance="prorated", bill="next"):
        choices = {"grain": "day", "allowance": allowance, "bill": bill}
        asked = Asked(to_version=self.versions[to], when=when, choices=choices)
        about = {"subscription_id": self.subscription.pk, "asked": asked, "actor": ACTOR}
        return lambda: change_tier(**about, now=self.now, read=lambda change: change.pk)

    def check(self, results):
        refused = [result for result in results if isinstance(result, Exception)]
        assert {type(error).__name__ for error in refused} <= REFUSALS, refused
        assert all(isinstance(error, DomainError) for error in refused), refused
        # Whoever is late does what is due.
        run_due(until=self.now)
        self.subscription.refresh_from_db()
        self.periods = list(BillingPeriod.objects.filter(subscription=self.subscription).order_by("sequence"))
        self.check_chain()
        for period in self.periods:
            self.check_allowance(period)
            self.check_fees(period)
        self.check_usage()
        assert breaches() == []
        for invoice in Invoice.objects.filter(tenant=self.tenant):
            assert verify(invoice) == []

    def check_chain(self):
        """Versions follow each other, and periods tile."""
        assert all(one.ends_at == other.starts_at for one, other in pairwise(self.periods))
        changes = list(TierChange.objects.filter(subscription=self.subscription).order_by("effective_at", "pk"))
        versions = [self.versions["basic"].pk]
        for change in changes:
            assert change.from_version_id == versions[-1]
            versions.append(change.to_version_id)
        assert self.subscription.version_id == versions[-1]
        left = ScheduledChange.objects.filter(subscription=self.subscription, status="scheduled")
        runs = self.subscription.ends_at is None and self.subscription.paused_at is None
        assert runs or not left.filter(due_at__isnull=False).exists()

    def values(self, period):
        """Return which tier was in force in a period, since when."""
        names = {version.pk: name for name, version in self.versions.items()}
        changes = period.changes.order_by("effective_at", "pk")
        return [(period.starts_at, names[period.version_id])] + [
            (change.effective_at, names[change.to_version_id]) for change in changes
        ]

    def check_allowance(self, period):
        values = self.values(period)
        for place, change in enumerate(period.changes.order_by("effective_at", "pk"), start=1):
            if change.allowance == "full_new":
                values[: place + 1] = [(period.starts_at, values[place][1])] * (place + 1)
        of_tiers = [(since, TIERS[name][1]) for since, name in values]
        total = oracle.integral(of_tiers, period.starts_at, period.full_ends_at, days_in="UTC") / self.days(period)
        wanted = (Decimal(total.numerator) / total.denominator).quantize(Decimal(1), ROUND_HALF_UP)
        assert CreditGrant.objects.get(balance__period=period, kind="allowance").quantity == wanted

    def check_fees(self, period):
        of_tiers = [(since, Decimal(TIERS[name][0])) for since, name in self.values(period)]
        until = period.ends_at
        if until < period.full_ends_at:
            until = min(until + timedelta(days=1), period.full_ends_at)  # the day of its end counts as used
        wanted = oracle.integral(of_tiers, period.starts_at, until, days_in="UTC") / self.days(period)
        items = list(FeeItem.objects.filter(period=period))
        assert abs(Fraction(sum(item.amount for item in items)) - wanted) <= len(items) * CENT, items

    def days(self, period):
        return oracle.integral([(period.starts_at, 1)], period.starts_at, period.full_ends_at, days_in="UTC")

    def check_usage(self):
        """Each event counts once, and no hold was granted beyond what was in force."""
        balances = list(MeterBalance.objects.filter(tenant=self.tenant))
        assert sum(balance.used for balance in balances) == self.sent["quantity"]
        assert UsageEvent.objects.filter(subject=self.tenant.code).count() == self.sent["events"]
        granted = [answer for answer in self.answers if answer.authorization is not None]
        assert Authorization.objects.filter(tenant=self.tenant).count() == len(granted)
        for balance in balances:
            held = sum(one.quantity for one in Authorization.objects.filter(balance=balance, status="held"))
            assert balance.held == held
            largest = max(included for _, included in TIERS.values())
            assert held <= largest


def in_the_middle(number, versions):
    """Two changes, a publication that takes effect, usage on both sides of it, calls, and sometimes a pause or an end."""
    told = Round(number, versions, MIDDLE)
    dice = told.dice
    scheduled = ScheduledChange.objects.get(subscription=told.subscription)
    early, late = MIDDLE - timedelta(days=3), MIDDLE - timedelta(minutes=1)
    calls = [
        told.change("small", allowance=dice.choice(["prorated", "full_new"]), bill=dice.choice(["next", "now"])),
        told.change("large", bill=dice.choice(["next", "now"])),
        lambda: carry_out(change_ids=[scheduled.pk], now=MIDDLE),
        told.use_some(early, late, late),
        in_turn(told.use_some(late, early), told.authorize_some(3)),
        in_turn(lambda: plan(now=MIDDLE), told.authorize_some(3)),
    ]
    if number % 3 == 1:
        calls.append(lambda: pause_subscription(**about(told), credit="unused"))
    if number % 3 == 2:
        calls.append(lambda: cancel_subscription(**about(told), when="now", credit="unused"))
    told.check(interleaved(*calls, dice=dice))


def over_a_boundary(number, versions):
    """What waits for the boundary, a change, late and new usage, calls, and the closing of the period before."""
    told = Round(number, versions, BOUNDARY + timedelta(hours=2))
    dice = told.dice
    period = BillingPeriod.objects.get(subscription=told.subscription)
    late, new = BOUNDARY - timedelta(days=1), BOUNDARY + timedelta(hours=1)
    calls = [
        told.change("small", bill=dice.choice(["next", "now"])),
        told.change("large", when="period_end"),
        lambda: close_periods(period_ids=[period.pk], now=told.now),
        lambda: run_due(until=told.now),
        told.use_some(late, new, new),
        in_turn(told.use_some(new, late), lambda: plan(now=told.now), told.authorize_some(3)),
    ]
    if number % 3 == 1:
        calls.append(lambda: pause_subscription(**about(told), credit="unused"))
    if number % 3 == 2:
        calls.append(lambda: cancel_subscription(**about(told), when="now", credit="unused"))
    told.check(interleaved(*calls, dice=dice))


def in_turn(*calls):
    """Return one call that makes these, one after another."""
    return lambda: [call() for call in calls]


def about(told):
    return {"subscription_id": told.subscription.pk, "now": told.now, "actor": ACTOR}


@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("story", "cohort", "effective_at"),
    [(in_the_middle, "now", MIDDLE - timedelta(hours=11)), (over_a_boundary, "renewal", MIDDLE)],
)
def test_all_at_once_is_some_serial_order(story, cohort, effective_at, rounds):
    versions = make_tiers(cohort, effective_at)
    before = deadlocks()
    for number in range(rounds):
        story(number, versions)
    assert Tenant.objects.count() == rounds
    assert deadlocks() == before


def deadlocks():
    """Return how many deadlocks this database has had: retries hide them, and the order of locks leaves no room for one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return cursor.fetchone()[0]
