"""
Tells of thresholds that are reached: a row, an outbox message and a log line, in the transaction that reaches them.

A threshold is told of once in a period, or once for life, by a unique key: a retry, a second worker and a reversal that is followed by
new usage tell nothing twice. Owns neither the figures (`posting`), nor the line (`core.thresholds`), nor when to look without an event
(`watching`). What each rule is, and why: docs/thresholds.md.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import F

from billing_site.database import uuid7s
from billing_site.prepared import run
from metering.core.measuring import dimension_set
from metering.core.thresholds import Measure, Once, Position, Reached, Threshold, included_in, reached
from metering.models import MeterBalance, ThresholdCrossing, ThresholdWatch
from metering.selectors.balances import Standing, balance_views
from metering.selectors.thresholds import Watch, amounts_of_periods, overage_amount, quantity_for_life, watches
from metering.services.arrays import columns, plain_array, text_array, uuid_array
from metering.services.locked import LockedBalance
from subscriptions.core.money import as_fraction, plain, precise
from subscriptions.models import BillingPeriod, Meter, Tenant
from subscriptions.services import outbox

logger = logging.getLogger(__name__)

Cause = ThresholdCrossing.Cause
_Key = TypeVar("_Key", bound=Hashable)
_Owner = tuple[int, int | None, str]
"""Tenant, meter and pool; a tenant itself has no meter."""


@dataclass(slots=True)
class _Look:
    """Thresholds of one owner that look at the same position: of a pool or a tenant, in a period or over its life."""

    balance: LockedBalance
    watch: Watch
    now: datetime
    thresholds: Sequence[Threshold]
    of_tenant: bool
    adds_up_periods: bool

    @property
    def owner(self) -> _Owner:
        row = self.balance.row
        return (row.tenant_id, None, "") if self.of_tenant else (row.tenant_id, row.meter_id, row.pool)

    @property
    def told(self) -> set[str]:
        return self.watch.told_of_tenant if self.of_tenant else self.watch.told_of_pool

    def measures(self, measure: Measure) -> bool:
        return any(threshold.measure == measure for threshold in self.thresholds)


def cross(
    balances: Iterable[LockedBalance], *, now_of: Mapping[int, datetime], cause: Cause = Cause.USAGE
) -> list[UUID]:
    """
    Tell of the thresholds that these balances have reached, and return the ids of the new crossings.

    The caller holds the balances' locks and has written what moved them; `now_of` gives the tenants' times by balances of theirs. What is to
    be told of a balance is asked where it is not known; where there is nothing, nothing more happens. Where nothing is reached that was not told of before, nothing is asked of the database, except for sums over several
    balances and prices that are no plain unit amount. A pool that cannot be priced reaches no amount: its usage is recorded all the same.
    """
    balances = list(balances)
    _ask(balances)
    times = {balance.row.tenant_id: now_of[balance.row.pk] for balance in balances if balance.row.pk in now_of}
    looks = [
        look
        for balance in balances
        if balance.watch
        for look in _looks(balance, balance.watch, times[balance.row.tenant_id])
    ]
    if not looks:
        return []
    if tenants := {look.balance.row.tenant_id for look in looks if look.of_tenant or look.adds_up_periods}:
        lock_watches(tenants)
    positions = _positions(looks)
    found = [
        (look, one)
        for look, position in zip(looks, positions, strict=True)
        for one in reached(look.thresholds, position)
    ]
    new = _insert(found, cause) if found else {}
    if new:
        _announce(new)
    return list(new)


def lock_watches(tenant_ids: Iterable[int]) -> list[ThresholdWatch]:
    """Lock the watches of these tenants in their order, after the balances that the caller holds; make those that are missing."""
    ids = sorted(set(tenant_ids))
    rows = ThresholdWatch.objects.select_for_update(no_key=True, of=("self",)).filter(tenant_id__in=ids)
    locked = list(rows.order_by("tenant_id"))
    if missing := set(ids) - {watch.tenant_id for watch in locked}:
        ThresholdWatch.objects.bulk_create(
            [ThresholdWatch(tenant_id=tenant_id) for tenant_id in sorted(missing)], ignore_conflicts=True
        )
        locked = list(rows.order_by("tenant_id"))
    return locked


def _ask(balances: Iterable[LockedBalance]) -> None:
    """Give balances that were not found by a placement what is to be told of them."""
    unknown = {balance.row.pk: balance for balance in balances if not balance.watch_is_known}
    found = watches(unknown) if unknown else {}
    for balance_id, balance in unknown.items():
        balance.watch, balance.watch_is_known = found.get(balance_id), True


def _looks(balance: LockedBalance, watch: Watch, now: datetime) -> list[_Look]:
    looks = []
    of_both = ((False, watch.of_pool(now), watch.told_of_pool), (True, watch.of_tenant, watch.told_of_tenant))
    for of_tenant, thresholds, told in of_both:
        for adds_up in (False, True):
            chosen = [one for one in thresholds if one.adds_up_periods == adds_up and one.key not in told]
            if chosen:
                looks.append(_Look(balance, watch, now, chosen, of_tenant, adds_up))
    return looks


def _positions(looks: Sequence[_Look]) -> list[Position]:
    """Return where each of these looks finds its owner; sums are read after the tenants' watches were locked."""
    of_caps = {look.balance.row.tenant_id for look in looks if look.of_tenant and look.measures(Measure.PERCENT)}
    caps = dict(Tenant.objects.filter(pk__in=of_caps).values_list("pk", "spend_cap")) if of_caps else {}
    priced = [
        look for look in looks if look.measures(Measure.AMOUNT) or (look.of_tenant and look.measures(Measure.PERCENT))
    ]
    in_period = [look for look in priced if not look.adds_up_periods]
    of_pools = {look.balance.row.pk: look for look in in_period if not look.of_tenant}
    pools = _priced(list(of_pools), lambda ids: _amounts_of_pools([of_pools[pk] for pk in ids]))
    periods = _priced([look.balance.row.period_id for look in in_period if look.of_tenant], amounts_of_periods)
    lives = _priced([look.owner for look in priced if look.adds_up_periods], _amounts_for_life)
    positions = []
    for look in looks:
        if look.adds_up_periods:
            amount = lives.get(look.owner)
        elif look.of_tenant:
            amount = periods.get(look.balance.row.period_id)
        else:
            amount = pools.get(look.balance.row.pk)
        positions.append(_position(look, amount or Fraction(0), caps.get(look.balance.row.tenant_id)))
    return positions


