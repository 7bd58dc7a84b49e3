"""
What billing writes on the agreement's rows: that the first fee has its invoice, that a period is closed, when to look at it again.

Used by `invoices`, which decides all three. The caller holds the locks of subscription and period.
"""

from datetime import datetime

from subscriptions.models import BillingPeriod, Subscription


def opening_billed(*, subscription: Subscription) -> None:
    """
    Let a subscription whose periods are open up to now fall due at its next boundary; never, where none is to come.

    Until then it stays due at its start, so that the opening invoice is made whoever opened the first period. Nothing changes before that
    period is open.
    """
    newest = subscription.periods.order_by("-sequence").first()
    if newest is None:
        return
    is_last = subscription.ends_at is not None and subscription.ends_at <= newest.ends_at
    subscription.due_at = None if is_last else newest.ends_at
    subscription.save(update_fields=["due_at"])


def mark_closed(*, period: BillingPeriod, closed_at: datetime, look_at: datetime | None) -> None:
    """Note that the period is closed, and when it is due to be looked at for late usage (None: never)."""
    period.closed_at = closed_at
    period.due_at = look_at
    period.save(update_fields=["closed_at", "due_at"])


def look_again(*, period: BillingPeriod, at: datetime | None) -> None:
    """
    Set when a closed period is due to be looked at for something unbilled; None when that is no longer needed.

    A period that was parked is due again, with all of its tries: something new has happened.
    """
    period.due_at = at
    if at is not None:
        period.parked_at, period.parked_reason, period.attempts, period.leased_until = None, "", 0, None
    period.save(update_fields=["due_at", "parked_at", "parked_reason", "attempts", "leased_until"])
