"""
What closing does with grants: allowances expire or move on into the next period, and grants of the pool are settled.

Owns which part of an allowance rolls over, once, and when a grant of the pool is over. Callers hold the locks of the balances that close,
and of those that something moves into.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple

from django.db import connection
from django.db.models import Q

from billing_site.database import among, uuid7
from metering.core.pools import Pool
from metering.core.segments import meets
from metering.models import CreditGrant, LedgerEntry, MeterBalance, Posting
from metering.selectors.grants import PoolKey, pool_grants, pool_key
from metering.selectors.terms import pools_of_version
from metering.services.crediting import take_out, write_grants
from metering.services.grants import open_balances
from metering.services.rows import insert_rows, update_rows
from subscriptions.core.money import exact
from subscriptions.core.periods import next_period
from subscriptions.models import BillingPeriod
from subscriptions.selectors.agreement import version_spans_of
from subscriptions.selectors.catalog import terms_of

_ZERO = Decimal(0)

Rolling = dict[int, dict[tuple[int, str], Pool]]
"""Pools whose allowance rolls over, by period, and by meter and pool."""

_BURNED = """
SELECT e.grant_id, sum(e.quantity) FROM metering_ledgerentry e
JOIN metering_creditgrant g ON g.id = e.grant_id AND g.balance_id IS NULL
WHERE e.balance_id = ANY(%s::bigint[]) AND e.kind IN ('usage', 'walk') GROUP BY 1
"""


class _Left(NamedTuple):
    """What is left of an allowance, or of what had rolled over before."""

    grant_id: int
    tenant_id: int
    balance_id: int
    kind: str
    effective_at: datetime
    remaining: Decimal


def rolling_pools(periods: Iterable[BillingPeriod]) -> Rolling:
    """Return, by period, the pools whose allowance rolls over, by the terms in force when the period ends."""
    found: Rolling = {}
    for period_id, spans in version_spans_of(periods).items():
        for meter_id, pools in pools_of_version(spans[-1].terms_id).items():
            for pool in pools.by_key.values():
                if pool.rollover_max:
                    found.setdefault(period_id, {})[meter_id, pool.key] = pool
    return found


def turns(balances: Sequence[MeterBalance], rolling: Rolling) -> list[list[MeterBalance]]:
    """
    Part the balances so that what rolls over out of one is there when the next one closes.

    One turn, where nothing rolls over.
    """
    if not rolling:
        return [list(balances)]
    in_order = sorted(balances, key=lambda balance: (balance.period.sequence, balance.pk))
    return [list(turn) for _, turn in groupby(in_order, key=lambda balance: balance.period.sequence)]


def following_balances(periods: Iterable[BillingPeriod], rolling: Rolling) -> dict[int, MeterBalance]:
    """Return, by id, the open balances of the periods that follow those of which something may roll over."""
    after = Q(pk__in=[])
    for period in periods:
        if period.pk in rolling:
            after |= Q(period__subscription_id=period.subscription_id, period__sequence=period.sequence + 1)
    if not rolling:
        return {}
    found = MeterBalance.objects.select_related("period__subscription", "tenant", "meter").filter(
        closed_at__isnull=True
    )
    return {balance.pk: balance for balance in found.filter(after)}


def take_out_allowances(balances: Sequence[MeterBalance], rolling: Rolling) -> list[MeterBalance]:
    """
    Post what is left of the balances' own grants: up to the pool's `rollover_max` of an allowance moves on, the rest expires.

    Returns the balances into which something moved, which the caller has to walk. What rolled over before does not roll over again.
    """
    by_id = {balance.pk: balance for balance in balances}
    lefts = [
        _Left(*row)
        for row in CreditGrant.objects.filter(among("balance_id", by_id), remaining__gt=_ZERO)
        .order_by("pk")
        .values_list("pk", "tenant_id", "balance_id", "kind", "effective_at", "remaining")
    ]
    if not lefts:
        return []
    targets = _targets(balances, rolling)
    rolls: dict[int, CreditGrant] = {}
    for left in lefts:
        target = targets.get(left.balance_id)
        if left.kind == CreditGrant.Kind.ALLOWANCE and target is not None:
            balance = by_id[left.balance_id]
            pool = rolling[balance.period_id][balance.meter_id, balance.pool]
            rolls[left.grant_id] = _rollover(left, balance, target, pool)
    _post(lefts, {grant_id: grant.quantity for grant_id, grant in rolls.items()})
    if rolls:
        write_grants(list(rolls.values()), posting_kind="close")
    return [
        balance
        for left in lefts
        if left.grant_id in rolls
        for balance in _reached(rolls[left.grant_id], targets[left.balance_id], closing=by_id)
    ]


def _reached(grant: CreditGrant, target: MeterBalance, *, closing: Collection[int]) -> list[MeterBalance]:
    """Return the open balances that a rollover reaches: the next one's, and where it lasts, whatever has been opened since."""
    if grant.balance_id is not None:
        return [target]
    later = open_balances(tenant_id=grant.tenant_id, meter_id=grant.meter_id, pool=grant.pool)
    return [one for one in later if one.pk not in closing and meets(grant.as_core(), one.period.period)]


