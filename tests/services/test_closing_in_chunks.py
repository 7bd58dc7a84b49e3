"""The first of a month: many periods closed in few transactions by several workers, and one that cannot be closed stops nobody."""

import time
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.db.models import Count
from django.test.utils import CaptureQueriesContext
from django_redis import get_redis_connection

from invoices.models import Invoice, NumberSequence
from invoices.services import due
from invoices.services.closing import PeriodStillOpen, close_periods
from invoices.services.due import TRIES_MAX, run_due, sweep
from metering.services.ingest import record_events
from metering.services.requests import NewEvent, Record
from subscriptions.models import BillingPeriod, Subscription, Tenant
from subscriptions.selectors.clock import wall_now
from subscriptions.services import agreement, tenants
from tests.races import together
from tests.world import ACTOR, make_meter, publish

pytestmark = pytest.mark.django_db(transaction=True)

STARTED = timedelta(days=33)
GRADUATED = {
    "model": "graduated",
    "bands": [{"up_to": "1000", "unit_amount": "0.001"}, {"up_to": None, "unit_amount": "0.0005"}],
}


class Killed(BaseException):
    """The worker ended here; nothing that catches Exception catches it."""


def subscribed(number):
    """
    Subscribe tenants in wall time whose first period is over, with overage on two meters; only its closing is due.

    Each owes 99.00 for the next period, 2,345 × 0.0002 = 0.469 and 1,000 × 0.001 + 500 × 0.0005 = 1.25.
    """
    make_meter()
    make_meter("calls", event_type="llm.call", value_property="calls")
    calls = {"kind": "usage", "meter": "calls", "included": "100", "price": GRADUATED}
    tokens = {
        "kind": "usage",
        "meter": "tokens",
        "included": "10000",
        "price": {"model": "per_unit", "unit_amount": "0.0002"},
    }
    version = publish("crowd", charges=[tokens, calls])
    starts_at = wall_now() - STARTED
    for place in range(number):
        tenant = tenants.create_tenant(code=f"crowd-{place}", name="Crowd", actor=ACTOR)
        agreement.start(tenant=tenant, version=version, starts_at=starts_at, anchor_at=starts_at, now=starts_at)
    run_due(until=starts_at + timedelta(days=1))
    when = starts_at + timedelta(days=3)
    events = [
        event
        for place in range(number)
        for event in (
            NewEvent(f"crowd-{place}", "test", "t", "llm.completion", when, {"total_tokens": Decimal(12_345)}),
            NewEvent(f"crowd-{place}", "test", "c", "llm.call", when, {"calls": Decimal(1_600)}),
        )
    ]
    [report] = record_events([Record(events, wall_now())])
    assert {outcome.status for outcome in report.outcomes} == {"accepted"}
    return starts_at


def first_periods():
    return BillingPeriod.objects.filter(sequence=1).order_by("tenant_id")


def in_chunks_of(monkeypatch, size):
    monkeypatch.setattr(due, "KINDS", tuple(replace(kind, chunk=min(kind.chunk, size)) for kind in due.KINDS))


def closing_by(run):
    return tuple(replace(kind, run=run) if kind.what == "close_period" else kind for kind in due.KINDS)


def let_leases_run_out():
    BillingPeriod.objects.update(leased_until=None)


def closings():
    """Return what was billed by each closing, as plain values."""
    invoices = Invoice.objects.filter(reason="period").order_by("tenant_id").prefetch_related("lines")
    return [tuple(line.amount for line in invoice.lines.all()) for invoice in invoices]


THREE_LINES = (Decimal("99.00"), Decimal("0.47"), Decimal("1.25"))


def assert_numbered_without_a_gap(count):
    numbers = sorted(Invoice.objects.values_list("number", flat=True))
    assert numbers == list(range(1, count + 1))
    assert NumberSequence.objects.get().last_number == count


