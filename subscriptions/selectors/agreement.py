"""Which subscription, period and versions are in force at an instant."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from subscriptions.models import BillingPeriod, Subscription, Tenant


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """That a version is in force in `[starts_at, ends_at)` of a period."""

    version_id: int
    starts_at: datetime
    ends_at: datetime


def running_subscription(tenant: Tenant, *, at: datetime) -> Subscription | None:
    """Return the subscription that runs at the instant, its version and tier loaded; there is at most one."""
    open_ended_or_later = Q(ends_at__isnull=True) | Q(ends_at__gt=at)
    running = Subscription.objects.select_related("version__tier", "tenant").filter(tenant=tenant, starts_at__lte=at)
    return running.filter(open_ended_or_later).first()


def period_at(tenant: Tenant, *, at: datetime) -> BillingPeriod | None:
    """Return the stored period in which the instant lies, closed or not; None before it is opened, and where none will be."""
    periods = BillingPeriod.objects.select_related("subscription", "version")
    return periods.filter(tenant=tenant, starts_at__lte=at, ends_at__gt=at).first()


def version_spans(period: BillingPeriod) -> list[VersionSpan]:
    """
    Return the versions in force in the period, in time order; they tile it.

    A change at the period's first instant leaves the earlier version no time, and so no span.
    """
    changes = sorted(period.changes.all(), key=lambda change: change.effective_at)
    versions = [period.version_id, *(change.to_version_id for change in changes)]
    bounds = [period.starts_at, *(change.effective_at for change in changes), period.ends_at]
    spans = zip(versions, bounds, bounds[1:], strict=False)
    return [
        VersionSpan(version_id, starts_at, ends_at) for version_id, starts_at, ends_at in spans if starts_at < ends_at
    ]
