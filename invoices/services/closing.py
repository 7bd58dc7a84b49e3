"""
Closes billing periods: books what is left, drafts and finalises the invoices; later bills what came late.

Periods are closed in chunks, each in one transaction under the locks of their subscriptions, by a number of statements that does not grow
with the chunk; one period is a chunk of one. So a closing that dies leaves nothing, and one that is run twice, or by two workers at once,
gives the same invoices.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import TypeVar

from django.db import transaction
from django.db.models import Q

from billing_site.database import among, run_with_retries
from billing_site.http.problems import DomainError
from invoices.models import Invoice
from invoices.selectors.sources import has_unbilled
from invoices.services.changing import carry_out_overdue
from invoices.services.invoicing import (
    Wanted,
    check_references,
    draft,
    draft_all,
    finalize_all,
    last_closed_for_good,
    lock_subscription,
    lock_subscriptions,
    next_sequence,
    use_credit,
)
from invoices.services.opening import draft_openings
from metering.models import MeterBalance
from metering.services import ledger, overage
from metering.services.opening import open_periods
from subscriptions.models import BillingPeriod, Meter, Subscription
from subscriptions.selectors.catalog import terms_of
from subscriptions.selectors.tenants import refuse_parked
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
    so that the order in which workers come changes no invoice. Raises PeriodStillOpen before the end plus grace, and TenantParked.
    """
    return close_periods(period_ids=[period_id], now=now).get(period_id)


def close_periods(*, period_ids: Collection[int], now: datetime) -> dict[int, Invoice]:
    """
    Do the same for several periods, all or none of them; return their invoices by period id.

    Raises what `close_period` raises for any of them: who wants the others closed calls again without it.
    """
    return run_with_retries(lambda: _close_with_earlier(period_ids, now))


def bill_late_usage(*, period_id: int, now: datetime) -> Invoice | None:
    """
    Look at a closed period again: bill what is left of a subscription that has ended; None when there is nothing.

    While a closing is to come, that one bills it. Usage may come until the meters' window has passed; a look before that (after an
    invoice was voided) is followed by one at that time, so that late usage is billed once.
    """
    return run_with_retries(lambda: _bill_late_usage(period_id, now))


def book_balance(*, balance_id: int, now: datetime) -> list[overage.Booking]:
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
        subscription = lock_subscription(_subscriptions_of([period_id])[0])
        period = _lock_period(period_id)
        drafts = draft_closings(subscriptions=[subscription], due=[period], now=max(now, closes_at(period)))
        check_references()
        use_credit(drafts)
        result = read(next((one for one in drafts if one.reason in _REASONS_OF_CLOSING), None))
        transaction.set_rollback(True)
    return result


def closes_at(period: BillingPeriod) -> datetime:
    """Return when the period closes: at its end plus the grace of its version."""
    return period.ends_at + timedelta(hours=terms_of(period.version_id).grace_hours)


def draft_closings(
    *, subscriptions: Sequence[Subscription], due: Sequence[BillingPeriod], now: datetime
) -> list[Invoice]:
    """
    Open what has begun, close periods whose locks the caller holds, and draft the invoices of both, in the order of their numbers.

    The preview is this, rolled back. Usage of earlier periods that came late is booked first, so that it stands on these invoices. Of the
    periods of one subscription the earlier is closed and drafted first.
    """
    to_open = [one for one in subscriptions if one.due_at is not None and one.due_at <= now]
    open_periods(to_open, now=now)
    drafts = draft_openings(subscriptions=to_open, now=now)
    balances = ledger.lock_for_closing(periods=due)
    overage.book_locked([balance for balance in balances if balance.closed_at is not None], now=now)
    closing = [balance for balance in balances if balance.closed_at is None]
    ledger.close_balances(closing, now=now)
    late_until = _late_until(due, closing)
    by_id = {subscription.pk: subscription for subscription in subscriptions}
    for turn in _turns(due):
        periods.mark_closed(look_at={period: late_until.get(period.pk) for period in turn}, closed_at=now)
        drafts += draft_all([_wanted(by_id[period.subscription_id], period) for period in turn], now=now)
    return drafts


@transaction.atomic
def _close_with_earlier(period_ids: Collection[int], now: datetime) -> dict[int, Invoice]:
    subscriptions = lock_subscriptions(_subscriptions_of(period_ids))
    carry_out_overdue(list(subscriptions.values()), now=now)
    due = _lock_due(subscriptions, period_ids, now)
    for subscription_id in {period.subscription_id for period in due}:
        refuse_parked(subscriptions[subscription_id].tenant)
    if not due:
        return _invoices_of(period_ids)
    owing = {period.subscription_id for period in due}
    drafts = draft_closings(subscriptions=[subscriptions[pk] for pk in sorted(owing)], due=due, now=now)
    finalize_all(drafts, now=now, actor=ACTOR_SYSTEM)
    made = {
        invoice.period_id: invoice
        for invoice in drafts
        if invoice.period_id is not None and invoice.reason in _REASONS_OF_CLOSING
    }
    closed_before = set(period_ids) - {period.pk for period in due}
    return {pk: made[pk] for pk in period_ids if pk in made} | _invoices_of(closed_before)


