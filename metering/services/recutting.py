"""
Brings open balances in line with the grants of their pools and the versions of their period, after these have changed: segments, ledger and
position.

Where a grant or a version now starts or ends among usage that was counted already, the totals of that stretch are cut anew by reading its events again.
The ledger says so by entries that take the usage out of one segment and enter it in another; then the pool is walked. Owns no grant.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from django.db import connection

from billing_site.database import uuid7
from metering.core.burndown import Grant
from metering.core.measuring import dimension_set
from metering.core.segments import VersionSpan as CoreSpan
from metering.core.segments import cut, cuts_of, meets, segment_start
from metering.models import CreditGrant, MeterBalance
from metering.selectors.grants import pool_grants, pool_key
from metering.selectors.terms import pools_of_version
from metering.services.locked import LockedBalance, lock_balances
from metering.services.posting import Movement, post
from metering.services.thresholds import Cause
from metering.services.watching import look
from subscriptions.core.money import exact
from subscriptions.core.prices import Price
from subscriptions.core.pricing import clamp_event
from subscriptions.selectors.agreement import VersionSpan, version_spans

_ZERO = Decimal(0)

# What the events of a stretch were counted as, by the piece of it between two bounds. `each` is the quantity of one event, where that is
# asked for: some prices look at each.
_COUNTED = """
SELECT width_bucket(e.occurred_at, %(bounds)s::timestamptz[]) AS piece, c.value ->> 1 AS dimension_key,
       CASE WHEN %(each)s THEN (c.value ->> 2)::numeric END AS each, 1 AS sign, sum((c.value ->> 2)::numeric), count(*)
FROM metering_usageevent e CROSS JOIN LATERAL jsonb_array_elements(e.counts) AS c
WHERE e.subject = %(subject)s AND e.occurred_at >= %(starts_at)s AND e.occurred_at < %(ends_at)s::timestamptz
  AND (c.value ->> 0)::bigint = %(balance)s
GROUP BY 1, 2, 3
UNION ALL
SELECT width_bucket(e.occurred_at, %(bounds)s::timestamptz[]), n.dimension_key, CASE WHEN %(each)s THEN abs(n.quantity) END,
       CASE n.kind WHEN 'reversal' THEN -1 ELSE 1 END, sum(n.quantity), count(*)
