"""
The whole product, killed in many places while a trace is replayed into it and billed: the figures are those of a quiet day.

Locks that the test holds make sure that each process dies in the middle of its work, not before or after it.
"""

import csv
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from django.db.models import F
from django_redis import get_redis_connection

from billing_site import doorbell
from billing_site.launcher import BASE_DIR
from examples.replay_trace import EVENT_TYPE, TENANT
from invoices.models import Invoice
from metering.models import MeterBalance, OverageCharge, UsageEvent
from subscriptions.models import BillingPeriod, Tenant
from tests.faults.canonical_books import canonical_books
from tests.faults.installation import Installation, held, until
from tests.world import at, make_world

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = 6000

BALANCE = """
SELECT b.id FROM metering_meterbalance b JOIN subscriptions_tenant t ON t.id = b.tenant_id WHERE t.code = %s FOR UPDATE OF b
"""
NUMBERS = "SELECT series FROM invoices_numbersequence WHERE series = 'TEST' FOR UPDATE"


@dataclass(frozen=True)
class Trace:
    """A file of requests to an LLM, and the tokens in it."""

    file: Path
    tokens: int

    @classmethod
    def write(cls, file: Path, *, rows: int, seed: int) -> "Trace":
        """Write a trace of an hour in the form of the Azure LLM inference trace of 2023."""
        generator = random.Random(seed)
        at, tokens = datetime(2023, 11, 16, 18, 17, 3), 0
        with file.open("w", newline="") as output:
            writer = csv.writer(output)
            writer.writerow(["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
            for _ in range(rows):
                at += timedelta(microseconds=generator.randrange(3_000_000))
                given, generated = generator.randint(3, 7437), generator.randint(6, 1899)
                tokens += given + generated
                writer.writerow([f"{at:%Y-%m-%d %H:%M:%S.%f}0", given, generated])
        return cls(file, tokens)


@contextmanager
def replay(installation: Installation, trace: Trace) -> "Iterator[subprocess.Popen[str]]":
    """Run the example script."""
    url = f"http://127.0.0.1:{installation.port}"
    command = [sys.executable, "examples/replay_trace.py", str(trace.file), "--url", url, "--key", installation.key]
    with subprocess.Popen(command, cwd=BASE_DIR, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as script:
        try:
            yield script
        finally:
            script.kill()


def printed_by(script: "subprocess.Popen[str]") -> str:
    """Wait for the end of the script, which must be a good one, and return what it has printed."""
    printed, _ = script.communicate(timeout=120)
    assert script.returncode == 0, printed
    return printed


def flush_redis() -> None:
    get_redis_connection("default").flushall()


def counted() -> int:
    return sum(MeterBalance.objects.filter(tenant__code=TENANT).values_list("events", flat=True))


def test_a_trace_is_billed_to_the_cent_whatever_dies(installation, tmp_path):
    trace = Trace.write(tmp_path / "trace.csv", rows=ROWS, seed=20231116)
    installation.start("web", "worker", "beat")
    with replay(installation, trace) as script:
        kill_along_the_way(installation)
        printed_by(script)

    assert_billed(trace)
    assert installation.audit().startswith("The books are right")

    tenant = Tenant.objects.get(code=TENANT)
    before = canonical_books(tenant)
    with replay(installation, trace) as again:
        assert f"0 accepted, {ROWS * 11 // 10} duplicates" in printed_by(again)
    assert canonical_books(tenant) == before

    book_by_itself(installation)


def kill_along_the_way(installation: Installation) -> None:
    """
    Two web workers die with events in hand, and a third one before it takes the number of the period's invoice.

    Meanwhile the worker is killed and started anew, loses children of its pool before and after, and Redis is emptied twice.
    """
    until(lambda: MeterBalance.objects.filter(tenant__code=TENANT).exists(), what="the subscription")
    with held(BALANCE, TENANT) as recording:
        installation.kill_who_waits("web", recording)
        installation.kill_a_child("worker")
        flush_redis()
        before = counted()
        assert before < ROWS
    until(lambda: counted() > before, what="the next events")
    with ExitStack() as until_closed:
        with held(BALANCE, TENANT) as recording:
            installation.kill_who_waits("web", recording)
            installation.kill(installation.processes("worker")[0])
            flush_redis()
            installation.restart("worker")
            assert counted() < ROWS
            closing = until_closed.enter_context(held(NUMBERS))
        installation.kill_who_waits("web", closing)
        installation.kill_a_child("worker")
        assert counted() == ROWS
        assert Invoice.objects.filter(tenant__code=TENANT).count() == 1


def assert_billed(trace: Trace) -> None:
    """Every event once, and two invoices: the opening one, and that of the period."""
    events = UsageEvent.objects.filter(subject=TENANT, type=EVENT_TYPE)
    assert events.count() == events.values("event_id").distinct().count() == ROWS
    closed = MeterBalance.objects.get(tenant__code=TENANT, period__sequence=1)
    overage = trace.tokens - 10_000
    assert (closed.used, closed.overage, closed.events) == (trace.tokens, overage, ROWS)
    invoices = Invoice.objects.filter(tenant__code=TENANT).order_by("number")
    amount = (overage * Decimal("0.0002")).quantize(Decimal("0.01"), ROUND_HALF_UP)
    assert list(invoices.values_list("reason", "status", "number", "total")) == [
        ("opening", "open", 1, Decimal("99.00")),
        ("period", "open", 2, amount + Decimal("99.00")),
    ]
    assert [line.amount for line in invoices[1].lines.order_by("kind")] == [Decimal("99.00"), amount]


def book_by_itself(installation: Installation) -> None:
    """After all that, the scheduler and the worker still find work for which the bell's ring was lost."""
    broker = get_redis_connection("default")
    installation.stop("worker")
    event = {"id": "after", "source": "trace", "type": EVENT_TYPE, "subject": TENANT, "data": {"total_tokens": 20_000}}
    assert installation.api.call("POST", "/events", event).status == 202
    until(lambda: broker.llen("overage"), what="the ring")
    broker.flushall()
    installation.start("worker")
    booked = OverageCharge.objects.filter(tenant__code=TENANT, period__sequence=2, amount_precise=Decimal("2"))
    until(booked.exists, what="the booking of the next period's overage")


@pytest.mark.parametrize("victim", ["child", "worker"])
def test_a_closing_whose_worker_is_killed_is_finished_by_another_and_bills_once(installation, victim):
    world = make_world(now=at("2026-07-01 02:00"))
    world.use(12_345, time=at("2026-06-05 00:00"))
    installation.start("worker")
    period = BillingPeriod.objects.get(subscription=world.subscription, sequence=1)

    with held(NUMBERS) as lock:
        doorbell.ring("invoices.run_due")
        if victim == "child":
            installation.kill_who_waits("worker", lock)
        else:
            until(lock.ports_that_wait, what="the closing")
            installation.kill(installation.processes("worker")[0])
            installation.restart("worker")
        assert Invoice.objects.filter(tenant=world.tenant).count() == 1
    period.refresh_from_db()
    assert (period.closed_at, period.attempts) == (None, 1)

    # Nobody else takes it before the lease of the dead worker has run out, in minutes; the test has no time for that.
    BillingPeriod.objects.filter(pk=period.pk).update(leased_until=F("leased_until") - timedelta(hours=1))
    doorbell.ring("invoices.run_due")
    until(lambda: BillingPeriod.objects.filter(pk=period.pk, closed_at__isnull=False).exists(), what="the closing")
    invoices = Invoice.objects.filter(tenant=world.tenant).order_by("number")
    assert list(invoices.values_list("number", "reason", "total")) == [
        (1, "opening", Decimal("99.00")),
        (2, "period", Decimal("99.47")),
    ]
    assert installation.audit().startswith("The books are right")
