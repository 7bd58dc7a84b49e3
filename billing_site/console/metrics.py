"""
What a monitoring system asks: do the books balance, and how much work waits?

All figures are PostgreSQL's, so that any process may be asked and all say the same. They name no tenant and no amount.
"""

from collections.abc import Iterator
from functools import lru_cache
from time import monotonic

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from invoices.models import AuditRun
from invoices.selectors.backlog import backlogs, count_unmatched
from invoices.selectors.books import INVARIANTS
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.tenants import parked_tenants

# Whoever asks more often gets the same figures: asking costs the database nothing then.
SECONDS_KEPT = 5


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with the figures in the text form of Prometheus; 503 when the database does not answer."""
    try:
        text = figures(int(monotonic() / SECONDS_KEPT))
    except DatabaseError:
        return HttpResponse(status=503, headers={"Retry-After": "2"})
    return HttpResponse(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)


@lru_cache(maxsize=1)
def figures(moment: int) -> bytes:
    """Return the figures as text, read once for each `moment`."""
    registry = CollectorRegistry()
    registry.register(_Figures())
    return generate_latest(registry)


class _Figures:
    """Reads every figure anew; the registry calls it."""

    def collect(self) -> Iterator[Metric]:
        """Yield each figure with what it means."""
        yield from _audit()
        yield from _work()
        yield _gauge(
            "tierbook_tenants_parked", "Tenants not charged, as their books do not balance", parked_tenants().count()
        )
        yield _gauge("tierbook_unmatched_events", "Events that wait for a replay, at most 10,000", count_unmatched())


def _audit() -> Iterator[Metric]:
    run = AuditRun.objects.order_by("-pk").first()
    if run is None:
        return
    at, seconds = run.recorded_at.timestamp(), run.milliseconds / 1000
    yield _gauge("tierbook_audit_timestamp_seconds", "When the last audit of the books was done", at)
    yield _gauge("tierbook_audit_duration_seconds", "How long the last audit took", seconds)
    broken = GaugeMetricFamily(
        "tierbook_audit_broken_rows", "Rows that break an invariant of the books", labels=["invariant"]
    )
    for invariant in INVARIANTS:
        broken.add_metric([invariant.name], run.broken.get(invariant.name, 0))
    yield broken


def _work() -> Iterator[Metric]:
    now = wall_now()
    due = GaugeMetricFamily("tierbook_due_rows", "Rows of work that is due now", labels=["work"])
    lag = GaugeMetricFamily("tierbook_due_lag_seconds", "How long the oldest work has been due", labels=["work"])
    parked = GaugeMetricFamily("tierbook_parked_rows", "Rows of work that wait for staff", labels=["work"])
    for backlog in backlogs(now=now):
        oldest = backlog.oldest_due_at
        due.add_metric([backlog.work], backlog.due)
        lag.add_metric([backlog.work], 0 if oldest is None else (now - oldest).total_seconds())
        parked.add_metric([backlog.work], backlog.parked)
    yield from (due, lag, parked)


def _gauge(name: str, says: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, says, value=value)
