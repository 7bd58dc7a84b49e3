"""
Runs what is due: opening, changes of tier, recurring grants, booking, closing, the look for late usage and the expiry of holds, the longest due first.

Beat's sweep and a test clock's advance are this same function, so that a test clock proves the real schedule. There is no job table: the
work is a row with a due time, claimed by a lease. In wall time rows are claimed and run in chunks, a transaction each, which is what makes
the first of a month short; any number of workers share them, because a claim skips what others hold. A try is counted before it starts; a
chunk that fails is run again row by row, and a row whose tries are used up is parked with its reason and waits for a person, while the
others go on.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from django.db import transaction
from django.db.models import F, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast, Now

from billing_site import doorbell
from billing_site.database import among, claim, run_with_retries
from invoices.services.changing import carry_out
from invoices.services.closing import bill_late_usage, book_balance, close_periods
from invoices.services.invoicing import lock_subscriptions
from invoices.services.journal import JournalEntry, enter
from invoices.services.opening import open_due
from metering.models import Authorization, GrantSchedule, MeterBalance, ThresholdWatch
from metering.services import watching
from metering.services.gate import expire_holds
from metering.services.grant_schedules import make_due_grants
from subscriptions.models import BillingPeriod, ScheduledChange, Subscription, TestClock
from subscriptions.models.fields import Due
from subscriptions.services import clocks

logger = logging.getLogger(__name__)

TRIES_MAX = 5
# Rows per transaction: enough that a chunk's fixed cost does not count, few enough that a number series is not held for long.
CHUNK = 500
# How long a worker may take over one row; a worker that died is followed by another after this.
LEASE = timedelta(minutes=5)
# 30 s, 2 min, 8 min, 32 min: a row is parked after three quarters of an hour of failing.
BACK_OFF = timedelta(seconds=30)
BACK_OFF_FACTOR = 4
REASON_LENGTH_MAX = 1000

PARKED = "parked"
# Neither the row, whose tries are used up, nor its tenant, whose books do not balance, waits for staff.
NOT_PARKED = Q(parked_at__isnull=True, tenant__parked_at__isnull=True)


class StillDue(Exception):
    """Work was done and has left its row due at the same time: doing it again would never end."""


class WorkerDied(Exception):
    """Every try of a row was begun, and none came to an end: it ends its worker."""


@dataclass(frozen=True, slots=True)
class DueWork:
    """
    One kind of due work: the rows that can owe it, how some of them are done, and how a row is named in the journal.

    `run` does all of the rows whose ids it gets, or raises; `chunk` is how many are given to it at a time.
    """

    what: str
    rows: Callable[[], QuerySet[Any]]
    run: Callable[[Sequence[Any], datetime], object]
    name: Callable[[Any], str]
    chunk: int = 1


@dataclass(frozen=True, slots=True)
class UpcomingItem:
    """That something will fall due: when in the tenant's time, what, and the row that owes it, by its model and its id."""

    at: datetime
    what: str
    row_type: str
    row_id: str


def _open(subscription_ids: Sequence[int], now: datetime) -> None:
    open_due(subscriptions=list(lock_subscriptions(subscription_ids).values()), now=now)


def _change(change_ids: Sequence[int], now: datetime) -> None:
    carry_out(change_ids=change_ids, now=now)


def _make_grants(schedule_ids: Sequence[int], now: datetime) -> None:
    for schedule_id in schedule_ids:
        make_due_grants(schedule_id=schedule_id, now=now)


def _book(balance_ids: Sequence[int], now: datetime) -> None:
    for balance_id in balance_ids:
        book_balance(balance_id=balance_id, now=now)


def _close(period_ids: Sequence[int], now: datetime) -> None:
    close_periods(period_ids=period_ids, now=now)


def _look(period_ids: Sequence[int], now: datetime) -> None:
    for period_id in period_ids:
        bill_late_usage(period_id=period_id, now=now)


def _look_at_thresholds(watch_ids: Sequence[int], now: datetime) -> None:
    watching.look_at_due(watch_ids=watch_ids, now=now)


def _expire(authorization_ids: Sequence[Any], now: datetime) -> None:
    expire_holds(authorization_ids=authorization_ids, now=now)


