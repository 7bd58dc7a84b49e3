"""
Closes billing periods: books what is left, drafts and finalises the invoice; later bills what came late.

Everything of one closing happens in one transaction under the subscription's lock, so that a closing that dies leaves nothing, and one
that is run twice, or by two workers at once, gives the same invoice.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from django.db import connection, transaction
from django.db.models import Max

from billing_site.database import run_with_retries
from billing_site.http.problems import DomainError
from invoices.models import Invoice
from invoices.selectors.sources import has_unbilled
from invoices.services.invoicing import (
    draft,
    finalize,
    last_closed_for_good,
    lock_subscription,
    next_sequence,
    use_credit,
)
from invoices.services.subscribing import open_due
from metering.models import MeterBalance, OverageCharge
from metering.services import ledger, overage
from subscriptions.models import BillingPeriod, Subscription
from subscriptions.services import periods
from subscriptions.services.audit import ACTOR_SYSTEM

Result = TypeVar("Result")

_REASONS_OF_CLOSING = (Invoice.Reason.PERIOD, Invoice.Reason.FINAL)


class PeriodStillOpen(DomainError):
    """The period has not ended, or still waits for late events."""

    code = "period_still_open"
    title = "The period is still open"


def close_period(*, period_id: int, now: datetime) -> Invoice | None:
    """
    Book the overage of an ended period, draft and finalise its invoice; None when there is nothing to bill.

    Calling again returns the same invoice. Locks the subscription first; opens what has begun, and closes earlier periods that are due,
    so that the order in which workers come changes no invoice. Raises PeriodStillOpen before the end plus grace.
    """
    return run_with_retries(lambda: _close_with_earlier(period_id, now))


def bill_late_usage(*, period_id: int, now: datetime) -> Invoice | None:
    """
    Look at a closed period again: bill what is left of a subscription that has ended; None when there is nothing.

    While a closing is to come, that one bills it. Usage may come until the meters' window has passed; a look before that (after an
    invoice was voided) is followed by one at that time, so that late usage is billed once.
    """
    return run_with_retries(lambda: _bill_late_usage(period_id, now))


def book_balance(*, balance_id: int, now: datetime) -> list[OverageCharge]:
    """
    Book a balance's overage, and see to it that it will be billed.

    Usage of a closed period is on the subscription's next invoice. Where there will be none, the last period falls due: at the end of
    the window in which more may come, or, after that (a reversal has no time limit), at once.
    """
    return run_with_retries(lambda: _book_balance(balance_id, now))


def preview_closing(*, period_id: int, now: datetime, read: Callable[[Invoice | None], Result]) -> Result:
    """
    Close the period as it will be closed, hand the draft to `read`, and undo everything; return what `read` returned.

    The closing is played at `now`, or at its due time where that is later, so the fee of the next period is on it. The draft has no number,
    and shows the credit that it would use. Takes the same locks as a closing, for as long as it takes.
    """
    with transaction.atomic():
        subscription = lock_subscription(_subscription_of(period_id))
        period = _lock_period(period_id)
        played_at = max(now, closes_at(period))
        open_due(subscription=subscription, now=played_at)
        invoice = draft_closing(subscription=subscription, period=period, now=played_at)
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        if invoice is not None:
            use_credit(invoice)
        result = read(invoice)
        transaction.set_rollback(True)
    return result


def closes_at(period: BillingPeriod) -> datetime:
    """Return when the period closes: at its end plus the grace of its version."""
    return period.ends_at + timedelta(hours=period.version.grace_hours)


def draft_closing(*, subscription: Subscription, period: BillingPeriod, now: datetime) -> Invoice | None:
    """
    Close a period whose locks the caller holds, and draft its invoice. The preview is this, rolled back.

    Usage of earlier periods that came late is booked first, so that it stands on this invoice.
    """
    book_late_usage(subscription=subscription, now=now)
    ledger.close_balances(period=period, now=now)
    periods.mark_closed(period=period, closed_at=now, look_at=_late_until(period))
    has_ended = subscription.ends_at is not None and subscription.ends_at <= period.ends_at
    reason = Invoice.Reason.FINAL if has_ended else Invoice.Reason.PERIOD
    return draft(subscription=subscription, period=period, reason=reason, now=now)


def book_late_usage(*, subscription: Subscription, now: datetime) -> None:
    """Book what is due of the subscription's closed balances, whose booking may be a minute away."""
    late = MeterBalance.objects.filter(period__subscription=subscription, closed_at__isnull=False, due_at__isnull=False)
    for balance_id in late.order_by("pk").values_list("pk", flat=True):
        overage.book(balance_id=balance_id, now=now)


