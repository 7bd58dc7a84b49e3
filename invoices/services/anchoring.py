"""
Moves the anchor of a subscription: the instant from which its boundaries are counted.

The running period stays as it is. The first one that follows begins where that ends, and ends at the first boundary that is counted anew; its
fee is the share of local days. Where a fee spans several periods, what is unused of it then is given back, and a new span begins.
"""

from datetime import datetime

from django.db import transaction

from billing_site.database import run_with_retries
from billing_site.http.problems import Invalid
from invoices.services.changing import bring_up, check_runs
from invoices.services.invoicing import lock_subscription
from subscriptions.core.changes import Choices
from subscriptions.core.periods import Alignment
from subscriptions.models import ScheduledChange
from subscriptions.selectors.catalog import terms_of
from subscriptions.selectors.tenants import refuse_parked
from subscriptions.services import audit, switching
from subscriptions.services.agreement import SubscriptionEnded


class CalendarAligned(Invalid):
    """The version's periods follow the calendar: there is no anchor to move."""

    code = "calendar_aligned"
    title = "The periods follow the calendar"


def move_anchor(
    *, subscription_id: int, anchor_at: datetime, now: datetime, actor: str, reason: str = ""
) -> ScheduledChange:
    """
    Count boundaries from `anchor_at`, read as local time in the tenant's zone, with the period that follows the running one.

    Replaces a move that is still to come. Raises SubscriptionPaused, SubscriptionEnded (also for one that is about to end),
    SubscriptionNotStarted and TenantParked (409), CalendarAligned (422).
    """
    return run_with_retries(lambda: _move(subscription_id, anchor_at, now, actor, reason))


@transaction.atomic
def _move(subscription_id: int, anchor_at: datetime, now: datetime, actor: str, reason: str) -> ScheduledChange:
    subscription = lock_subscription(subscription_id)
    refuse_parked(subscription.tenant)
    bring_up(subscription, now=now)
    check_runs(subscription, now)
    if subscription.ends_at is not None:
        raise SubscriptionEnded(
            f"The subscription ends at {subscription.ends_at:%Y-%m-%dT%H:%M:%SZ}; undo its cancellation first."
        )
    if terms_of(subscription.version_id).cadence.alignment is Alignment.CALENDAR:
        raise CalendarAligned(f"Periods of {subscription.version} begin with the calendar's.")
    waiting = subscription.scheduled_changes.filter(status=ScheduledChange.Status.SCHEDULED, anchor_at__isnull=False)
    for earlier in waiting:
        switching.undo(change=earlier)
    moved = switching.schedule(
        subscription=subscription,
        to_version=subscription.version,
        choices=Choices(**subscription.version.change_terms),
        wanted_at=now,
        at_boundary=True,
        anchor_at=anchor_at,
    )
    after = {"change": str(moved.public_id), "anchor_at": anchor_at}
    audit.record(actor=actor, action="move_anchor", instance=subscription, after=after, reason=reason)
    return moved
