"""The books of some tenants as plain values, so that two runs of the same story can be compared."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from django.db.models import Count, Min, Model, QuerySet, Sum

from invoices.models import ClockEntry, Invoice, InvoiceLine, TenantCreditEntry
from metering.models import (
    Authorization,
    CreditGrant,
    EventCount,
    EventKey,
    LatestReading,
    LedgerEntry,
    MeterBalance,
    OverageCharge,
    SeenValue,
    SegmentTotal,
    ThresholdCrossing,
    UsageEvent,
    WindowBucket,
)
from subscriptions.models import BillingPeriod, FeeItem, OutboxMessage, Subscription, Tenant

Books = dict[str, Counter[tuple[Any, ...]]]

_BALANCE = ("period__sequence", "meter__code", "pool")
_OF_BALANCE = tuple(f"balance__{name}" for name in _BALANCE)


def canonical_books(*tenants: Tenant) -> Books:
    """
    Return what is stored of the tenants: usage, ledger, charges, invoices, what is due when, and the journal of their clocks.

    Tenants go by their place among the arguments, and invoices' numbers count from the first of these tenants; there are no row ids
    and no wall times. Ledger entries are summed, because how usage falls into postings is no business of the books.
    """
    first_number = Invoice.objects.filter(tenant__in=tenants).aggregate(first=Min("number"))["first"] or 1
    books: Books = {}
    for place, tenant in enumerate(tenants):
        for name, rows in _tables(tenant, first_number).items():
            books.setdefault(name, Counter()).update((place, *row) for row in rows)
    return books


def _tables(tenant: Tenant, first_number: int) -> dict[str, Sequence[tuple[Any, ...]]]:
    own = {"tenant": tenant}
    events = UsageEvent.objects.filter(subject=tenant.code)
    ids = events.values("id")
    invoices = Invoice.objects.filter(**own)
    return {
        "events": _rows(events, "source", "event_id", "type", "occurred_at", "data", "unmatched_code"),
        "keys": _rows(EventKey.objects.filter(subject=tenant.code), "digest", "fingerprint"),
        "counts": _rows(EventCount.objects.filter(event_id__in=ids), "kind", "dimension_key", "quantity", "clamped"),
        "balances": _rows(
            MeterBalance.objects.filter(**own),
            *(*(name for name in _BALANCE), "used", "covered", "held", "held_amount", "events", "newest_segment_at"),
            *("booked_overage", "booked_at", "closed_at", "due_at", "parked_at"),
        ),
        "holds": _rows(
            Authorization.objects.filter(**own),
            *("key", "quantity", "overage_quantity", "amount_precise", "decision", "status", "freed_by"),
            *("settled_quantity", "authorized_at", "expires_at", "due_at"),
        ),
        "journal": _rows(ClockEntry.objects.filter(**own), "at", "what"),
        "windows": _rows(WindowBucket.objects.filter(**own), "pool", "window_seconds", "bucket_at", "quantity"),
        "ledger": list(
            LedgerEntry.objects.filter(**own)
            .values_list(*_OF_BALANCE, "kind", "segment_at", "dimension_key", "grant__kind")
            .annotate(Sum("quantity"), Sum("events"))
            .order_by()
        ),
        "segments": _rows(
            SegmentTotal.objects.filter(balance__tenant=tenant),
            *(*_OF_BALANCE, "segment_at", "dimension_key", "quantity", "events", "clamped"),
        ),
        "standing": _rows(
            LatestReading.objects.filter(balance__tenant=tenant),
            *(*_OF_BALANCE, "dimension_key", "occurred_at", "source", "event_id"),
        ),
        "seen": _rows(SeenValue.objects.filter(balance__tenant=tenant), *_OF_BALANCE, "digest", "events"),
        "grants": _rows(
            CreditGrant.objects.filter(**own),
            *_OF_BALANCE,
            "kind",
            "quantity",
            "burned",
            "expired",
            "voided",
            "rolled_over",
        ),
        "charges": _rows(
            OverageCharge.objects.filter(**own),
            *("period__sequence", "kind", "sequence", "quantity", "amount_precise", "amount_numerator"),
            *("amount_denominator", "currency", "booked_to", "booked_at"),
        ),
        "periods": _rows(
            BillingPeriod.objects.filter(**own), "sequence", "kind", "starts_at", "ends_at", "closed_at", "due_at"
        ),
        "subscriptions": _rows(Subscription.objects.filter(**own), "starts_at", "ends_at", "due_at"),
        "fees": _rows(FeeItem.objects.filter(**own), "period__sequence", "kind", "amount", "billable_at"),
        "invoices": [
            (*row, number if number is None else number - first_number)
            for *row, number in _rows(
                invoices,
                *("reason", "sequence", "status", "series", "subtotal", "total", "credit_applied", "amount_due"),
                *("drafted_at", "finalized_at", "number"),
            )
        ],
        "lines": list(
            InvoiceLine.objects.filter(invoice__in=invoices)
            .values_list("invoice__reason", "number", "kind", "description", "quantity", "amount", "amount_precise")
            .annotate(Count("sources"))
            .order_by()
        ),
        "credit": _rows(TenantCreditEntry.objects.filter(**own), "currency", "kind", "amount"),
        "crossings": _rows(
            ThresholdCrossing.objects.filter(**own),
            *(
                "meter__code",
                "pool",
                "period__sequence",
                "threshold",
                "once",
                "cause",
                "line",
                "value",
                "crossed_at",
                "rearmed_at",
            ),
        ),
        "outbox": _rows(OutboxMessage.objects.filter(**own), "type"),
    }


def _rows(rows: QuerySet[Model], *fields: str) -> list[tuple[Any, ...]]:
    """Return the rows as tuples that can be counted."""
    return [tuple(_plain(value) for value in row) for row in rows.order_by().values_list(*fields)]


def _plain(value: Any) -> Any:
    return repr(value) if isinstance(value, dict | list) else bytes(value) if isinstance(value, memoryview) else value
