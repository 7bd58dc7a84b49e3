"""Moves the end of a trial: extends it, or ends it early, so that what its version says of its end comes at once."""

from datetime import datetime

from django.db import transaction

from billing_site.database import run_with_retries
from invoices.services.changing import bring_up
from invoices.services.invoicing import lock_subscription
from invoices.services.opening import open_due
from metering.services import ledger
from subscriptions.models import Subscription
from subscriptions.selectors.tenants import refuse_parked
from subscriptions.services import agreement, audit


def move_trial_end(
    *, subscription_id: int, ends_at: datetime | None, now: datetime, actor: str, reason: str = ""
) -> Subscription:
    """
    Let the running trial of a subscription end at another instant; None: now.

    Its allowance, its closing and the boundaries that are counted from its end move with it. Where it ends now, what follows has begun when
    this returns. Raises NoTrial, SubscriptionEnded and TenantParked (409), EndsInThePast and TrialTooLong (422).
    """
    return run_with_retries(lambda: _move(subscription_id, ends_at or now, now, actor, reason))


@transaction.atomic
def _move(subscription_id: int, ends_at: datetime, now: datetime, actor: str, reason: str) -> Subscription:
    subscription = lock_subscription(subscription_id)
    refuse_parked(subscription.tenant)
    bring_up(subscription, now=now)
    before = {"trial_ends_at": subscription.trial_ends_at}
    period = agreement.move_trial_end(subscription=subscription, ends_at=ends_at, now=now)
    ledger.cut_balances(period=period, now=now)
    if ends_at == now:
        # In the first instant of a trial its end is a moment later: no period is empty.
        open_due(subscriptions=[subscription], now=period.ends_at)
    after = {"trial_ends_at": period.ends_at}
    audit.record(actor=actor, action="move_trial_end", instance=subscription, before=before, after=after, reason=reason)
    return subscription
