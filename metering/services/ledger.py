"""Closes and cuts the balances of periods: what is left expires, and late usage finds a changed epoch."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from django.db.models import F, Q

from billing_site.database import among, uuid7
from metering.models import CreditGrant, LedgerEntry, MeterBalance, Posting
from metering.services import holds
from metering.services.overage import charge_locked
from metering.services.rows import insert_rows, update_rows
from subscriptions.models import BillingPeriod


def lock_for_closing(*, periods: Iterable[BillingPeriod]) -> list[MeterBalance]:
    """
    Lock, in id order, the balances of periods that are to be closed (their holds before them), and those of their subscriptions whose late usage is not booked yet.

    The late ones are closed already. Each has its period at hand. The caller holds the locks of subscriptions and periods.
    """
    by_id = {period.pk: period for period in periods}
    subscriptions = {period.subscription_id for period in by_id.values()}
    holds.lock_of_periods(by_id)
    # That its period is closed says nothing new of a closed balance, but where to look: not in the whole table.
    closed = BillingPeriod.objects.filter(among("subscription_id", subscriptions), closed_at__isnull=False)
    late = MeterBalance.objects.filter(period__in=closed, closed_at__isnull=False, due_at__isnull=False)
    late_ids = late.values_list("pk", flat=True)
    rows = MeterBalance.objects.select_for_update(no_key=True, of=("self",)).order_by("pk")
    balances = list(rows.filter(Q(among("period_id", by_id)) | Q(among("pk", late_ids))))
    missing = {balance.period_id for balance in balances} - by_id.keys()
    by_id |= BillingPeriod.objects.in_bulk(missing) if missing else {}
    for balance in balances:
        balance.period = by_id[balance.period_id]
    return balances


def close_balances(balances: Sequence[MeterBalance], *, now: datetime) -> None:
    """
    Book every pool's overage and minimum spend, let holds and what is left of the allowances expire, and close the balances.

    The caller holds the locks of subscriptions, periods and balances. Usage that comes later is late: it is overage, and never burns what
    expired here.
    """
    charge_locked(balances, now=now, closes=True)
    holds.expire_of_balances(balances)
    _expire_what_is_left(balances)
    update_rows(
        MeterBalance,
        ("id", "booked_overage", "booked_at", "due_at", "closed_at", "epoch"),
        [(balance.pk, balance.booked_overage, now, None, now, 1) for balance in balances],
        adding={"epoch"},
    )


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


def _expire_what_is_left(balances: Sequence[MeterBalance]) -> None:
    ids = [balance.pk for balance in balances]
    grants = list(
        CreditGrant.objects.filter(among("balance_id", ids), remaining__gt=Decimal(0))
        .order_by("pk")
        .values_list("pk", "tenant_id", "balance_id", "effective_at", "remaining")
    )
    if not grants:
        return
    posting = Posting.objects.create(id=uuid7(), kind="close")
    insert_rows(
        LedgerEntry,
        (
            "posting_id",
            "tenant_id",
            "balance_id",
            "grant_id",
            "kind",
            "segment_at",
            "dimension_key",
            "quantity",
            "events",
        ),
        [
            (posting.pk, tenant_id, balance_id, pk, LedgerEntry.Kind.EXPIRE.value, effective_at, "", remaining, 0)
            for pk, tenant_id, balance_id, effective_at, remaining in grants
        ],
    )
    update_rows(CreditGrant, ("id", "expired"), [(grant[0], grant[4]) for grant in grants], adding={"expired"})
