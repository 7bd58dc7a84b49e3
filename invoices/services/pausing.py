"""
Pauses subscriptions, and takes up again what is paused or has ended.

A pause ends the running period at its instant, as a cancellation does; until a new run begins there is no period, so that events are
`unmatched` and the gate denies. The agreement's rows are written by `subscriptions`, the balances by `metering`; what is billed, here.
"""

from collections.abc import Callable
from datetime import datetime

from django.db import transaction

from billing_site.database import run_with_retries
from invoices.services.changing import bring_up
from invoices.services.invoicing import lock_subscription
from invoices.services.opening import open_due
from metering.services import ledger
from subscriptions.models import Subscription
from subscriptions.selectors.tenants import refuse_parked
from subscriptions.services import agreement
from subscriptions.services.announcing import announce


def pause_subscription(
    *, subscription_id: int, credit: str, now: datetime, actor: str, reason: str = ""
) -> Subscription:
    """
    Pause a subscription: its period ends now, its usage is billed when that closes, and no other follows until it is resumed.

    `credit` is "unused" (gives back the unused part of the running fee; on day grain today counts as used) or "none". Changes that were
    to come are dropped. Raises SubscriptionPaused, SubscriptionEnded and SubscriptionNotStarted (409).
    """
    return run_with_retries(lambda: _pause(subscription_id, credit=credit, now=now, actor=actor, reason=reason))


def resume_subscription(*, subscription_id: int, now: datetime, actor: str, reason: str = "") -> Subscription:
    """
    Let a paused subscription run again: a period begins now, from which boundaries are counted, and its first fee is billed at once.

    Raises SubscriptionNotPaused, SubscriptionEnded and TenantParked (409).
    """
    return run_with_retries(
        lambda: _take_up(subscription_id, agreement.resume, "resume", "resumed", now, actor, reason)
    )


def reactivate_subscription(*, subscription_id: int, now: datetime, actor: str, reason: str = "") -> Subscription:
    """
    Take up a subscription that has ended, on the version that it had: a period begins now, as after a pause.

    Raises SubscriptionNotEnded, ReactivationTooLate (after `agreement.REACTIVATION_DAYS`), AlreadySubscribed and TenantParked (409).
    """
    return run_with_retries(
        lambda: _take_up(subscription_id, agreement.reactivate, "reactivate", "reactivated", now, actor, reason)
    )


@transaction.atomic
def _pause(subscription_id: int, *, credit: str, now: datetime, actor: str, reason: str) -> Subscription:
    subscription = lock_subscription(subscription_id)
    bring_up(subscription, now=now)
    period = subscription.periods.select_for_update(no_key=True, of=("self",)).order_by("-sequence").first()
    agreement.pause(subscription=subscription, at=agreement.instant_of(subscription, now=now), credit=credit)
    assert period is not None  # else it has not started, which was refused
    period.refresh_from_db()
    ledger.cut_balances(period=period, now=now)
    announce(
        subscription,
        action="pause",
        type="subscription.paused",
        actor=actor,
        before={"paused_at": None},
        after={"paused_at": subscription.paused_at, "credit": credit},
        reason=reason,
    )
    return subscription


@transaction.atomic
def _take_up(
    subscription_id: int,
    begin_run: Callable[..., None],
    action: str,
    what: str,
    now: datetime,
    actor: str,
    reason: str,
) -> Subscription:
    subscription = lock_subscription(subscription_id)
    refuse_parked(subscription.tenant)
    bring_up(subscription, now=now)
    before = {"paused_at": subscription.paused_at, "ends_at": subscription.ends_at}
    begin_run(subscription=subscription, at=now)
    # A moment later than now, where the run before ended at the instant at which it began.
    open_due(subscriptions=[subscription], now=max(now, subscription.run_starts_at))
    announce(
        subscription,
        action=action,
        type=f"subscription.{what}",
        actor=actor,
        before=before,
        after={"starts_at": subscription.run_starts_at},
        reason=reason,
    )
    return subscription