def settle_pools(balances: Sequence[MeterBalance], *, now: datetime) -> None:
    """
    Freeze what closed wide balances have burned of their pools' grants, and take out what is left of grants that are over.

    A grant is over when its time is, and no open balance is left whose late events may burn it.
    """
    if not balances:
        return
    with connection.cursor() as cursor:
        cursor.execute(_BURNED, [[balance.pk for balance in balances]])
        burned = list(cursor)
    update_rows(CreditGrant, ("id", "settled"), burned, adding={"settled"})
    keys = {pool_key(balance) for balance in balances}
    still_open: dict[PoolKey, list[MeterBalance]] = {}
    for balance in MeterBalance.objects.select_related("period").filter(
        tenant_id__in={key[0] for key in keys}, closed_at__isnull=True
    ):
        still_open.setdefault(pool_key(balance), []).append(balance)
    over = [
        grant
        for key, grants in pool_grants(keys).items()
        for grant in grants
        if grant.settled < grant.quantity
        and grant.ends_at is not None
        and grant.ends_at <= now
        and not any(meets(grant.as_core(), one.period.period) for one in still_open.get(key, []))
    ]
    if over:
        take_out(over, posting=Posting.objects.create(id=uuid7(), kind="close"))


def _targets(balances: Sequence[MeterBalance], rolling: Rolling) -> dict[int, MeterBalance]:
    """Return, by balance id, into which open balance its allowance rolls over, where it does."""
    following = {
        (one.period.subscription_id, one.period.sequence, one.meter_id, one.pool): one
        for one in following_balances([balance.period for balance in balances], rolling).values()
    }
    targets = {}
    for balance in balances:
        if (balance.meter_id, balance.pool) in rolling.get(balance.period_id, {}):
            period = balance.period
            target = following.get((period.subscription_id, period.sequence + 1, balance.meter_id, balance.pool))
            if target is not None:
                targets[balance.pk] = target
    return targets


def _rollover(left: _Left, balance: MeterBalance, target: MeterBalance, pool: Pool) -> CreditGrant:
    """Return the grant, not yet written, into which an allowance moves on."""
    lasts = pool.rollover_periods > 1
    return CreditGrant(
        tenant_id=left.tenant_id,
        meter_id=balance.meter_id,
        pool=balance.pool,
        balance=None if lasts else target,
        kind=CreditGrant.Kind.ROLLOVER,
        quantity=min(left.remaining, pool.rollover_max),
        effective_at=target.period.starts_at,
        expires_at=_expiry(target.period, pool.rollover_periods),
        # Before the allowance of the period that it comes into, though it may outlast that.
        ranked_at=target.period.ends_at if lasts else None,
        rolled_from_id=left.grant_id,
    )


def _expiry(first: BillingPeriod, periods: int) -> datetime:
    """Return when what comes into the first of so many periods expires: at the end of the last of them, or of the subscription."""
    subscription, ends_at = first.subscription, first.ends_at
    for _ in range(periods - 1):
        ends_at = next_period(subscription.anchor, terms_of(first.version_id).cadence, ends_at).ends_at
    return ends_at if subscription.ends_at is None else min(ends_at, subscription.ends_at)


def _post(lefts: Sequence[_Left], rolled: dict[int, Decimal]) -> None:
    """Write what leaves the grants: entries, and the grants' own figures."""
    posting = Posting.objects.create(id=uuid7(), kind="close")
    entries = []
    figures = []
    for left in lefts:
        moves_on = rolled.get(left.grant_id, _ZERO)
        with exact():
            expires = left.remaining - moves_on
        figures.append((left.grant_id, expires, moves_on))
        for kind, quantity in ((LedgerEntry.Kind.ROLLOVER, moves_on), (LedgerEntry.Kind.EXPIRE, expires)):
            if quantity:
                row = (posting.pk, left.tenant_id, left.balance_id, left.grant_id, kind.value, left.effective_at)
                entries.append((*row, "", quantity, 0))
    columns = ("posting_id", "tenant_id", "balance_id", "grant_id", "kind", "segment_at", "dimension_key", "quantity")
    insert_rows(LedgerEntry, (*columns, "events"), entries)
    update_rows(CreditGrant, ("id", "expired", "rolled_over"), figures, adding={"expired", "rolled_over"})
