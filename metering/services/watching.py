"""
Looks at thresholds where no event brings them up: what is included has changed, by a grant or by time.

Owns when to look again, and the arming of percentages that were reached. What is told, `thresholds` decides.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from uuid import UUID

from django.db import transaction

from metering.core.thresholds import Measure, Once, Position, Threshold, line_of, reached
from metering.models import MeterBalance, ThresholdCrossing, ThresholdWatch
from metering.selectors.thresholds import Watch
from metering.services.locked import LockedBalance
from metering.services.locking import lock_pools
from metering.services.thresholds import Cause, cross, included_now, lock_watches, raise_epochs
from subscriptions.core.money import precise


def look(
    locked: Mapping[int, LockedBalance], *, now_of: Mapping[int, datetime], cause: Cause = Cause.GRANT
) -> list[UUID]:
    """
    Tell of the thresholds that these balances have reached because what they include has changed; return the new crossings' ids.

    Call it last in the transaction of the change, with balances that were locked after it or brought up to date, whenever a grant is made,
    voided or moved. `now_of` gives each balance's tenant time. Percentages whose
    line was lifted above what was used are armed anew, and the tenants' next look is set for when a grant begins or ends.
    """
    new = cross(locked.values(), now_of=now_of, cause=cause)
    armed = [balance.row.pk for balance in locked.values() if _arm_anew(balance, now_of[balance.row.pk])]
    if armed:
        raise_epochs(armed)
    look_later(_next_looks(locked, now_of))
    return new


def look_later(times: Mapping[int, datetime]) -> None:
    """
    Let the thresholds of tenants, by their ids, be looked at by due work at these times of theirs, unless that is to be sooner.

    Call it, with the start, where a period is opened into which a grant reaches: nothing of it is used yet, so that nothing can be reached.
    """
    for watch in lock_watches(times) if times else ():
        at = times[watch.tenant_id]
        if watch.due_at is None or at < watch.due_at:
            watch.due_at = at
            watch.save(update_fields=["due_at"])


@transaction.atomic
def look_at_due(*, watch_ids: Collection[int], now: datetime) -> None:
    """
    Look at the running periods of tenants in whose grants something begins or ends now, the tenants' time, and set when to look again.

    Doing it twice tells nothing twice.
    """
    tenants = list(ThresholdWatch.objects.filter(pk__in=watch_ids).values_list("tenant_id", flat=True))
    running = MeterBalance.objects.filter(
        tenant_id__in=tenants, closed_at__isnull=True, period__starts_at__lte=now, period__ends_at__gt=now
    )
    locked = lock_pools(running.values_list("pk", flat=True))
    ThresholdWatch.objects.filter(pk__in=watch_ids).update(due_at=None)
    look(locked, now_of=dict.fromkeys(locked, now), cause=Cause.TIME)


def _percentages(watch: Watch | None, now: datetime) -> list[Threshold]:
    return [one for one in watch.of_pool(now) if one.measure == Measure.PERCENT] if watch else []


def _arm_anew(balance: LockedBalance, now: datetime) -> int:
    """Arm the percentages whose line now lies above what was used, and above where it lay when they were reached; how many were."""
    watch, row = balance.watch, balance.row
    included = included_now(balance, watch, now) if watch else None
    if included is None:
        return 0
    percentages = [one for one in _percentages(watch, now) if one.once == Once.PERIOD]
    within_reach = {one.threshold for one in reached(percentages, Position(used=row.used, included=included))}
    told = ThresholdCrossing.objects.filter(
        tenant_id=row.tenant_id, meter_id=row.meter_id, pool=row.pool, period_id=row.period_id, rearmed_at__isnull=True
    )
    return sum(
        told.filter(threshold=one.key, line__lt=precise(line_of(one, included))).update(rearmed_at=now)
        for one in percentages
        if one not in within_reach
    )


def _next_looks(locked: Mapping[int, LockedBalance], now_of: Mapping[int, datetime]) -> dict[int, datetime]:
    """Return, by tenant, when a grant of these balances next begins or ends."""
    next_looks: dict[int, datetime] = {}
    for balance in locked.values():
        tenant_id = balance.row.tenant_id
        for bound in _bounds(balance, now_of[balance.row.pk]):
            next_looks[tenant_id] = min(bound, next_looks.get(tenant_id, bound))
    return next_looks


def _bounds(balance: LockedBalance, now: datetime) -> Iterator[datetime]:
    """Yield when a grant begins or ends in what is left of the period, where a percentage depends on it."""
    watch = balance.watch
    if watch is None or balance.row.closed_at is not None or not _percentages(watch, now):
        return
    for grant in balance.grants:
        for bound in (grant.effective_at, grant.ends_at):
            if bound is not None and now < bound < watch.ends_at:
                yield bound
