"""Closes and cuts the balances of a period: what is left expires, and late usage finds a changed epoch."""

from datetime import datetime
from decimal import Decimal

from django.db.models import F

from billing_site.database import uuid7
from metering.models import CreditGrant, LedgerEntry, MeterBalance, Posting
from metering.services.overage import book_locked
from subscriptions.models import BillingPeriod


def close_balances(*, period: BillingPeriod, now: datetime) -> None:
    """
    Book every pool's overage and minimum spend, let what is left of the allowances expire, and close the balances.

    The caller holds the locks of subscription and period. Usage that comes later is late: it is overage, and never burns what
    expired here.
    """
    balances = list(
        MeterBalance.objects.select_for_update(no_key=True, of=("self",))
        .select_related("period")
        .filter(period=period)
        .order_by("pk")
    )
    for balance in balances:
        book_locked(balance, now=now, closes=True)
    _expire_what_is_left(balances)
    MeterBalance.objects.filter(period=period).update(closed_at=now, epoch=F("epoch") + 1)


def cut_balances(*, period: BillingPeriod) -> None:
    """
    Let the period's allowances expire at the period's end, which a cancellation has moved.

    The caller holds the locks of subscription and period. Raises the epochs, so that usage resolved against the old end is
    resolved again.
    """
    balances = MeterBalance.objects.select_for_update(no_key=True, of=("self",)).filter(period=period).order_by("pk")
    ids = [balance.pk for balance in balances]
    CreditGrant.objects.filter(balance_id__in=ids).update(expires_at=period.ends_at)
    MeterBalance.objects.filter(pk__in=ids).update(epoch=F("epoch") + 1)


def _expire_what_is_left(balances: list[MeterBalance]) -> None:
    grants = list(CreditGrant.objects.filter(balance__in=balances, remaining__gt=Decimal(0)).order_by("pk"))
    if not grants:
        return
    posting = Posting.objects.create(id=uuid7(), kind="close")
    LedgerEntry.objects.bulk_create(
        LedgerEntry(
            posting=posting,
            tenant_id=grant.tenant_id,
            balance_id=grant.balance_id,
            grant=grant,
            kind=LedgerEntry.Kind.EXPIRE,
            segment_at=grant.effective_at,
            quantity=grant.remaining,
        )
        for grant in grants
    )
    for grant in grants:
        CreditGrant.objects.filter(pk=grant.pk).update(expired=F("expired") + grant.remaining)
