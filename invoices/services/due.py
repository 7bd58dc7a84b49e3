"""
Runs what is due: opening, booking, closing and the look for late usage, the longest due first.

Beat's sweep and a test clock's advance are this same function, so that a test clock proves the real schedule. There is no job table: the
work is a row with a due time, claimed by a lease. A try is counted before it starts; a row whose tries are used up is parked with its
reason and waits for a person, while the others go on.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from billing_site.database import claim, run_with_retries
from invoices.services.closing import bill_late_usage, book_balance, close_period
from invoices.services.invoicing import lock_subscription
from invoices.services.subscribing import open_due
from metering.models import MeterBalance
from subscriptions.models import BillingPeriod, Subscription, TestClock
from subscriptions.services import clocks

logger = logging.getLogger(__name__)

TRIES_MAX = 5
# How long a worker may take over one row; a worker that died is followed by another after this.
LEASE = timedelta(minutes=5)
# 30 s, 2 min, 8 min, 32 min: a row is parked after three quarters of an hour of failing.
BACK_OFF = timedelta(seconds=30)
BACK_OFF_FACTOR = 4
REASON_LENGTH_MAX = 1000

PARKED = "parked"


class StillDue(Exception):
    """Work was done and has left its row due at the same time: doing it again would never end."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """That something due was run: when in the tenant's time, what, and on which row. `parked` where its tries were used up."""

    at: datetime
    what: str
    object: str


@dataclass(frozen=True, slots=True)
class DueWork:
    """One kind of due work: the rows that can owe it, how it is done, and how its rows are named in the journal."""

    what: str
    rows: Callable[[], QuerySet[Any]]
    run: Callable[[int, datetime], object]
    name: Callable[[Any], str]


def _open(subscription_id: int, now: datetime) -> None:
    open_due(subscription=lock_subscription(subscription_id), now=now)


def _book(balance_id: int, now: datetime) -> None:
    book_balance(balance_id=balance_id, now=now)


def _close(period_id: int, now: datetime) -> None:
    close_period(period_id=period_id, now=now)


def _look(period_id: int, now: datetime) -> None:
    bill_late_usage(period_id=period_id, now=now)


KINDS = (
    DueWork(
        "open_period",
        lambda: Subscription.objects.all(),
        _open,
        lambda row: f"subscription {row.public_id}",
    ),
    DueWork(
        "book_overage",
        lambda: MeterBalance.objects.select_related("meter", "tenant"),
        _book,
        lambda row: f"balance {row.tenant.code}/{row.meter.code}",
    ),
    DueWork(
        "close_period",
        lambda: BillingPeriod.objects.filter(closed_at__isnull=True),
        _close,
        lambda row: f"period {row.public_id}",
    ),
    DueWork(
        "bill_late_usage",
        lambda: BillingPeriod.objects.filter(closed_at__isnull=False),
        _look,
        lambda row: f"period {row.public_id}",
    ),
)
"""In the order in which they are run when due at the same time: a boundary opens before the period that it ends closes."""


def run_due(*, until: datetime, clock: TestClock | None = None, seconds_max: float | None = None) -> list[JournalEntry]:
    """
    Run everything due at `until` or before, in the order of due times, and return the journal of it.

    Without a clock: for all tenants that live in wall time, of which `until` is the present. With an advancing clock: for its tenants
    alone, moving the clock to each item's due time first. With a clock that stands still: what is due by its time. Each item runs in a
    transaction of its own; one that fails is tried again later (at once, while a clock advances), and parked after five tries. Stops
    after `seconds_max`, between two items.
    """
    journal: list[JournalEntry] = []
    started = monotonic()
    while seconds_max is None or monotonic() - started < seconds_max:
        found = _next_due(until, clock)
        if found is None:
            break
        journal += _run_one(*found, until=until, clock=clock)
    return journal


def sweep(*, now: datetime, seconds_max: float) -> list[JournalEntry]:
    """
    Run what is due in wall time, and what a test clock that stands still has left due (usage that arrived since).

    A clock that advances is left alone: its advance runs its items, in order. Stops after `seconds_max` altogether.
    """
    ends = monotonic() + seconds_max
    journal = run_due(until=now, seconds_max=seconds_max)
    for clock in _clocks_with_due_work():
        journal += run_due(until=clock.now, clock=clock, seconds_max=ends - monotonic())
    return journal


