"""
What billing writes on the agreement's rows: that the first fee has its invoice, that a period is closed, when to look at it again.

Used by `invoices`, which decides all three. The caller holds the locks of subscription and period.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db import connection

from billing_site.database import json_rows
from subscriptions.models import BillingPeriod, Subscription
from subscriptions.selectors.agreement import newest_periods
from subscriptions.services.succession import opening_due


def opening_billed(*, subscriptions: Sequence[Subscription]) -> None:
    """
    Let subscriptions that have waited for the opening invoice of their run fall due at their next boundary.

    Until then each stays due at the run's start, so that the invoice is made whoever opened its first period. Nothing changes before that
    period is open, and for those that wait for nothing.
    """
    waiting = [one for one in subscriptions if one.due_at == one.run_starts_at]
    newest = newest_periods(subscription.pk for subscription in waiting) if waiting else {}
    opening_due({one: newest[one.pk].ends_at for one in waiting if one.pk in newest})


def mark_closed(*, look_at: Mapping[BillingPeriod, datetime | None], closed_at: datetime) -> None:
    """
    Note that periods are closed, and when each is due to be looked at for late usage (None: never).

    What was counted against a period while it could not be closed is cleared with it.
    """
    for period, due_at in look_at.items():
        period.closed_at, period.due_at, period.attempts, period.leased_until = closed_at, due_at, 0, None
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE subscriptions_billingperiod p SET closed_at = %s, due_at = d.due_at, attempts = 0, leased_until = NULL
            FROM jsonb_to_recordset(%s::jsonb) AS d (id bigint, due_at timestamptz) WHERE p.id = d.id
            """,
            [closed_at, json_rows({"id": period.pk, "due_at": due_at} for period, due_at in look_at.items())],
        )


def look_again(*, period: BillingPeriod, at: datetime | None) -> None:
    """
    Set when a closed period is due to be looked at for something unbilled; None when that is no longer needed.

    A period that was parked is due again, with all of its tries: something new has happened.
    """
    period.due_at = at
    if at is not None:
        period.parked_at, period.parked_reason, period.attempts, period.leased_until = None, "", 0, None
    period.save(update_fields=["due_at", "parked_at", "parked_reason", "attempts", "leased_until"])