KINDS = (
    DueWork(
        "open_period",
        lambda: Subscription.objects.all(),
        _open,
        lambda row: f"subscription {row.public_id}",
        chunk=CHUNK,
    ),
    DueWork(
        "change_tier",
        lambda: ScheduledChange.objects.all(),
        _change,
        lambda row: f"change {row.public_id}",
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
        chunk=CHUNK,
    ),
    DueWork(
        "bill_late_usage",
        lambda: BillingPeriod.objects.filter(closed_at__isnull=False),
        _look,
        lambda row: f"period {row.public_id}",
    ),
    DueWork(
        "make_grants",
        lambda: GrantSchedule.objects.select_related("tenant"),
        _make_grants,
        lambda row: f"grant schedule {row.public_id}",
    ),
    DueWork(
        "look_at_thresholds",
        lambda: ThresholdWatch.objects.select_related("tenant"),
        _look_at_thresholds,
        lambda row: f"thresholds of {row.tenant.code}",
    ),
    DueWork(
        "expire_hold",
        lambda: Authorization.objects.all(),
        _expire,
        lambda row: f"authorization {row.pk}",
        chunk=CHUNK,
    ),
)
"""
In the order in which they are run when due at the same time: a boundary opens before the period that it ends closes, and credit that comes
again is there before thresholds miss it.
"""


def run_due(*, until: datetime, clock: TestClock | None = None, seconds_max: float | None = None) -> list[JournalEntry]:
    """
    Run everything due at `until` or before, the longest due first, and return the journal of it.

    Without a clock: for all tenants that live in wall time, of which `until` is the present. With an advancing clock: for its tenants
    alone, row by row in the order of due times, moving the clock to each row's due time first. With a clock that stands still: what is due
    by its time. Work of one kind is run in chunks, each in a transaction of its own; what fails is tried again later (at once, while a clock
    advances), and parked after five tries. Stops after `seconds_max`, between two chunks.
    """
    journal: list[JournalEntry] = []
    started = monotonic()
    has_called_help = False
    while seconds_max is None or monotonic() - started < seconds_max:
        found = _next_due(until, clock)
        if found is None:
            break
        kind, pk, due_at = found
        if clock is not None and _is_advancing(clock):
            journal += _advance_to(kind, pk, due_at, clock)
            continue
        rows = _claim(kind, pk, until, clock)
        if len(rows) == kind.chunk > 1 and not has_called_help:
            # There is more of it than this worker can do at once: one that is idle may share it.
            doorbell.ring("invoices.run_due")
            has_called_help = True
        journal += _run(kind, rows, until, clock)
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


def upcoming(*, clock: TestClock, limit: int) -> list[UpcomingItem]:
    """
    Return what of the clock's tenants falls due next, the earliest first, at most `limit` of it, in one statement.

    What is parked is not in it: it waits for a person. Running these may make others due before or after them.
    """
    return [
        UpcomingItem(due_at, kind.what, kind.rows().model._meta.label_lower, str(pk))
        for kind, pk, due_at in _earliest(Q(due_at__isnull=False), clock, limit=limit)
    ]


def release_parked(row: Due) -> None:
    """Give a parked row all of its tries again. The caller records who asked for it."""
    type(row)._base_manager.filter(pk=row.pk).update(parked_at=None, parked_reason="", attempts=0, leased_until=None)


def _next_due(until: datetime, clock: TestClock | None) -> tuple[DueWork, Any, datetime] | None:
    """Return the longest due item that nobody holds; an advancing clock waits for whoever holds its items."""
    free = Q() if _is_advancing(clock) else Q(leased_until__isnull=True) | Q(leased_until__lte=Now())
    return next(iter(_earliest(free & Q(due_at__lte=until), clock, limit=1)), None)


def _earliest(condition: Q, clock: TestClock | None, *, limit: int) -> list[tuple[DueWork, Any, datetime]]:
    """Return the items that fulfil the condition and are not parked, in the order in which they are run."""
    # The first of each kind, in one statement; some are named by numbers, some by UUIDs.
    firsts = [
        kind.rows()
        .filter(condition, NOT_PARKED, tenant__test_clock=clock)
        .order_by("due_at", "pk")
        .values_list("due_at", Value(rank), Cast("pk", TextField()))[:limit]
        for rank, kind in enumerate(KINDS)
    ]
    candidates = firsts[0].union(*firsts[1:], all=True)
    # As texts, the shorter of two numbers is the lower.
    in_order = sorted(candidates, key=lambda found: (found[0], found[1], len(found[2]), found[2]))
    return [(KINDS[rank], pk, due_at) for due_at, rank, pk in in_order[:limit]]


