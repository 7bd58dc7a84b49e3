"""Celery's processes die, double or sleep: each slot's work is done once, in order, and what cannot be done holds up nobody."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.db.models import F
from django_redis import get_redis_connection

from billing_site import doorbell
from invoices.models import Invoice
from invoices.services.due import TRIES_MAX
from invoices.services.subscribing import start_subscription
from metering.models import OverageCharge
from subscriptions.models import BillingPeriod, Subscription, TestClock
from subscriptions.selectors.clock import wall_now
from subscriptions.services import tenants
from tests.faults.installation import held, until
from tests.world import ACTOR, World, at, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

BALANCE = "SELECT id FROM metering_meterbalance WHERE id = %s FOR UPDATE"
SUBSCRIPTION = "SELECT id FROM subscriptions_subscription WHERE id = %s FOR UPDATE"
# A day before the first boundary of a subscription from June.
EVE = at("2026-06-30 12:00")


def invoices(subscription: Subscription) -> list[tuple[str, Decimal]]:
    return list(Invoice.objects.filter(subscription=subscription).order_by("number").values_list("reason", "total"))


def open_and_due(subscriptions: list[Subscription]) -> int:
    return BillingPeriod.objects.filter(
        subscription__in=subscriptions, due_at__isnull=False, closed_at__isnull=True, sequence=1
    ).count()


def used_worlds(number: int) -> list[World]:
    """Return tenants who have 2,345 tokens of overage on the eve of their boundary."""
    worlds = [make_world(now=EVE) for _ in range(number)]
    for world in worlds:
        world.use(12_345, time=at("2026-06-05 00:00"))
    return worlds


def a_day_passes(worlds: list[World]) -> None:
    """Let the clocks stand a day later: nobody has run what fell due meanwhile."""
    clocks = TestClock.objects.filter(pk__in=[world.clock.pk for world in worlds])
    clocks.update(now=EVE + timedelta(days=1))


BILLED = [("opening", Decimal("99.00")), ("period", Decimal("99.47"))]


@pytest.mark.long
def test_five_beats_at_once_bill_each_period_once(installation, record_property):
    worlds = used_worlds(20)
    a_day_passes(worlds)
    beats = ["beat", *(f"beat {number}" for number in range(2, 6))]
    installation.start(*beats)
    broker = get_redis_connection("default")
    rings = until(lambda: (n := broker.llen("closing")) >= len(beats) and n, what="a ring of every beat")
    rung_at = time.monotonic()
    installation.start("worker")
    subscriptions = [world.subscription for world in worlds]
    until(lambda: not open_and_due(subscriptions), what="the closings")
    seconds = time.monotonic() - rung_at
    record_property("recovery_seconds", seconds)
    # The next tick of all five finds nothing to do.
    time.sleep(20)
    assert [invoices(one) for one in subscriptions] == [BILLED] * len(worlds)
    record_property("runs", len(beats))
    record_property("throughput", f"{len(worlds) / seconds:.1f} closings/s; {rings} rings at once")


@pytest.mark.long
def test_what_a_dead_beat_left_for_a_day_is_caught_up(installation, record_property):
    worlds = used_worlds(20)
    a_day_passes(worlds)
    time.sleep(1)
    subscriptions = [world.subscription for world in worlds]
    assert open_and_due(subscriptions) == len(worlds)
    began = time.monotonic()
    installation.start("worker", "beat")
    until(lambda: not open_and_due(subscriptions), what="the closings")
    seconds = time.monotonic() - began
    record_property("recovery_seconds", seconds)
    record_property("throughput", f"{len(worlds) / seconds:.1f} closings/s, with the start of worker and beat")
    assert [invoices(one) for one in subscriptions] == [BILLED] * len(worlds)
    assert {one.periods.count() for one in subscriptions} == {2}


@pytest.mark.long
def test_a_pool_child_killed_in_booking_is_followed_by_another_that_books_once(installation, record_property):
    world = make_world(now=at("2026-06-20 00:00"))
    world.use(10_000, time=at("2026-06-10 00:00"))
    balance = world.balance()
    installation.start("worker")
    began = time.monotonic()
    for times in range(1, 6):
        world.use(5000, time=at("2026-06-10 00:00"))
        with held(BALANCE, balance.pk) as lock:
            doorbell.ring("invoices.book_overage", balance.pk)
            installation.kill_who_waits("worker", lock)
            killed_at = time.monotonic()
        booked = OverageCharge.objects.filter(balance=balance)
        until(lambda booked=booked, times=times: booked.count() == times, what="the booking")
        record_property("recovery_seconds", time.monotonic() - killed_at)
    record_property("throughput", f"{5 / (time.monotonic() - began):.1f} bookings/s, each after a death")
    assert list(booked.order_by("sequence").values_list("amount_precise", flat=True)) == [Decimal(1)] * 5


class TestOneThatCannotBeDone:
    """One tenant's period cannot be closed; those of the others are, by the same sweeps."""

    @pytest.fixture
    def subscriptions(self, transactional_db) -> list[Subscription]:
        """Subscribe eleven tenants who live in wall time, and whose first period has ended."""
        make_meter()
        version, now = publish(), wall_now()
        starts_at = now - timedelta(days=40)
        made = []
        for number in range(11):
            tenant = tenants.create_tenant(code=f"real-{number}", name="Real", actor=ACTOR)
            terms = {"starts_at": starts_at, "anchor_at": starts_at, "now": now, "actor": ACTOR}
            made.append(start_subscription(tenant=tenant, version=version, **terms))
        return made

    @pytest.mark.long
    def test_is_parked_with_its_reason(self, installation, subscriptions, record_property):
        poisoned, *others = subscriptions
        with failing_invoices(of=poisoned):
            installation.start("worker")
            rung_at = time.monotonic()
            doorbell.ring("invoices.run_due")
            until(lambda: not open_and_due(others), what="the others' closings")
            seconds = time.monotonic() - rung_at
            record_property("recovery_seconds", seconds)
            record_property("throughput", f"{len(others) / seconds:.1f} closings/s of the others")
            period = until(lambda: rung_and(lambda: parked_period(poisoned)), what="the parking")
        record_property("runs", TRIES_MAX)
        assert period.closed_at is None
        assert "no ink" in period.parked_reason
        self.assert_others_are_billed(others)

    @pytest.mark.long
    def test_is_parked_when_it_kills_its_worker_each_time(self, installation, subscriptions, record_property):
        """As one that runs out of memory does."""
        deadly, *others = subscriptions
        installation.start("worker")
        with held(SUBSCRIPTION, deadly.pk) as lock:

            def try_and_die() -> None:
                doorbell.ring("invoices.run_due")
                installation.kill_who_waits("worker", lock)

            began = time.monotonic()
            try_and_die()
            release_leases()
            try_and_die()
            doorbell.ring("invoices.run_due")
            until(lambda: not open_and_due(others), what="the others' closings")
            seconds = time.monotonic() - began
            record_property("recovery_seconds", seconds)
            record_property("throughput", f"{len(others) / seconds:.1f} closings/s of the others")
            for _ in range(TRIES_MAX - 2):
                release_leases()
                try_and_die()
            period = until(lambda: rung_and(lambda: parked_period(deadly)), what="the parking")
        record_property("runs", TRIES_MAX)
        assert "none of them ended" in period.parked_reason
        self.assert_others_are_billed(others)

    def assert_others_are_billed(self, others: list[Subscription]) -> None:
        fee = Decimal("99.00")
        assert [invoices(one) for one in others] == [[("opening", fee), ("period", fee)]] * len(others)


def parked_period(subscription: Subscription) -> BillingPeriod | None:
    return BillingPeriod.objects.filter(subscription=subscription, parked_at__isnull=False).first()


def release_leases() -> None:
    leased = BillingPeriod.objects.filter(leased_until__isnull=False)
    leased.update(leased_until=F("leased_until") - timedelta(hours=1))


def rung_and(found: Callable[[], object]) -> object:
    """Cut the pauses between tries short, which are minutes; ring, wait a moment, and look."""
    release_leases()
    doorbell.ring("invoices.run_due")
    time.sleep(0.5)
    return found()


@contextmanager
def failing_invoices(*, of: Subscription) -> Iterator[None]:
    """Let the database refuse every further invoice of a subscription."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION test_no_ink() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no ink'; END $$;"
            " CREATE TRIGGER test_no_ink BEFORE INSERT ON invoices_invoice FOR EACH ROW"
            f" WHEN (NEW.subscription_id = {of.pk} AND NEW.reason = 'period') EXECUTE FUNCTION test_no_ink()"
        )
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER test_no_ink ON invoices_invoice; DROP FUNCTION test_no_ink()")