def _position(look: _Look, amount: Fraction, cap: Decimal | None) -> Position:
    row = look.balance.row
    if look.of_tenant:
        return Position(used=amount, included=cap, amount=amount)
    if not look.adds_up_periods:
        included = included_now(look.balance, look.watch, look.now)
        return Position(used=row.used, included=included, quantity=row.used, amount=amount)
    if not look.measures(Measure.QUANTITY):
        return Position(amount=amount)
    quantity = quantity_for_life(tenant_id=row.tenant_id, meter_id=row.meter_id, pool=row.pool)
    return Position(quantity=quantity, amount=amount)


def included_now(balance: LockedBalance, watch: Watch, now: datetime) -> Decimal | None:
    """
    Return what is included in a balance's period at the tenant's time, and once the period has ended, at its end.

    None once it is closed: then what was left has expired, and a percentage means nothing.
    """
    if balance.row.closed_at is not None:
        return None
    instant = watch.judged_at(now)
    left = (balance.remaining[int(grant.id)] for grant in balance.grants if grant.covers(instant))
    return included_in(balance.row.covered, left)


def _priced(keys: Sequence[_Key], ask: Callable[[Sequence[_Key]], Mapping[_Key, Fraction]]) -> dict[_Key, Fraction]:
    """Ask for the amounts of all keys at once; where one of them cannot be priced, for each alone, and leave that one out."""
    keys = list(dict.fromkeys(keys))
    if not keys:
        return {}
    try:
        return dict(ask(keys))
    except (ArithmeticError, LookupError, ValueError):
        if len(keys) > 1:
            return {key: amount for one in keys for key, amount in _priced([one], ask).items()}
        logger.exception("the overage of %s cannot be priced; its thresholds wait", keys[0])
        return {}


def _amounts_of_pools(looks: Sequence[_Look]) -> dict[int, Fraction]:
    standings = [Standing(look.balance.row, "", "", look.watch.ends_at, look.watch.versions) for look in looks]
    views = balance_views(standings)
    return {
        look.balance.row.pk: as_fraction(view.overage_amount_precise) for look, view in zip(looks, views, strict=True)
    }


