"""Closes and cuts the balances of periods: what is left moves on or expires, and late usage finds a changed epoch."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db import connection
from django.db.models import Q

from billing_site.database import among
from metering.models import CreditGrant, MeterBalance
from metering.selectors.grants import wide_mates
from metering.services import holds
from metering.services.overage import charge_locked
from metering.services.recutting import recut
from metering.services.rollover import following_balances, rolling_pools, settle_pools, take_out_allowances, turns
from metering.services.rows import update_rows
from subscriptions.models import BillingPeriod


def lock_for_closing(*, periods: Iterable[BillingPeriod]) -> list[MeterBalance]:
    """
    Lock, in id order, the balances of periods that are to be closed (their holds before them), and those of their subscriptions whose late usage is not booked yet.

    The late ones are closed already. Each has its period at hand. Locked as well, and not returned, are balances that closing moves: those
    that share grants, and those into which something rolls over. The caller holds the locks of subscriptions and periods.
    """
    by_id = {period.pk: period for period in periods}
    subscriptions = {period.subscription_id for period in by_id.values()}
    holds.lock_of_periods(by_id)
    # That its period is closed says nothing new of a closed balance, but where to look: not in the whole table.
    closed = BillingPeriod.objects.filter(among("subscription_id", subscriptions), closed_at__isnull=False)
    late = MeterBalance.objects.filter(period__in=closed, closed_at__isnull=False, due_at__isnull=False)
    wanted = Q(among("period_id", by_id)) | Q(among("pk", late.values_list("pk", flat=True)))
    wide = MeterBalance.objects.filter(among("period_id", by_id), is_wide=True)
    moved = {*wide_mates(wide), *following_balances(by_id.values(), rolling_pools(by_id.values()))}
    rows = MeterBalance.objects.select_for_update(no_key=True, of=("self",)).order_by("pk")
    balances = list(rows.filter(wanted | Q(among("pk", moved)) if moved else wanted))
    balances = [one for one in balances if one.period_id in by_id or one.closed_at is not None]
    missing = {balance.period_id for balance in balances} - by_id.keys()
    by_id |= BillingPeriod.objects.in_bulk(missing) if missing else {}
    for balance in balances:
        balance.period = by_id[balance.period_id]
    return balances


def close_balances(balances: Sequence[MeterBalance], *, now: datetime) -> None:
    """
    Book every pool's overage and minimum spend, let holds expire, move on or let expire what is left of the allowances, and close the balances.

    The caller holds the locks of subscriptions, periods and balances. Usage that comes later is late: it is overage, and never burns what
    expired or moved on here.
    """
    rolling = rolling_pools({balance.period_id: balance.period for balance in balances}.values())
    for turn in turns(balances, rolling):
        charge_locked(turn, now=now, closes=True)
        holds.expire_of_balances(turn)
        newest = _newest_entry_id()
        rolled_into = take_out_allowances(turn, rolling)
        update_rows(
            MeterBalance,
            ("id", "booked_overage", "booked_at", "due_at", "closed_at", "closing_entry_id", "epoch"),
            [(one.pk, one.booked_overage, now, None, now, newest, 1) for one in turn],
            adding={"epoch"},
        )
        settle_pools([balance for balance in turn if balance.is_wide], now=now)
        if rolled_into:
            recut(rolled_into, now=now)
            _read_again(balances)


def cut_balances(*, period: BillingPeriod, now: datetime) -> None:
    """
    Let the period's allowances expire at the period's end, which a cancellation has moved, and what had rolled over with them.

    The caller holds the locks of subscription and period. Raises the epochs, so that usage resolved against the old end is
    resolved again. Grants of the pool go on; they may cover usage of a later subscription.
    """
    balances = list(MeterBalance.objects.filter(period=period, closed_at__isnull=True))
    ids = {balance.pk for balance in balances}
    rows = MeterBalance.objects.select_for_update(no_key=True, of=("self",)).select_related("tenant", "meter")
    locked = list(rows.filter(pk__in={*ids, *wide_mates(balances)}).order_by("pk"))
    CreditGrant.objects.filter(balance_id__in=ids).update(expires_at=period.ends_at)
    rolled = CreditGrant.objects.filter(
        tenant_id=period.tenant_id, kind=CreditGrant.Kind.ROLLOVER, expires_at__gt=period.ends_at
    )
    rolled.filter(balance__isnull=True, effective_at__lt=period.ends_at).update(
        expires_at=period.ends_at, ranked_at=None
    )
    cut = [balance for balance in locked if balance.pk in ids]
    for balance in cut:
        balance.period = period
    recut(cut, now=now)


def _newest_entry_id() -> int:
    """Return an id above which whatever is entered for a balance whose lock the caller holds comes later: one for all of them."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sequence_last_value(pg_get_serial_sequence('metering_ledgerentry', 'id')::regclass)")
        return cursor.fetchone()[0] or 0


def _read_again(balances: Iterable[MeterBalance]) -> None:
    """Let balances that are still to be closed know of what has moved into them."""
    by_id = {balance.pk: balance for balance in balances}
    figures = ("used", "covered", "cuts", "is_wide", "epoch")
    for pk, *values in MeterBalance.objects.filter(pk__in=by_id).values_list("pk", *figures):
        for name, value in zip(figures, values, strict=True):
            setattr(by_id[pk], name, value)