def release_parked(row: Subscription | MeterBalance | BillingPeriod) -> None:
    """Give a parked row all of its tries again. The caller records who asked for it."""
    type(row)._base_manager.filter(pk=row.pk).update(parked_at=None, parked_reason="", attempts=0, leased_until=None)


def _next_due(until: datetime, clock: TestClock | None) -> tuple[DueWork, int, datetime] | None:
    """Return the longest due item that nobody holds; an advancing clock waits for whoever holds its items."""
    free = Q() if _is_advancing(clock) else Q(leased_until__isnull=True) | Q(leased_until__lte=Now())
    candidates = []
    for rank, kind in enumerate(KINDS):
        due = kind.rows().filter(free, tenant__test_clock=clock, due_at__lte=until, parked_at__isnull=True)
        first = due.order_by("due_at", "pk").values_list("due_at", "pk").first()
        if first is not None:
            candidates.append((first[0], rank, first[1]))
    if not candidates:
        return None
    due_at, rank, pk = min(candidates)
    return KINDS[rank], pk, due_at


def _run_one(
    kind: DueWork, pk: int, due_at: datetime, *, until: datetime, clock: TestClock | None
) -> list[JournalEntry]:
    advances = _is_advancing(clock)
    row = _take(kind, pk, due_at) if advances else _claim(kind, pk, until)
    if row is None:
        return []  # another worker was faster
    now = clocks.move(clock_id=clock.pk, now=due_at).now if advances and clock is not None else until
    try:
        run_with_retries(lambda: _run_and_settle(kind, row, now))
    except Exception as error:
        logger.exception("%s of %s failed, try %d", kind.what, kind.name(row), row.attempts)
        if _note_failure(row, error, waits=not advances):
            return [JournalEntry(now, PARKED, kind.name(row))]
        return []
    return [JournalEntry(now, kind.what, kind.name(row))]


def _claim(kind: DueWork, pk: int, now: datetime) -> Any:
    rows = claim(kind.rows().filter(pk=pk), lease_seconds=LEASE.total_seconds(), limit=1, now=now)
    return rows[0] if rows else None


def _take(kind: DueWork, pk: int, due_at: datetime) -> Any:
    """
    Take an advancing clock's item, whoever has leased it: waiting a lease out would hold up the clock.

    A worker that is at it holds the row's lock, which the update waits for; what it has done is then not due any more.
    """
    taken = kind.rows().filter(pk=pk, due_at=due_at, parked_at__isnull=True)
    manager = taken.model._base_manager
    with transaction.atomic():
        updated = manager.filter(pk=pk, due_at=due_at).update(attempts=F("attempts") + 1, leased_until=Now() + LEASE)
    return taken.first() if updated else None


def _run_and_settle(kind: DueWork, row: Any, now: datetime) -> None:
    """Do the work, and in the same transaction clear what was counted against the row."""
    with transaction.atomic():
        kind.run(row.pk, now)
        if kind.rows().filter(pk=row.pk, due_at=row.due_at).exists():
            raise StillDue(f"{kind.name(row)} is due at {row.due_at} still, after its work was done.")
        type(row)._base_manager.filter(pk=row.pk).update(attempts=0, leased_until=None)


def _note_failure(row: Any, error: Exception, *, waits: bool) -> bool:
    """
    Let a failed row wait before its next try, or park it with the reason when its tries are used up; whether it was parked.

    The wait is the lease: until it ends nobody takes the row. A clock that advances does not wait between tries.
    """
    rows = type(row)._base_manager.filter(pk=row.pk)
    if row.attempts >= TRIES_MAX:
        reason = f"{type(error).__name__}: {error}"[:REASON_LENGTH_MAX]
        rows.update(parked_at=Now(), parked_reason=reason, leased_until=None)
        return True
    pause = BACK_OFF * BACK_OFF_FACTOR ** (row.attempts - 1) if waits else timedelta(0)
    rows.update(leased_until=Now() + pause)
    return False


def _is_advancing(clock: TestClock | None) -> bool:
    return clock is not None and clock.status == TestClock.Status.ADVANCING


def _clocks_with_due_work() -> list[TestClock]:
    """Return the clocks that stand still and have something due by their time."""
    ids: set[int] = set()
    for kind in KINDS:
        due = kind.rows().filter(
            tenant__test_clock__status=TestClock.Status.READY,
            due_at__lte=F("tenant__test_clock__now"),
            parked_at__isnull=True,
        )
        ids.update(due.values_list("tenant__test_clock_id", flat=True).distinct())
    return list(TestClock.objects.filter(pk__in=ids).order_by("pk"))
