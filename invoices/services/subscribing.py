"""
Starts and cancels subscriptions. The agreement's rows are written by `subscriptions`, the balances by `metering`; what is billed, here.
"""

from datetime import datetime

from django.db import transaction

from billing_site.database import run_with_retries
from invoices.services.changing import bring_up
from invoices.services.invoicing import lock_subscription
from invoices.services.opening import open_due
from metering.services import ledger
from subscriptions.models import Subscription, Tenant, TierVersion
from subscriptions.services import agreement, audit
from subscriptions.services.announcing import announce

NOW, PERIOD_END = "now", "period_end"


def start_subscription(
    *,
    tenant: Tenant,
    version: TierVersion,
    starts_at: datetime,
    anchor_at: datetime | None,
    now: datetime,
    actor: str,
    trial_days: int | None = None,
) -> Subscription:
    """
    Start a subscription; when `starts_at` has come, open its periods and finalise the opening invoice at once.

    All in one transaction: a subscription that has begun is never without its first period. A later start is carried out when it falls
    due. A start in the past opens every period since, and their closings fall due. `trial_days` and `anchor_at` are as `agreement.start`
    reads them; it raises AlreadySubscribed, VersionNotPublished and TrialUsed (409), CurrencyMismatch and StartsTooEarly (422).
    """
    with transaction.atomic():
        subscription = agreement.start(
            tenant=tenant, version=version, starts_at=starts_at, anchor_at=anchor_at, now=now, trial_days=trial_days
        )
        after = {
            "tenant": tenant.code,
            "tier": version.tier.code,
            "version": version.number,
            "starts_at": starts_at,
            "anchor_at": anchor_at,
            "trial_ends_at": subscription.trial_ends_at,
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


@transaction.atomic
def _cancel(subscription_id: int, *, when: str, credit: str, now: datetime, actor: str, reason: str) -> Subscription:
    subscription = lock_subscription(subscription_id)
    before = {"ends_at": subscription.ends_at}
    bring_up(subscription, now=now)
    newest = subscription.periods.select_for_update(no_key=True, of=("self",)).order_by("-sequence").first()
    ends_at = agreement.instant_of(subscription, now=now)
    if when == PERIOD_END and newest is not None:
        ends_at = max(newest.ends_at, now)
    agreement.end(subscription=subscription, ends_at=ends_at, credit=credit, now=now)
    if newest is not None:
        newest.refresh_from_db()
        # Its allowances end with it; where it was not cut this only raises the epochs.
        ledger.cut_balances(period=newest, now=now)
    announce(
        subscription,
        action="cancel",
        type="subscription.cancelled",
        actor=actor,
        before=before,
        after={"ends_at": subscription.ends_at, "when": when, "credit": credit},
        reason=reason,
    )
    return subscription
