"""
Whatever dies at whichever statement, and is run again, leaves the books of a run in which nothing died.

Continuous integration tries every moment of recording and closing, and some of the others; the long form tries all.
"""

from datetime import UTC, datetime
from decimal import Decimal
from time import monotonic, sleep

import pytest

from billing_site.database import uuid7
from invoices.services.advancing import advance
from invoices.services.closing import book_balance, close_period
from metering.models import MeterBalance, UsageEvent
from metering.services.gate import perform
from metering.services.ingest import record_events
from metering.services.requests import Authorize, Extend, NewEvent, Record, Release, Settle
from metering.services.reversing import EventReversed, reverse_event
from subscriptions.models import TierVersion
from subscriptions.services.clocks import ClockAdvancing
from tests.faults.crash_sweep import ANSWERING, COMMITTED, Story, moments_of, sweep
from tests.world import ACTOR, World, at, charge, make_meter, make_world, publish

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

GRADUATED = {
    "model": "graduated",
    "bands": [{"up_to": "1000", "unit_amount": "0.0002"}, {"up_to": None, "unit_amount": "0.0001"}],
}
NOW = at("2026-06-20 00:00")


@pytest.fixture
def tokens(transactional_db: None) -> None:
    """Make the meter alone."""
    make_meter()


@pytest.fixture
def version(transactional_db: None) -> TierVersion:
    """Make a tier whose usage is counted by two meters, one of them priced in bands."""
    make_meter()
    make_meter("calls", aggregation="count", value_property=None)
    return publish(charges=[charge(), charge(meter="calls", included="2", price=GRADUATED)])


def subscribed(version: TierVersion) -> World:
    """Make a tenant who has used 9,000 of 10,000 tokens and 1 of 2 calls."""
    world = make_world(version=version, now=NOW)
    world.record(world.event(9000, time=at("2026-06-10 00:00"), id="earlier"))
    return world


def recording(version: TierVersion) -> Story:
    """A group of three requests: two tenants and an unknown one, repeats, a conflict, a late event, both allowances exceeded."""
    one, other = subscribed(version), subscribed(version)
    now = datetime.now(tz=UTC)
    repeated = one.event(700, id="repeated", time=at("2026-06-19 00:00"))
    unknown = f"unknown-{one.tenant.code}"
    requests = [
        Record([repeated, one.event(800, id="beyond", time=at("2026-06-19 01:00")), repeated], now),
        Record([one.event(1, id="earlier"), one.event(50, id="late", time=at("2026-06-02 00:00")), repeated], now),
        Record([other.event(5000, id="beyond"), NewEvent(unknown, "test", "e", "llm.completion", NOW, {})], now),
    ]

    def operation() -> None:
        outcomes = [outcome.status for report in record_events(requests) for outcome in report.outcomes]
        assert outcomes[3] == "conflict"
        assert {*outcomes[:3], *outcomes[4:7]} <= {"accepted", "duplicate"}

    return Story([one.tenant, other.tenant], operation)


def with_thresholds(code: str, *thresholds: dict[str, object]) -> TierVersion:
    """Make a tier whose pool has these thresholds."""
    return publish(code, charges=[charge(thresholds=list(thresholds))])


def telling(version: TierVersion, *of_tenant: dict[str, object]) -> Story:
    """An event by which a tenant with thresholds of its own has used 15,000 of 10,000 tokens."""
    world = make_world(version=version, now=NOW, thresholds=of_tenant)
    world.use(4000, time=at("2026-06-10 00:00"))
    event = world.event(11000, id="beyond", time=NOW)
    return Story([world.tenant], lambda: world.record(event))


def booking(version: TierVersion) -> Story:
    """The second booking of a balance: the difference to the first."""
    world = subscribed(version)
    world.use(3000, time=at("2026-06-11 00:00"))
    balance = world.balance(meter__code="tokens")
    book_balance(balance_id=balance.pk, now=NOW)
    world.use(4000, time=at("2026-06-12 00:00"))
    return Story([world.tenant], lambda: book_balance(balance_id=balance.pk, now=at("2026-06-20 00:02")))


def closing(version: TierVersion) -> Story:
    """The closing of a period with overage of both meters, of which one is booked in part."""
    world = subscribed(version)
    world.use(3345, time=at("2026-06-11 00:00"))
    book_balance(balance_id=world.balance(meter__code="tokens").pk, now=NOW)
    world.record(*(world.event(3, time=at("2026-06-12 00:00")) for _ in range(7)))
    period = world.subscription.periods.get(sequence=1)
    return Story([world.tenant], lambda: close_period(period_id=period.pk, now=at("2026-07-01 01:00")))