def _advance_to(kind: DueWork, pk: Any, due_at: datetime, clock: TestClock) -> list[JournalEntry]:
    row = _take(kind, pk, due_at)
    if row is None:
        return []  # a worker that was at it has done it
    return _run_one(kind, row, clocks.move(clock_id=clock.pk, now=due_at).now, clock, waits=False)


def _claim(kind: DueWork, pk: Any, now: datetime, clock: TestClock | None) -> list[Any]:
    """
    Lease a chunk of due rows; the row of this id alone where it was tried before.

    A chunk that fails is left with a try counted against each of its rows, and from then on each is alone: so one that kills its worker
    takes no other with it. Empty when other workers were faster.
    """
    rows = kind.rows().filter(NOT_PARKED, tenant__test_clock=clock)
    alone = kind.chunk == 1 or kind.rows().filter(pk=pk, attempts__gt=0).exists()
    rows = rows.filter(pk=pk) if alone else rows.filter(attempts=0)
    return claim(rows, lease_seconds=LEASE.total_seconds(), limit=kind.chunk, now=now)


def _run(kind: DueWork, rows: Sequence[Any], now: datetime, clock: TestClock | None) -> list[JournalEntry]:
    """Run claimed rows as one, or, where that fails, one by one."""
    if len(rows) > 1:
        try:
            return run_with_retries(lambda: _run_and_settle(kind, rows, now, clock))
        except Exception:
            logger.warning("%s of %d rows failed; each is tried alone", kind.what, len(rows), exc_info=True)
    return [entry for row in rows for entry in _run_one(kind, row, now, clock, waits=True)]


def _run_one(kind: DueWork, row: Any, now: datetime, clock: TestClock | None, *, waits: bool) -> list[JournalEntry]:
    try:
        if row.attempts > TRIES_MAX:
            raise WorkerDied(f"{TRIES_MAX} tries were begun, and none of them ended.")
        return run_with_retries(lambda: _run_and_settle(kind, [row], now, clock))
    except Exception as error:
        logger.exception("%s of %s failed, try %d", kind.what, kind.name(row), row.attempts)
        with transaction.atomic():
            parked = [row] if _note_failure(row, error, waits=waits) else []
            return _enter(kind, PARKED, parked, now, clock)


def _take(kind: DueWork, pk: Any, due_at: datetime) -> Any:
    """
    Take an advancing clock's item, whoever has leased it: waiting a lease out would hold up the clock.

    A worker that is at it holds the row's lock, which the update waits for; what it has done is then not due any more.
    """
    taken = kind.rows().filter(pk=pk, due_at=due_at, parked_at__isnull=True)
    manager = taken.model._base_manager
    with transaction.atomic():
        updated = manager.filter(pk=pk, due_at=due_at).update(attempts=F("attempts") + 1, leased_until=Now() + LEASE)
    return taken.first() if updated else None


def _run_and_settle(kind: DueWork, rows: Sequence[Any], now: datetime, clock: TestClock | None) -> list[JournalEntry]:
    """Do the work, and in the same transaction clear what was counted against the rows; return the journal of it."""
    with transaction.atomic():
        ids = [row.pk for row in rows]
        kind.run(ids, now)
        due_still = dict(kind.rows().filter(among("pk", ids), due_at__isnull=False).values_list("pk", "due_at"))
        for row in rows:
            if due_still.get(row.pk) == row.due_at:
                raise StillDue(f"{kind.name(row)} is due at {row.due_at} still, after its work was done.")
        counted = type(rows[0])._base_manager.filter(
            among("pk", ids), Q(attempts__gt=0) | Q(leased_until__isnull=False)
        )
        counted.update(attempts=0, leased_until=None)
        return _enter(kind, kind.what, rows, now, clock)


def _enter(kind: DueWork, what: str, rows: Sequence[Any], now: datetime, clock: TestClock | None) -> list[JournalEntry]:
    return enter(at=now, what=what, rows=rows, names=[kind.name(row) for row in rows], clock=clock)


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
            NOT_PARKED,
            tenant__test_clock__status=TestClock.Status.READY,
            due_at__lte=F("tenant__test_clock__now"),
        )
        ids.update(due.values_list("tenant__test_clock_id", flat=True).distinct())
    return list(TestClock.objects.filter(pk__in=ids).order_by("pk"))
