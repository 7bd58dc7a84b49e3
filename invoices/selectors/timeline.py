"""What a test clock's page tells: who lives in its time, what was run there, and the rows that this names."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from django.apps import apps

from billing_site.database import among
from invoices.models import ClockEntry, Invoice
from subscriptions.models import Subscription, Tenant, TestClock

# By model: what is told of a row besides its tenant.
_PARTS = {
    "metering.authorization": ("balance__meter",),
    "metering.grantschedule": ("meter",),
    "metering.meterbalance": ("meter",),
}

# A row by its model ("subscriptions.billingperiod") and its id as text.
RowName = tuple[str, str]


def entries(clock: TestClock, *, before: int | None, limit: int) -> list[ClockEntry]:
    """Return what was run in the clock's time, the newest first; of what was run before that entry where one is named."""
    rows = ClockEntry.objects.filter(clock=clock).order_by("-pk")
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return list(rows[:limit])


def rows_named(names: Iterable[RowName]) -> dict[RowName, Any]:
    """Return the rows of these names with their tenants, in one query for each model that is named."""
    ids: dict[str, set[str]] = defaultdict(set)
    for row_type, row_id in names:
        ids[row_type].add(row_id)
    found: dict[RowName, Any] = {}
    for row_type, wanted in ids.items():
        rows = apps.get_model(row_type)._base_manager.select_related("tenant", *_PARTS.get(row_type, ()))
        found |= {(row_type, str(row.pk)): row for row in rows.filter(pk__in=wanted)}
    return found


def invoices_of_periods(period_ids: Collection[int]) -> dict[int, list[Invoice]]:
    """Return the numbered invoices of these periods, by period, the oldest first."""
    by_period: dict[int, list[Invoice]] = defaultdict(list)
    rows = Invoice.objects.filter(among("period_id", period_ids), number__isnull=False)
    for invoice in rows.order_by("pk"):
        if invoice.period_id is not None:
            by_period[invoice.period_id].append(invoice)
    return by_period


def residents(clock: TestClock, *, limit: int) -> list[tuple[Tenant, Subscription | None]]:
    """
    Return the tenants that live in the clock's time, by code, each with its subscription.

    That is the newest one that has begun; the first that will, where none has; none where there is none.
    """
    tenants = list(Tenant.objects.filter(test_clock=clock).order_by("code")[:limit])
    chosen: dict[int, Subscription] = {}
    rows = Subscription.objects.filter(among("tenant_id", (tenant.pk for tenant in tenants)))
    for subscription in rows.select_related("version__tier").order_by("starts_at"):
        if subscription.starts_at <= clock.now or subscription.tenant_id not in chosen:
            chosen[subscription.tenant_id] = subscription
    return [(tenant, chosen.get(tenant.pk)) for tenant in tenants]