@transaction.atomic
def _close_with_earlier(period_id: int, now: datetime) -> Invoice | None:
    subscription = lock_subscription(_subscription_of(period_id))
    period = _lock_period(period_id)
    if period.closed_at is not None:
        return _invoice_of(period)
    if now < closes_at(period):
        raise PeriodStillOpen(f"The period ends at {period.ends_at:%Y-%m-%dT%H:%M:%SZ}, and closes after its grace.")
    open_due(subscription=subscription, now=now)
    for earlier in _earlier_due(period, now):
        _close(subscription, earlier, now)
    return _close(subscription, period, now)


def _close(subscription: Subscription, period: BillingPeriod, now: datetime) -> Invoice | None:
    invoice = draft_closing(subscription=subscription, period=period, now=now)
    return None if invoice is None else finalize(invoice_id=invoice.pk, now=now, actor=ACTOR_SYSTEM)


@transaction.atomic
def _bill_late_usage(period_id: int, now: datetime) -> Invoice | None:
    subscription = lock_subscription(_subscription_of(period_id))
    period = _lock_period(period_id)
    if period.closed_at is None:
        raise PeriodStillOpen("The period is not closed; its closing bills what it owes.")
    late_until = _late_until(period)
    periods.look_again(period=period, at=late_until if late_until is not None and late_until > now else None)
    last = last_closed_for_good(subscription)
    if last is None or last.pk != period.pk:
        return None
    book_late_usage(subscription=subscription, now=now)
    if not has_unbilled(subscription_id=subscription.pk, until=None):
        return None
    reason = Invoice.Reason.LATE
    invoice = draft(
        subscription=subscription, period=period, reason=reason, now=now, sequence=next_sequence(period, reason)
    )
    return None if invoice is None else finalize(invoice_id=invoice.pk, now=now, actor=ACTOR_SYSTEM)


@transaction.atomic
def _book_balance(balance_id: int, now: datetime) -> list[OverageCharge]:
    balance = MeterBalance.objects.select_related("period").get(pk=balance_id)
    if balance.closed_at is None:
        return overage.book(balance_id=balance_id, now=now)
    subscription = lock_subscription(balance.period.subscription_id)
    last = last_closed_for_good(subscription)
    booked = overage.book(balance_id=balance_id, now=now)
    if booked and last is not None and last.due_at is None:
        periods.look_again(period=last, at=now)
    return booked


def _subscription_of(period_id: int) -> int:
    return BillingPeriod.objects.values_list("subscription_id", flat=True).get(pk=period_id)


def _lock_period(period_id: int) -> BillingPeriod:
    periods_locked = BillingPeriod.objects.select_for_update(no_key=True, of=("self",))
    return periods_locked.select_related("version").get(pk=period_id)


def _earlier_due(period: BillingPeriod, now: datetime) -> list[BillingPeriod]:
    """Lock and return the subscription's earlier periods that are due; what is parked waits for a person and holds up nothing."""
    earlier = (
        BillingPeriod.objects.select_for_update(no_key=True, of=("self",))
        .select_related("version")
        .filter(subscription_id=period.subscription_id, sequence__lt=period.sequence)
        .filter(closed_at__isnull=True, parked_at__isnull=True)
        .order_by("sequence")
    )
    return [each for each in earlier if closes_at(each) <= now]


def _invoice_of(period: BillingPeriod) -> Invoice | None:
    return period.invoices.filter(reason__in=_REASONS_OF_CLOSING).order_by("-pk").first()


def _late_until(period: BillingPeriod) -> datetime | None:
    """Return when the last event of the period can have come in: its end plus the longest window of its meters; None without meters."""
    days = MeterBalance.objects.filter(period=period).aggregate(days=Max("meter__window_days"))["days"]
    return None if days is None else period.ends_at + timedelta(days=days)
