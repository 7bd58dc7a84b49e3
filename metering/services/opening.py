"""Opens billing periods: the agreement's row and fee, and the balances and allowances of its pools."""

from datetime import datetime

from django.db import transaction

from billing_site.database import uuid7
from metering.models import CreditGrant, LedgerEntry, MeterBalance, Posting
from metering.selectors.terms import pools_of_version
from subscriptions.models import BillingPeriod, Subscription
from subscriptions.services import agreement


def open_due_periods(*, subscription_id: int, now: datetime) -> list[BillingPeriod]:
    """
    Open, in order, every period of the subscription that has begun at `now`, and return those opened.

    Idempotent: what is open stays as it is. Takes the subscription's lock, so beat, ingestion and closing may call it at once.
    Opens nothing at or after the subscription's end.
    """
    with transaction.atomic():
        subscription = (
            Subscription.objects.select_for_update(no_key=True, of=("self",))
            .select_related("tenant", "version")
            .get(pk=subscription_id)
        )
        opened = []
        while _next_start(subscription) <= now:
            period = agreement.next_period(subscription=subscription)
            if period is None:
                break
            _open_pools(period)
            opened.append(period)
        return opened


def _next_start(subscription: Subscription) -> datetime:
    last = subscription.periods.order_by("-sequence").first()
    return last.ends_at if last else subscription.starts_at


def _open_pools(period: BillingPeriod) -> None:
    wanted = [
        (meter_id, pool)
        for meter_id, pools in pools_of_version(period.version_id).items()
        for pool in pools.by_key.values()
    ]
    balances = MeterBalance.objects.bulk_create(
        MeterBalance(tenant_id=period.tenant_id, period=period, meter_id=meter_id, pool=pool.key)
        for meter_id, pool in wanted
    )
    grants = CreditGrant.objects.bulk_create(
        CreditGrant(
            tenant_id=period.tenant_id,
            balance=balance,
            kind=CreditGrant.Kind.ALLOWANCE,
            quantity=pool.included,
            effective_at=period.starts_at,
            expires_at=period.ends_at,
        )
        for balance, (_, pool) in zip(balances, wanted, strict=True)
        if pool.included > 0
    )
    if not grants:
        return
    posting = Posting.objects.create(id=uuid7(), kind="open")
    LedgerEntry.objects.bulk_create(
        LedgerEntry(
            posting=posting,
            tenant_id=period.tenant_id,
            balance=grant.balance,
            grant=grant,
            kind=LedgerEntry.Kind.GRANT,
            segment_at=period.starts_at,
            quantity=grant.quantity,
        )
        for grant in grants
    )