def _amounts_for_life(owners: Sequence[_Owner]) -> dict[_Owner, Fraction]:
    return {
        (tenant_id, meter_id, pool): overage_amount(tenant_id=tenant_id)
        if meter_id is None
        else overage_amount(tenant_id=tenant_id, meter_id=meter_id, pool=pool)
        for tenant_id, meter_id, pool in owners
    }


_INSERT = """
INSERT INTO metering_thresholdcrossing
       (public_id, tenant_id, meter_id, pool, period_id, threshold, once, cause, line, value, crossed_at)
SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[],
                     %s::numeric[], %s::numeric[], %s::timestamptz[])
ON CONFLICT DO NOTHING RETURNING public_id
"""


def _insert(found: Sequence[tuple[_Look, Reached]], cause: Cause) -> dict[UUID, tuple[_Look, Reached]]:
    """
    Write what is new of this, and remember of the rest that it was told of; return the new by their ids.

    Who finds the row of another transaction waits for its end, so that what is found is committed; what several balances of this posting
    have found is written once, and remembered by none of them yet. All write in one order.
    """
    once_each = {_identity(*one): one for one in reversed(found)}
    in_order = [once_each[identity] for identity in sorted(once_each)]
    rows = [
        (
            public_id,
            *look.owner,
            look.balance.row.period_id,
            one.threshold.key,
            one.threshold.once.value,
            cause.value,
            precise(one.line),
            precise(one.value),
            look.now.isoformat(),
        )
        for public_id, (look, one) in zip(uuid7s(len(in_order)), in_order, strict=True)
    ]
    ids, tenants, meters, pools, periods, keys, once, causes, lines, values, times = columns(rows, 11)
    inserted = run(
        _INSERT,
        [
            uuid_array(ids),
            plain_array(tenants),
            plain_array(meters),
            text_array(pools),
            plain_array(periods),
            text_array(keys),
            text_array(once),
            text_array(causes),
            plain_array(lines),
            plain_array(values),
            plain_array(times),
        ],
    )
    fresh = {row[0] for row in inserted}
    new = {}
    for public_id, (look, one) in zip(ids, in_order, strict=True):
        if public_id in fresh:
            new[public_id] = (look, one)
        else:
            look.told.add(one.threshold.key)
    return new


def _identity(look: _Look, one: Reached) -> tuple[int, int, str, str, int]:
    """Return what the unique constraints compare, so that it can be sorted."""
    tenant_id, meter_id, pool = look.owner
    period_id = look.balance.row.period_id if one.threshold.once == Once.PERIOD else 0
    return tenant_id, meter_id or 0, pool, one.threshold.key, period_id


def _announce(new: Mapping[UUID, tuple[_Look, Reached]]) -> None:
    looks = [look for look, _ in new.values()]
    periods = BillingPeriod.objects.in_bulk({look.balance.row.period_id for look in looks})
    meters = Meter.objects.in_bulk({look.balance.row.meter_id for look in looks if not look.of_tenant})
    payloads = []
    for public_id, (look, one) in new.items():
        tenant_id, meter_id, pool = look.owner
        payload = {
            "id": str(public_id),
            "meter": None if meter_id is None else meters[meter_id].code,
            "dimensions": dict(dimension_set(pool)) if pool else {},
            "period": str(periods[look.balance.row.period_id].public_id),
            "threshold": {one.threshold.measure.value: plain(one.threshold.value), "once": one.threshold.once.value},
            "line": plain(precise(one.line)),
            "value": plain(precise(one.value)),
            "at": look.now.isoformat(),
        }
        payloads.append((Tenant(pk=tenant_id), payload))
        transaction.on_commit(partial(_log, tenant_id, payload))
    outbox.write_all(type="usage.threshold_reached", payloads=payloads)


def _log(tenant_id: int, payload: Mapping[str, object]) -> None:
    logger.info("tenant %d has reached a threshold: %s", tenant_id, payload)


def raise_epochs(balance_ids: Iterable[int]) -> None:
    """Let whoever has placed usage against these balances, which the caller has locked, place it again."""
    MeterBalance.objects.filter(pk__in=list(balance_ids)).update(epoch=F("epoch") + 1)
