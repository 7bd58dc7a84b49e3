"""How much due work waits, and since when: figures for whoever watches the site."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Min, Q, QuerySet

from metering.models import Authorization, GrantSchedule, MeterBalance, ThresholdWatch
from metering.selectors.events import unmatched_events
from subscriptions.models import BillingPeriod, ScheduledChange, Subscription

# Counting more of them would read the table for a number that says the same: too many.
UNMATCHED_COUNTED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Backlog:
    """One kind of due work: rows that are due in wall time, since when the oldest is, and rows that wait for staff."""

    work: str
    due: int
    oldest_due_at: datetime | None
    parked: int


def backlogs(*, now: datetime) -> list[Backlog]:
    """Return the backlog of each kind of due work at `now`, wall time; tenants on test clocks and parked tenants owe nothing."""
    work: dict[str, QuerySet[Any]] = {
        "open_period": Subscription.objects.all(),
        "change_tier": ScheduledChange.objects.all(),
        "book_overage": MeterBalance.objects.all(),
        "close_period": BillingPeriod.objects.filter(closed_at__isnull=True),
        "bill_late_usage": BillingPeriod.objects.filter(closed_at__isnull=False),
        "make_grants": GrantSchedule.objects.all(),
        "look_at_thresholds": ThresholdWatch.objects.all(),
        "expire_hold": Authorization.objects.all(),
    }
    return [_backlog(name, rows, now) for name, rows in work.items()]


def count_unmatched() -> int:
    """Return how many events wait for a replay, at most UNMATCHED_COUNTED_MAX."""
    return unmatched_events()[:UNMATCHED_COUNTED_MAX].count()


def _backlog(name: str, rows: QuerySet[Any], now: datetime) -> Backlog:
    is_due = Q(due_at__lte=now, parked_at__isnull=True, tenant__test_clock__isnull=True, tenant__parked_at__isnull=True)
    found = rows.filter(is_due).aggregate(due=Count("pk"), oldest=Min("due_at"))
    return Backlog(name, found["due"], found["oldest"], rows.filter(parked_at__isnull=False).count())
