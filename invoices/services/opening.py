"""Opens periods that have begun, and bills the first fee in advance of each run: no closing comes before it that would."""

from collections.abc import Sequence
from datetime import datetime

from django.db.models import F

from invoices.models import Invoice
from invoices.services.invoicing import Wanted, draft_all, finalize_all
from metering.services.opening import open_periods
from subscriptions.models import BillingPeriod, FeeItem, Subscription
from subscriptions.services import periods
from subscriptions.services.audit import ACTOR_SYSTEM


def open_due(*, subscriptions: Sequence[Subscription], now: datetime) -> list[BillingPeriod]:
    """
    Open every period that has begun, and finalise the opening invoice where the first fee in advance has none; return those opened.

    The caller holds the subscriptions' locks, their tenants at hand. Idempotent: the first fee is billed here once, and after its invoice
    was voided it waits for the next one like anything else.
    """
    opened = open_periods(subscriptions, now=now)
    finalize_all(draft_openings(subscriptions=subscriptions, now=now), now=now, actor=ACTOR_SYSTEM)
    return opened


def draft_openings(*, subscriptions: Sequence[Subscription], now: datetime) -> list[Invoice]:
    """
    Draft the opening invoices that are missing of subscriptions whose periods are open; the caller finalises them.

    From here on the subscriptions are due at their next boundary.
    """
    if not subscriptions:
        return []
    first = _periods_without_opening_invoice(subscriptions)
    wanted = [Wanted(one, first[one.pk], Invoice.Reason.OPENING) for one in subscriptions if one.pk in first]
    drafts = draft_all(wanted, now=now)
    periods.opening_billed(subscriptions=subscriptions)
    return drafts


def _periods_without_opening_invoice(subscriptions: Sequence[Subscription]) -> dict[int, BillingPeriod]:
    """Return, by subscription id, the periods that begin a run, are open, and whose fee in advance no line ever billed."""
    never_billed = FeeItem.objects.filter(
        subscription__in=subscriptions,
        period__begins_run=True,
        kind=FeeItem.Kind.FEE,
        billable_at=F("period__starts_at"),
        billed_by__isnull=True,
    )
    return {item.subscription_id: item.period for item in never_billed.select_related("period")}