def reversing(version: TierVersion) -> Story:
    """The reversal of an early event, after which others are covered that were overage."""
    world = subscribed(version)
    world.use(4000, time=at("2026-06-11 00:00"))
    event = UsageEvent.objects.get(subject=world.tenant.code, event_id="earlier")

    def operation() -> None:
        try:
            reverse_event(event_id=event.pk, reason="sent by mistake", actor=ACTOR)
        except EventReversed:
            assert MeterBalance.objects.filter(tenant=world.tenant, used=4000).exists()

    return Story([world.tenant], operation)


def advancing(version: TierVersion) -> Story:
    """The advance of a clock over two boundaries: openings, bookings, closings, each in transactions of their own."""
    world = subscribed(version)
    world.use(3345, time=at("2026-06-11 00:00"))

    def operation() -> None:
        # As a client does with a 409: PostgreSQL takes a moment to notice that who held the clock is dead.
        ends = monotonic() + 10
        while True:
            try:
                advance(clock_id=world.clock.pk, to=at("2026-08-01 02:00"), actor=ACTOR)
                return
            except ClockAdvancing:
                if monotonic() > ends:
                    raise
                sleep(0.05)

    return Story([world.tenant], operation)


def asking(version: TierVersion) -> Story:
    """A group of the gate: it settles, releases, extends and authorizes for a tenant with windows and a spend cap."""
    world = make_world(version=version, now=NOW, spend_cap=Decimal(5))
    now = datetime.now(tz=UTC)
    world.use(300, time=at("2026-06-19 23:00"))

    def ask(key: str, quantity: int, ttl_seconds: int = 300) -> Authorize:
        return Authorize(world.tenant.code, "tokens", Decimal(quantity), key, {}, ttl_seconds, now)

    settled, released, extended = (
        answer.authorization for answer in perform([ask("settled", 400), ask("released", 500), ask("extended", 600)])
    )
    event = world.event(1500, id="settles", time=None)
    group_id = uuid7()
    requests = [
        Settle(settled, None, event, now),
        Release(released, now),
        Extend(extended, Decimal(100), 600, now),
        ask("new", 700),
        ask("denied", 100_000),
    ]

    def operation() -> None:
        # The committer asks again under the same id, when it does not know what became of its COMMIT.
        answers = perform(requests, group_id=group_id)
        assert [getattr(answer, "code", None) for answer in answers] == [None] * 5
        assert answers[4].decision.decision == "deny"

    return Story([world.tenant], operation)


class TestEveryMoment:
    def test_of_settling_releasing_extending_and_authorizing(self, tokens):
        limits = [{"quantity": "3000", "window": "PT5H"}]
        version = publish("asking", charges=[charge(included="1000", limits=limits)])
        assert_commits_were_crossed(sweep(lambda: asking(version)))

    def test_of_recording_a_mixed_group(self, version):
        assert_commits_were_crossed(sweep(lambda: recording(version)))

    def test_of_closing_a_period(self, version):
        assert_commits_were_crossed(sweep(lambda: closing(version)))

    def test_of_reaching_thresholds(self, tokens):
        life = [{"quantity": "15000", "once": "life"}, {"amount": "1", "once": "life"}]
        version = with_thresholds("telling", {"percent": 80}, {"amount": "0.5"}, *life)
        assert_commits_were_crossed(sweep(lambda: telling(version, {"amount": "0.7"})))

    @pytest.mark.long
    @pytest.mark.parametrize("tell", [booking, reversing, advancing])
    def test_of_booking_reversing_and_advancing_a_clock(self, version, tell, record_property):
        began = monotonic()
        tried = sweep(lambda: tell(version))
        assert_commits_were_crossed(tried)
        record_property("runs", len(tried))
        record_property("throughput", f"{len(tried) / (monotonic() - began):.1f} crashes/s, books compared")


@pytest.mark.parametrize(("tell", "every"), [(booking, 4), (reversing, 6), (advancing, 50)])
def test_some_moments_of_the_other_operations(version, tell, every):
    assert sweep(lambda: tell(version), every=every, offset=every // 2)


def test_percentages_and_quantities_cost_no_statement_until_they_are_reached(tokens):
    without = with_thresholds("without")
    far = with_thresholds("far", {"percent": 200}, {"quantity": "16000"}, {"amount": "2"})
    near = with_thresholds("near", {"percent": 80})
    statements, _, _ = moments_of(lambda: telling(without))
    assert moments_of(lambda: telling(far))[0] == statements
    assert len(moments_of(lambda: telling(near))[0]) > len(statements)


def assert_commits_were_crossed(tried: list[str]) -> None:
    """Require that processes died on both sides of a COMMIT, and after the last one with everything done but the answer."""
    assert {"before COMMIT", COMMITTED} < set(tried)
    assert tried[-1] == ANSWERING
