"""What is to be told of a balance: the thresholds of its pool and of its tenant, and the sums over several balances that they look at."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from django.db.models import Sum

from billing_site.prepared import run
from metering.core.thresholds import Threshold, threshold_of
from metering.models import MeterBalance, ThresholdWatch
from metering.selectors.overage import price_balances, priced_balances
from metering.selectors.terms import CHANGES_OF_PERIOD, TERMS_OF_PERIOD, pools_of_version
from subscriptions.models import Tenant

_INSTANT = timedelta(microseconds=1)


@dataclass(slots=True)
class Watch:
    """
    The thresholds that concern a balance. Immutable but for what is remembered of them: `told` holds the keys, of the pool and of the tenant,
    that are known to have been told of, and only ever leaves out some.
    """

    ends_at: datetime
    # The versions of the period by the instants from which they are in force, in time order, and the pool's thresholds in each.
    versions: Mapping[datetime, int]
    _of_pool: Mapping[datetime, tuple[Threshold, ...]]
    of_tenant: tuple[Threshold, ...]
    told_of_pool: set[str] = field(default_factory=set)
    told_of_tenant: set[str] = field(default_factory=set)

    def of_pool(self, now: datetime) -> tuple[Threshold, ...]:
        """Return the pool's thresholds by the version in force at the tenant's time; at the period's end, by its last."""
        return self._of_pool[max([at for at in self._of_pool if at <= now], default=min(self._of_pool))]

    def judged_at(self, now: datetime) -> datetime:
        """Return the instant that decides which grants are in force: now, but once the period has ended, its last one."""
        return min(now, self.ends_at - _INSTANT)


def watch_of(
    versions: Mapping[datetime, int],
    *,
    ends_at: datetime,
    meter_id: int,
    pool: str,
    of_tenant: str | None,
) -> Watch | None:
    """
    Return what is to be told of a balance; None where neither its pool nor its tenant has thresholds.

    `of_tenant` is the tenant's list as JSON text, which is what hot statements get from a column of documents; None for an empty one.
    """
    of_pool = {starts_at: _of_pool(version_id, meter_id, pool) for starts_at, version_id in versions.items()}
    tenants = tuple(threshold_of(document) for document in json.loads(of_tenant)) if of_tenant else ()
    return Watch(ends_at, versions, of_pool, tenants) if tenants or any(of_pool.values()) else None


_WATCHED = f"""
SELECT b.id, b.meter_id, b.pool, p.ends_at, {TERMS_OF_PERIOD}, p.starts_at, NULLIF(w.thresholds, '[]'),
       {CHANGES_OF_PERIOD}
FROM metering_meterbalance b
JOIN subscriptions_billingperiod p ON p.id = b.period_id
LEFT JOIN metering_thresholdwatch w ON w.tenant_id = b.tenant_id
WHERE b.id = ANY(%s::bigint[])
"""


def watches(balance_ids: Iterable[int]) -> dict[int, Watch]:
    """Return what is to be told of these balances, by their ids; those of which nothing is are missing. One query."""
    found = {}
    for balance_id, meter_id, pool, ends_at, terms_id, starts_at, of_tenant, instants, changes in run(
        _WATCHED, [list(balance_ids)]
    ).fetchall():
        versions = dict([(starts_at, terms_id), *zip(instants, changes, strict=True)])
        watch = watch_of(versions, ends_at=ends_at, meter_id=meter_id, pool=pool, of_tenant=of_tenant)
        if watch is not None:
            found[balance_id] = watch
    return found


def thresholds_of(tenant: Tenant) -> list[dict[str, Any]]:
    """Return a tenant's own thresholds, as they were read."""
    watch = ThresholdWatch.objects.filter(tenant=tenant).first()
    return [] if watch is None else watch.thresholds


def quantity_for_life(*, tenant_id: int, meter_id: int, pool: str) -> Decimal:
    """Return what a pool has used in all periods."""
    balances = MeterBalance.objects.filter(tenant_id=tenant_id, meter_id=meter_id, pool=pool)
    return balances.aggregate(used=Sum("used"))["used"] or Decimal(0)


def amounts_of_periods(period_ids: Sequence[int]) -> dict[int, Fraction]:
    """Return what the overage of these periods costs so far over all pools, by their ids; 0 where there is no balance."""
    amounts = dict.fromkeys(period_ids, Fraction(0))
    for priced in priced_balances(period_ids=period_ids):
        amounts[priced.balance.period_id] += priced.priced.amount
    return amounts


def overage_amount(**conditions: Any) -> Fraction:
    """
    Return what the overage of some balances costs so far, each period priced by its own terms: exact, before discounts and tax, no fees.

    What it costs to ask grows with the number of balances: for a life of five years, sixty of a pool.
    """
    balances = MeterBalance.objects.filter(**conditions).select_related("period").order_by("pk")
    return sum((priced.priced.amount for priced in price_balances(list(balances))), Fraction(0))


def _of_pool(version_id: int, meter_id: int, pool: str) -> tuple[Threshold, ...]:
    meter_pools = pools_of_version(version_id).get(meter_id)
    found = meter_pools.by_key.get(pool) if meter_pools else None
    return found.thresholds if found else ()
