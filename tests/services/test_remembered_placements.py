"""
A process remembers the periods and balances of tenants in wall time. What has happened since is found out under the lock.

Worlds of other tests live on test clocks, which are never remembered. Here time is wall time, and passes by the `now` of each request.
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import count

import pytest
from django.db import connection, transaction

from invoices.services.due import run_due
from invoices.services.subscribing import cancel_subscription, start_subscription
from metering.models import MeterBalance
from metering.selectors.placement import forget_placements, remembered_placement
from metering.services.ingest import record_events
from metering.services.requests import NewEvent, Record
from subscriptions.models import TestClock
from subscriptions.services import tenants
from tests.world import ACTOR, JUNE, make_meter, publish

pytestmark = pytest.mark.django_db(transaction=True)

MIDDLE = JUNE + timedelta(days=14)
JULY = JUNE + timedelta(days=30)
CLOSED = JULY + timedelta(hours=2)

_numbers = count(1)


class WallWorld:
    """A tenant in wall time on a tier with 10,000 tokens, whose placement this process remembers."""

    def __init__(self, **meter):
        make_meter(**meter)
        self.version = publish("wall")
        self.tenant = tenants.create_tenant(code=f"wall-{next(_numbers)}", name="Wall", actor=ACTOR)
        self.subscription = self.subscribe(JUNE)
        self.use(100, now=MIDDLE)
        assert remembered_placement(self.tenant.code) is not None

    def subscribe(self, starts_at):
        return start_subscription(
            tenant=self.tenant,
            version=self.version,
            starts_at=starts_at,
            anchor_at=starts_at,
            now=starts_at,
            actor=ACTOR,
        )

    def use(self, tokens: int, *, now: datetime, time: datetime | None = None, type: str = "llm.completion"):
        event = NewEvent(self.tenant.code, "wall", f"e{next(_numbers)}", type, time, {"total_tokens": tokens})
        [report] = record_events([Record([event], now)])
        return report.outcomes[0].status, report.outcomes[0].code

    def positions(self):
        rows = MeterBalance.objects.filter(tenant=self.tenant).order_by("period__starts_at")
        return [(int(row.used), int(row.covered), int(row.overage)) for row in rows]


@pytest.fixture(autouse=True)
def nothing_remembered():
    forget_placements()


def test_no_test_clock_is_remembered():
    assert not TestClock.objects.exists()
    world = WallWorld()
    assert world.use(50, now=MIDDLE) == ("accepted", "")
    assert world.positions() == [(150, 150, 0)]


def test_usage_of_a_period_that_closed_since_is_late():
    world = WallWorld()
    run_due(until=CLOSED)
    assert world.use(70, now=CLOSED, time=MIDDLE) == ("accepted", "")
    assert world.positions() == [(170, 100, 70), (0, 0, 0)]


def test_a_meter_that_takes_no_late_usage_refuses_it_though_the_period_is_remembered_as_open():
    world = WallWorld(late_policy="reject")
    run_due(until=CLOSED)
    assert world.use(70, now=CLOSED, time=MIDDLE) == ("rejected", "period_closed")
    assert world.positions()[0] == (100, 100, 0)


def test_what_comes_after_a_cancellation_is_in_no_period():
    world = WallWorld()
    cancel_subscription(subscription_id=world.subscription.pk, when="now", credit="unused", now=MIDDLE, actor=ACTOR)
    later = MIDDLE + timedelta(days=1)
    assert world.use(7, now=later) == ("unmatched", "no_period")
    assert world.use(9, now=later, time=MIDDLE - timedelta(hours=1)) == ("accepted", "")
    assert world.positions() == [(109, 109, 0)]


def test_usage_under_the_next_subscription_is_counted_there():
    world = WallWorld()
    cancel_subscription(subscription_id=world.subscription.pk, when="now", credit="unused", now=MIDDLE, actor=ACTOR)
    world.subscribe(MIDDLE)
    assert world.use(7, now=MIDDLE + timedelta(hours=1)) == ("accepted", "")
    assert world.positions() == [(100, 100, 0), (7, 7, 0)]


def test_the_next_period_is_opened_by_its_first_event():
    world = WallWorld()
    assert world.use(7, now=JULY + timedelta(minutes=1)) == ("accepted", "")
    assert world.use(5, now=JULY + timedelta(minutes=2), time=MIDDLE) == ("accepted", "")
    assert world.positions() == [(105, 105, 0), (7, 7, 0)]


def test_a_period_that_was_opened_and_rolled_back_is_opened_again():
    world = WallWorld()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        world.use(7, now=JULY + timedelta(minutes=1))
        raise ZeroDivisionError
    assert world.use(8, now=JULY + timedelta(minutes=1)) == ("accepted", "")
    assert world.positions() == [(100, 100, 0), (8, 8, 0)]


def test_a_meter_made_since_counts_at_once_for_a_tier_that_charges_for_it():
    world = WallWorld()
    make_meter("calls", aggregation="count", value_property=None)
    assert world.use(7, now=MIDDLE) == ("accepted", "")
    assert world.positions() == [(107, 107, 0)]


def test_closing_in_the_midst_of_recording_leaves_each_event_in_the_period_once():
    """Threads with one memory record while another closes: what came before is covered, what came after is overage."""
    world = WallWorld()

    def record(number):
        try:
            return world.use(1, now=CLOSED, time=MIDDLE)[0]
        finally:
            connection.close()

    def close(_):
        try:
            return run_due(until=CLOSED)
        finally:
            connection.close()

    with ThreadPoolExecutor(9) as threads:
        answers = [threads.submit(record, number) for number in range(100)]
        closing = threads.submit(close, None)
        answers += [threads.submit(record, number) for number in range(100)]
        closing.result()
        assert {answer.result() for answer in answers} == {"accepted"}
    [(used, covered, overage), _] = world.positions()
    assert (used, covered + overage) == (300, 300)
    assert covered < 300
