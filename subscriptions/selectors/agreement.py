"""Which subscription, period and versions are in force at an instant."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from billing_site.database import among
from subscriptions.models import BillingPeriod, Subscription, Tenant, TierChange


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """That the terms of a version are in force in `[starts_at, ends_at)` of a period; which terms, `terms_id` says."""

    terms_id: int
    starts_at: datetime
    ends_at: datetime


def terms_id_in(kind: str, version_id: int) -> int:
    """
    Return the id of the terms on which a version is in force in a period of a kind.

    A trial runs on the terms that its version has for trials: they go by the version's id, negated. What reads terms by such an id is
    `metering`'s `pools_of_version`.
    """
    return -version_id if kind == BillingPeriod.Kind.TRIAL else version_id


def version_of_terms(terms_id: int) -> int:
    """Return the id of the version whose terms these are."""
    return abs(terms_id)


def running_subscription(tenant: Tenant, *, at: datetime) -> Subscription | None:
    """Return the subscription that runs at the instant, its version and tier loaded; there is at most one. What is paused does not run."""
    open_ended_or_later = Q(ends_at__isnull=True) | Q(ends_at__gt=at)
    not_paused = Q(paused_at__isnull=True) | Q(paused_at__gt=at)
    running = Subscription.objects.select_related("version__tier", "tenant").filter(tenant=tenant, starts_at__lte=at)
    return running.filter(open_ended_or_later, not_paused).first()


def period_at(tenant: Tenant, *, at: datetime) -> BillingPeriod | None:
    """Return the stored period in which the instant lies, closed or not; None before it is opened, and where none will be."""
    periods = BillingPeriod.objects.select_related("subscription", "version")
    return periods.filter(tenant=tenant, starts_at__lte=at, ends_at__gt=at).first()


def newest_periods(subscription_ids: Iterable[int]) -> dict[int, BillingPeriod]:
    """Return the newest stored period of each subscription that has one, by the subscription's id."""
    newest = BillingPeriod.objects.filter(among("subscription_id", subscription_ids))
    newest = newest.order_by("subscription_id", "-sequence").distinct("subscription_id")
    return {period.subscription_id: period for period in newest}


def version_spans(period: BillingPeriod) -> list[VersionSpan]:
    """
    Return the versions in force in the period, in time order; they tile it.

    A change at the period's first instant leaves the earlier version no time, and so no span.
    """
    changes = period.changes.order_by("effective_at", "pk")
    return _spans(period, list(changes.values_list("effective_at", "to_version_id")))


def version_spans_of(periods: Iterable[BillingPeriod]) -> dict[int, list[VersionSpan]]:
    """Return the same of several periods by their ids, with one query."""
    by_id = {period.pk: period for period in periods}
    changes: dict[int, list[tuple[datetime, int]]] = {}
    found = TierChange.objects.filter(among("period_id", by_id)).order_by("effective_at", "pk")
    for period_id, effective_at, version_id in found.values_list("period_id", "effective_at", "to_version_id"):
        changes.setdefault(period_id, []).append((effective_at, version_id))
    return {pk: _spans(period, changes.get(pk, [])) for pk, period in by_id.items()}


def _spans(period: BillingPeriod, changes: Sequence[tuple[datetime, int]]) -> list[VersionSpan]:
    """Return the spans between changes that stand in the order in which they came into force; of several at one instant the last stays."""
    terms = [terms_id_in(period.kind, version_id) for version_id in (period.version_id, *(one for _, one in changes))]
    bounds = [period.starts_at, *(min(effective_at, period.ends_at) for effective_at, _ in changes), period.ends_at]
    spans = zip(terms, bounds, bounds[1:], strict=False)
    return [VersionSpan(one, starts_at, ends_at) for one, starts_at, ends_at in spans if starts_at < ends_at]