FROM metering_eventcount n JOIN metering_usageevent e ON e.id = n.event_id
WHERE e.subject = %(subject)s AND e.occurred_at >= %(starts_at)s AND e.occurred_at < %(ends_at)s::timestamptz AND n.balance_id = %(balance)s
GROUP BY 1, 2, 3, 4
"""


def recut(
    balances: Sequence[MeterBalance],
    *,
    now: datetime,
    versions_before: Sequence[VersionSpan] | None = None,
    shrunk: Mapping[int, Decimal] = MappingProxyType({}),
) -> None:
    """
    Let open balances follow the grants of their pools, and the versions of their period, as they are stored now, and raise their epochs.

    `versions_before` are those of the balances' period by which their usage was placed, where they have changed. `shrunk` are grants, by id,
    that have less than is stored: that cannot be written before what they gave too much is taken back.

    The caller holds the locks of all of them, and with a wide one those of the pool's other wide ones; their periods and tenants are at
    hand. `now` is the tenant's, and dates the booking that falls due where overage has moved. Thresholds that what is included has reached
    are told of.
    """
    grants = pool_grants({pool_key(balance) for balance in balances})
    movements: list[Movement] = []
    for balance in balances:
        of_pool = grants.get(pool_key(balance), [])
        cuts, is_wide = reach_of(balance, of_pool)
        if balance.events and (cuts != balance.cuts or (versions_before is not None and balance.meter.is_additive)):
            movements += _moved_usage(balance, cuts, versions_before)
        # What was wide stays so: grants of the pool may have been burned in it.
        balance.cuts, balance.is_wide, balance.epoch = cuts, balance.is_wide or is_wide, balance.epoch + 1
    MeterBalance.objects.bulk_update(balances, ["cuts", "is_wide", "epoch"])
    ids = [balance.pk for balance in balances]
    locked = lock_balances(ids, wide=[balance.pk for balance in balances if balance.is_wide])
    for one in locked.values():
        one.walks_again = one.row.events > 0
        for grant_id, quantity in shrunk.items():
            _shrink(one, grant_id, quantity)
    times = dict.fromkeys(locked, now)
    post(movements, posting_id=uuid7(), kind="walk", locked=locked, now_of=times, cause=Cause.GRANT)
    look(locked, now_of=times)


def reach_of(balance: MeterBalance, grants: Iterable[CreditGrant]) -> tuple[list[datetime], bool]:
    """
    Return where grants of the pool cut the balance's period, and whether any of them may be burned in it.

    Cuts are made by time alone, so that they can be told from the grants for ever; one whose quantity was burned in closed periods still
    cuts, and burns no more.
    """
    period = balance.period.period
    core: list[tuple[Grant, bool]] = [(grant.as_core(), grant.settled < grant.quantity) for grant in grants]
    is_wide = any(has_some and meets(grant, period) for grant, has_some in core)
    return cuts_of(period, [grant for grant, _ in core]), is_wide


class _Piece(NamedTuple):
    """Usage between two bounds: of one dimension set and, where prices look at each event, of events of one quantity."""

    piece: int
    dimension_key: str
    each: Decimal | None
    sign: int
    quantity: Decimal
    events: int


def _shrink(balance: LockedBalance, grant_id: int, quantity: Decimal) -> None:
    for place, grant in enumerate(balance.grants):
        if grant.id == grant_id:
            with exact():
                balance.remaining[grant_id] -= grant.quantity - quantity
            balance.grants[place] = replace(grant, quantity=quantity)


def _moved_usage(
    balance: MeterBalance, cuts: Sequence[datetime], versions_before: Sequence[VersionSpan] | None
) -> list[Movement]:
    """Return the movements that bring the usage of the balance's segments from its present cuts to new ones."""
    spans = version_spans(balance.period)
    spans_of = (versions_before or spans, spans)
    before, after = (
        {*_starts(balance, of_time), *some} for of_time, some in zip(spans_of, (balance.cuts, cuts), strict=True)
    )
    changed = before ^ after
    if not changed:
        return []
    bounds = sorted(before | after)
    ends = [at for at in before & after if at > max(changed)]
    moved: dict[tuple[datetime, str], Movement] = {}
    with exact():
        for one in _read(balance, bounds, min(changed), min(ends, default=None)):
            instant = bounds[max(one.piece - 1, 0)]
            places = [segment_start(balance.period.starts_at, sorted(some), instant) for some in (before, after)]
            if places[0] == places[1]:
                continue
            for segment_at, sign, of_time in zip(places, (-1, 1), spans_of, strict=True):
                key = segment_at, one.dimension_key
                movement = moved.setdefault(key, Movement(balance.pk, *key))
                movement.quantity += sign * one.quantity
                movement.events += sign * one.sign * one.events
                movement.clamped += sign * _clamped(balance, one, of_time, segment_at)
    return [movement for movement in moved.values() if movement.quantity or movement.events]


def _starts(balance: MeterBalance, spans: Sequence[VersionSpan]) -> list[datetime]:
    core = [CoreSpan(span.terms_id, span.starts_at) for span in spans]
    return [segment.starts_at for segment in cut(balance.period.period, core, [])]


def _read(
    balance: MeterBalance, bounds: Sequence[datetime], starts_at: datetime, ends_at: datetime | None
) -> list[_Piece]:
    parameters: dict[str, Any] = {
        "bounds": list(bounds),
        "each": any(price is not None for price in _clamping_prices(balance)),
        "subject": balance.tenant.code,
        "balance": balance.pk,
        "starts_at": starts_at,
        # Events of a period that was cut short may lie beyond its end.
        "ends_at": ends_at or "infinity",
    }
    with connection.cursor() as cursor:
        cursor.execute(_COUNTED, parameters)
        return [_Piece(*row) for row in cursor]


def _clamping_prices(balance: MeterBalance) -> list[Price]:
    charges = [
        charge
        for span in version_spans(balance.period)
        if balance.meter_id in pools_of_version(span.terms_id)
        for charge in pools_of_version(span.terms_id)[balance.meter_id].charges
    ]
    return [charge.price for charge in charges if charge.price.clamps_events]


def _clamped(balance: MeterBalance, one: _Piece, spans: Sequence[VersionSpan], segment_at: datetime) -> Decimal:
    """Return what the events of a piece cost where the charge in force in a segment prices each of them; else 0."""
    if one.each is None:
        return _ZERO
    in_force = max((span for span in spans if span.starts_at <= segment_at), key=lambda span: span.starts_at)
    pools = pools_of_version(in_force.terms_id).get(balance.meter_id)
    charge = pools.charge_for(dimension_set(one.dimension_key)) if pools else None
    if charge is None or not charge.price.clamps_events:
        return _ZERO
    return one.sign * one.events * clamp_event(charge.price, one.each)