def _lock_due(subscriptions: Collection[int], period_ids: Collection[int], now: datetime) -> list[BillingPeriod]:
    """
    Lock and return those of the periods that are not closed yet, and the periods before them that are due, in id order.

    What is parked waits for a person and holds up nothing, unless it is asked for. Raises PeriodStillOpen for one asked for too early.
    """
    asked_for = Q(among("pk", period_ids))
    open_ones = list(
        BillingPeriod.objects.select_for_update(no_key=True, of=("self",))
        .filter(among("subscription_id", subscriptions), asked_for | Q(parked_at__isnull=True))
        .filter(asked_for | Q(ends_at__lte=now), closed_at__isnull=True)
        .order_by("pk")
    )
    last: dict[int, int] = {}
    asked = set(period_ids)
    for period in open_ones:
        if period.pk in asked:
            if now < closes_at(period):
                raise PeriodStillOpen(
                    f"The period ends at {period.ends_at:%Y-%m-%dT%H:%M:%SZ}, and closes after its grace."
                )
            last[period.subscription_id] = max(period.sequence, last.get(period.subscription_id, 0))
    return [
        period
        for period in open_ones
        if period.sequence <= last.get(period.subscription_id, 0) and closes_at(period) <= now
    ]


def _turns(due: Iterable[BillingPeriod]) -> list[list[BillingPeriod]]:
    """Part the periods so that each turn has one of a subscription at most, and a later one stands in a later turn."""
    in_order = sorted(due, key=lambda period: (period.subscription_id, period.sequence))
    turns: list[list[BillingPeriod]] = []
    for _, of_one in groupby(in_order, key=lambda period: period.subscription_id):
        for place, period in enumerate(of_one):
            if place == len(turns):
                turns.append([])
            turns[place].append(period)
    return turns


def _wanted(subscription: Subscription, period: BillingPeriod) -> Wanted:
    has_ended = subscription.ends_at is not None and subscription.ends_at <= period.ends_at
    return Wanted(subscription, period, Invoice.Reason.FINAL if has_ended else Invoice.Reason.PERIOD)


@transaction.atomic
def _bill_late_usage(period_id: int, now: datetime) -> Invoice | None:
    subscription = lock_subscription(_subscriptions_of([period_id])[0])
    period = _lock_period(period_id)
    if period.closed_at is None:
        raise PeriodStillOpen("The period is not closed; its closing bills what it owes.")
    refuse_parked(subscription.tenant)
    late_until = _late_until([period], list(MeterBalance.objects.filter(period=period))).get(period.pk)
    periods.look_again(period=period, at=late_until if late_until is not None and late_until > now else None)
    last = last_closed_for_good(subscription)
    if last is None or last.pk != period.pk:
        return None
    _book_late_usage(subscription, now)
    if not has_unbilled(subscription_id=subscription.pk, until=None):
        return None
    reason = Invoice.Reason.LATE
    invoice = draft(
        subscription=subscription, period=period, reason=reason, now=now, sequence=next_sequence(period, reason)
    )
    if invoice is not None:
        finalize_all([invoice], now=now, actor=ACTOR_SYSTEM)
    return invoice


def _book_late_usage(subscription: Subscription, now: datetime) -> None:
    """Book what is due of the subscription's closed balances, whose booking may be a minute away."""
    late = MeterBalance.objects.select_for_update(no_key=True, of=("self",)).filter(
        period__subscription=subscription, closed_at__isnull=False, due_at__isnull=False
    )
    overage.book_locked(list(late.select_related("period").order_by("pk")), now=now)


@transaction.atomic
def _book_balance(balance_id: int, now: datetime) -> list[overage.Booking]:
    balance = MeterBalance.objects.select_related("period", "tenant").get(pk=balance_id)
    refuse_parked(balance.tenant)
    if balance.closed_at is None:
        return overage.book(balance_id=balance_id, now=now)
    subscription = lock_subscription(balance.period.subscription_id)
    last = last_closed_for_good(subscription)
    booked = overage.book(balance_id=balance_id, now=now)
    if booked and last is not None and last.due_at is None:
        periods.look_again(period=last, at=now)
    return booked


def _subscriptions_of(period_ids: Collection[int]) -> list[int]:
    """Return whose the periods are. Raises BillingPeriod.DoesNotExist when there is no such period."""
    found = list(BillingPeriod.objects.filter(among("pk", period_ids)).values_list("subscription_id", flat=True))
    if len(found) < len(set(period_ids)):
        raise BillingPeriod.DoesNotExist("there is no such billing period")
    return found


def _lock_period(period_id: int) -> BillingPeriod:
    return BillingPeriod.objects.select_for_update(no_key=True, of=("self",)).get(pk=period_id)


def _invoices_of(period_ids: Collection[int]) -> dict[int, Invoice]:
    """Return the closing invoices of closed periods; the newest, where one was voided and made again."""
    if not period_ids:
        return {}
    invoices = Invoice.objects.filter(period_id__in=period_ids, reason__in=_REASONS_OF_CLOSING).order_by("pk")
    return {invoice.period_id: invoice for invoice in invoices if invoice.period_id is not None}


def _late_until(due: Iterable[BillingPeriod], balances: Collection[MeterBalance]) -> dict[int, datetime]:
    """
    Return, by id, when the last event of each period can have come in: its end plus the longest window of its meters.

    A period without meters has no such time.
    """
    meters = Meter.objects.filter(pk__in={balance.meter_id for balance in balances})
    windows = dict(meters.values_list("pk", "window_days"))
    days: dict[int, int] = {}
    for balance in balances:
        days[balance.period_id] = max(days.get(balance.period_id, 0), windows[balance.meter_id])
    return {period.pk: period.ends_at + timedelta(days=days[period.pk]) for period in due if period.pk in days}