class TestManyAtOnce:
    def test_two_workers_share_three_hundred_periods_and_each_is_closed_once(self, monkeypatch):
        subscribed(300)
        in_chunks_of(monkeypatch, 25)
        journals = together(*[lambda: sweep(now=wall_now(), seconds_max=50)] * 2)

        closed = [[entry.object for entry in journal if entry.what == "close_period"] for journal in journals]
        assert sorted(closed[0] + closed[1]) == sorted(f"period {period.public_id}" for period in first_periods())
        assert all(closed), "both had work"
        assert closings() == [THREE_LINES] * 300
        assert_numbered_without_a_gap(600)  # 300 openings before
        assert not first_periods().filter(closed_at=None).exists()
        assert BillingPeriod.objects.filter(sequence=2, closed_at=None).count() == 300

    def test_the_number_of_statements_does_not_grow_with_the_chunk(self):
        subscribed(24)
        ids = list(first_periods().values_list("pk", flat=True))
        counts = []
        for chunk in (ids[:2], ids[2:4], ids[4:24]):
            with CaptureQueriesContext(
                connection,
            ) as statements:
                assert len(close_periods(period_ids=chunk, now=wall_now())) == len(chunk)
            counts.append(len(statements))
        assert counts[1] == counts[2]

    def test_periods_of_one_subscription_are_closed_in_their_order_with_those_of_others(self):
        starts_at = subscribed(3)
        now = starts_at + timedelta(days=100)
        close_periods(period_ids=first_periods().values_list("pk", flat=True)[:1], now=now)
        third = BillingPeriod.objects.filter(sequence=3).values_list("pk", flat=True)
        assert third.count() == 1  # opened with the closing of the first
        others = list(first_periods().values_list("pk", flat=True)[1:])
        made = close_periods(period_ids=[*third, *others], now=now)
        assert {invoice.period_id for invoice in made.values()} == {*third, *others}
        of_one = Invoice.objects.filter(tenant=Tenant.objects.get(code="crowd-0")).order_by("number")
        assert [invoice.period.sequence for invoice in of_one] == [1, 1, 2, 3]

    def test_closing_again_returns_the_invoices_and_writes_nothing(self):
        subscribed(3)
        ids = list(first_periods().values_list("pk", flat=True))
        first = close_periods(period_ids=ids[:2], now=wall_now())
        again = close_periods(period_ids=ids, now=wall_now())
        assert {pk: again[pk].pk for pk in ids[:2]} == {pk: first[pk].pk for pk in ids[:2]}
        assert_numbered_without_a_gap(6)

    def test_all_or_none_are_closed(self):
        subscribed(3)
        early = BillingPeriod.objects.filter(sequence=1).latest("pk")
        with pytest.raises(PeriodStillOpen):
            close_periods(
                period_ids=first_periods().values_list("pk", flat=True), now=early.ends_at - timedelta(days=1)
            )
        assert not first_periods().filter(closed_at__isnull=False).exists()

    def test_who_finds_a_full_chunk_calls_for_help(self, monkeypatch):
        subscribed(4)
        in_chunks_of(monkeypatch, 2)
        broker = get_redis_connection("default")
        broker.delete("closing")
        sweep(now=wall_now(), seconds_max=30)
        ends = time.monotonic() + 10
        while not broker.llen("closing") and time.monotonic() < ends:
            time.sleep(0.05)
        assert broker.llen("closing") == 1


class TestWhatCannotBeClosed:
    def poison(self):
        """Give one tenant a zone that no clock knows, so that nothing of it can be opened or billed."""
        Tenant.objects.filter(code="crowd-3").update(timezone="Mars/Olympus")
        return first_periods().get(tenant__code="crowd-3")

    def test_the_others_are_closed_at_once_and_it_is_parked_with_its_reason(self):
        subscribed(8)
        poison = self.poison()
        journal = sweep(now=wall_now(), seconds_max=30)
        assert [entry.what for entry in journal].count("close_period") == 7
        for _ in range(TRIES_MAX - 1):
            let_leases_run_out()
            sweep(now=wall_now(), seconds_max=30)
        poison.refresh_from_db()
        assert (poison.closed_at, poison.attempts) == (None, TRIES_MAX)
        assert poison.parked_at is not None
        assert "Mars/Olympus" in poison.parked_reason
        assert closings() == [THREE_LINES] * 7
        assert_numbered_without_a_gap(15)

    def test_a_worker_that_dies_in_a_chunk_leaves_nothing_and_the_next_one_does_it(self, monkeypatch):
        subscribed(6)
        close = next(kind.run for kind in due.KINDS if kind.what == "close_period")

        def dies(ids, now):
            close(ids, now)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(due, "KINDS", closing_by(dies))
            with pytest.raises(Killed):
                sweep(now=wall_now(), seconds_max=30)
        assert closings() == []
        assert_numbered_without_a_gap(6)
        assert "close_period" not in [entry.what for entry in sweep(now=wall_now(), seconds_max=30)]  # leased
        let_leases_run_out()
        sweep(now=wall_now(), seconds_max=30)
        assert closings() == [THREE_LINES] * 6
        assert_numbered_without_a_gap(12)

    def test_a_period_that_kills_its_worker_takes_no_other_with_it_and_is_parked(self, monkeypatch):
        subscribed(4)
        deadly = first_periods()[1]
        close = next(kind.run for kind in due.KINDS if kind.what == "close_period")

        def dies(ids, now):
            if deadly.pk in ids:
                raise Killed
            close(ids, now)

        monkeypatch.setattr(due, "KINDS", closing_by(dies))
        for _ in range(TRIES_MAX):
            with pytest.raises(Killed):
                sweep(now=wall_now(), seconds_max=30)
            let_leases_run_out()
        sweep(now=wall_now(), seconds_max=30)
        deadly.refresh_from_db()
        assert deadly.parked_reason.startswith("WorkerDied")
        assert closings() == [THREE_LINES] * 3
        assert not Subscription.objects.filter(parked_at__isnull=False).exists()
        assert Invoice.objects.values("tenant").annotate(count=Count("pk")).filter(count__gt=2).count() == 0
