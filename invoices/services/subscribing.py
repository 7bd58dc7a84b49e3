"""
Starts and cancels subscriptions. The agreement's rows are written by `subscriptions`, the balances by `metering`; what is billed, here.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import F

from billing_site.database import run_with_retries
from invoices.models import Invoice
from invoices.services.invoicing import Wanted, draft_all, finalize_all, lock_subscription
from metering.services import ledger
from metering.services.opening import open_periods
from subscriptions.models import BillingPeriod, FeeItem, Subscription, Tenant, TierVersion
from subscriptions.services import agreement, audit, periods
from subscriptions.services.audit import ACTOR_SYSTEM

NOW, PERIOD_END = "now", "period_end"


def start_subscription(
    *,
    tenant: Tenant,
    version: TierVersion,
    starts_at: datetime,
    anchor_at: datetime,
    now: datetime,
    actor: str,
) -> Subscription:
    """
    Start a subscription; when `starts_at` has come, open its periods and finalise the opening invoice at once.

    All in one transaction: a subscription that has begun is never without its first period. A later start is carried out when it falls
    due. A start in the past opens every period since, and their closings fall due. Raises what `agreement.start` raises: AlreadySubscribed
    and VersionNotPublished (409), CurrencyMismatch and StartsTooEarly (422).
    """
    with transaction.atomic():
        subscription = agreement.start(
            tenant=tenant, version=version, starts_at=starts_at, anchor_at=anchor_at, now=now
        )
        after = {
            "tenant": tenant.code,
            "tier": version.tier.code,
            "version": version.number,
            "starts_at": starts_at,
            "anchor_at": anchor_at,
        }
        audit.record(actor=actor, action="start", instance=subscription, after=after)
        if starts_at <= now:
            open_due(subscriptions=[lock_subscription(subscription.pk)], now=now)
        subscription.refresh_from_db()
        return subscription


def cancel_subscription(
    *, subscription_id: int, when: str, credit: str, now: datetime, actor: str, reason: str = ""
) -> Subscription:
    """
    End a subscription now, or at the end of its running period.

    `when` is "now" or "period_end"; `credit` "unused" (gives back the unused part of the running fee) or "none". The final invoice comes
    when the last period closes, after its grace. An end may be brought forward, never put off. Raises SubscriptionNotStarted and
    SubscriptionEnded (409).
    """
    return run_with_retries(
        lambda: _cancel(subscription_id, when=when, credit=credit, now=now, actor=actor, reason=reason)
    )


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
    """Return, by subscription id, the first periods that are open and whose fee in advance no line ever billed."""
    never_billed = FeeItem.objects.filter(
        subscription__in=subscriptions,
        period__sequence=1,
        kind=FeeItem.Kind.FEE,
        billable_at=F("period__starts_at"),
        billed_by__isnull=True,
    )
    return {item.subscription_id: item.period for item in never_billed.select_related("period")}


@transaction.atomic
def _cancel(subscription_id: int, *, when: str, credit: str, now: datetime, actor: str, reason: str) -> Subscription:
    subscription = lock_subscription(subscription_id)
    before = {"ends_at": subscription.ends_at}
    open_due(subscriptions=[subscription], now=now)
    newest = subscription.periods.select_for_update(no_key=True, of=("self",)).order_by("-sequence").first()
    ends_at = newest.ends_at if when == PERIOD_END and newest is not None and newest.ends_at > now else now
    agreement.end(subscription=subscription, ends_at=ends_at, credit=credit, now=now)
    if newest is not None:
        newest.refresh_from_db()
        # Its allowances end with it; where it was not cut this only raises the epochs.
        ledger.cut_balances(period=newest, now=now)
    after = {"ends_at": subscription.ends_at, "when": when, "credit": credit}
    audit.record(actor=actor, action="cancel", instance=subscription, before=before, after=after, reason=reason)
    return subscription
