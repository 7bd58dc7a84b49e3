"""
Where usage of a moment belongs: the tenant's time, its periods, and the balances of their pools. Read without locks.

What is read here may change before the balances are locked; their `epoch` tells, and the reader reads again (design §3). So
however old a placement is, it may be tried: a process remembers those of tenants that live in wall time. A test clock moves
without raising an epoch; and what a placement lacks (a period, a balance) is no finding until it was read afresh.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from billing_site.prepared import run
from metering.core.segments import VersionSpan, cut, segment_at, segment_start
from metering.selectors.terms import CHANGES_OF_PERIOD, TERMS_OF_PERIOD, window_lengths
from metering.selectors.thresholds import Watch, watch_of
from subscriptions.core.periods import Period


@dataclass(slots=True)
class PlacedBalance:
    """A balance as it was when it was read."""

    id: int
    tenant: str
    meter_id: int
    pool: str
    epoch: int
    period: "PlacedPeriod"
    tenant_id: int
    # Whether grants of the pool reach into it: its lock is one of several.
    is_wide: bool
    # The instants at which grants of the pool cut its period.
    cuts: list[datetime]
    # What is to be told of it; None where neither its pool nor its tenant has thresholds.
    watch: Watch | None = None
    # Lengths of the rolling windows in which its usage stands: those of every version that the tenant is placed in, as usage of an
    # ended period stands in the windows of the next one, too.
    windows: tuple[int, ...] = ()

    def cut_segment(self, segment_at: datetime, instant: datetime) -> datetime:
        """Return where the segment of `instant` starts, given where the stretch of its version does."""
        return segment_start(segment_at, self.cuts, instant)


@dataclass(slots=True)
class PlacedPeriod:
    """A stored period with its balances and the instants at which its version changed; versions stand in it by their terms' ids."""

    id: int
    terms_id: int
    starts_at: datetime
    ends_at: datetime
    is_closed: bool
    changes: list[tuple[datetime, int]]
    balances: dict[tuple[int, str], PlacedBalance] = field(default_factory=dict)
    meter_ids: set[int] = field(default_factory=set)

    @property
    def versions(self) -> dict[datetime, int]:
        """The versions by the instants from which they are in force; one that a change replaced at its first instant had no time."""
        return dict([(self.starts_at, self.terms_id), *self.changes])

    @property
    def whole(self) -> tuple[datetime, int]:
        """The one segment that a meter which does not add up has in a period: its first instant, and the version in force there."""
        return self.segment_of(self.starts_at)

    def segment_of(self, instant: datetime) -> tuple[datetime, int]:
        """Return the first instant of the segment of `instant` and the terms that price it."""
        if not self.changes:
            return self.starts_at, self.terms_id
        spans = [VersionSpan(version_id, effective_at) for effective_at, version_id in self.versions.items()]
        segment = segment_at(cut(Period(self.starts_at, self.ends_at), spans, []), instant)
        return segment.starts_at, int(segment.version_id)


@dataclass(slots=True)
class Placement:
    """A tenant, its time, and the periods that touch the asked-for stretch of it."""

    tenant_id: int
    code: str
    # The test clock's time; None for a tenant that lives in wall time.
    clock_now: datetime | None
    is_advancing: bool
    periods: list[PlacedPeriod] = field(default_factory=list)

    def now(self, wall: datetime) -> datetime:
        """Return the tenant's time."""
        return wall if self.clock_now is None else self.clock_now

    def has(self, instant: datetime, meter_ids: Iterable[int]) -> bool:
        """Return whether it has the period of the instant, with a balance of each of these meters."""
        period = self.period_at(instant)
        return period is not None and period.meter_ids.issuperset(meter_ids)

    def period_at(self, instant: datetime) -> PlacedPeriod | None:
        """Return the stored period that covers the instant."""
        for period in self.periods:
            if period.starts_at <= instant < period.ends_at:
                return period
        return None


# About five kilobytes each, in each process.
REMEMBERED_MAX = 2_000

_remembered: dict[str, Placement] = {}

# The tenants' clocks decide which periods are theirs now; wall time where there is none.
_PLACEMENTS = f"""
SELECT t.code, t.id, c.now, c.status = 'advancing',
       p.id, {TERMS_OF_PERIOD}, p.starts_at, p.ends_at, p.closed_at IS NOT NULL,
       {CHANGES_OF_PERIOD},
       b.id, b.meter_id, b.pool, b.epoch, b.is_wide, b.cuts, NULLIF(w.thresholds, '[]')
FROM subscriptions_tenant t
LEFT JOIN subscriptions_testclock c ON c.id = t.test_clock_id
LEFT JOIN metering_thresholdwatch w ON w.tenant_id = t.id
LEFT JOIN subscriptions_billingperiod p ON p.tenant_id = t.id
     AND p.starts_at <= GREATEST(%s::timestamptz, COALESCE(c.now, %s::timestamptz))
     AND p.ends_at > LEAST(%s::timestamptz, COALESCE(c.now, %s::timestamptz))
LEFT JOIN metering_meterbalance b ON b.period_id = p.id
WHERE t.code = ANY(%s::text[])
ORDER BY t.id, p.starts_at
"""

_UNOPENED = """
SELECT s.id FROM subscriptions_subscription s
WHERE s.tenant_id = %s AND s.starts_at <= %s AND (s.ends_at IS NULL OR s.ends_at > %s) AND s.paused_at IS NULL
  AND NOT EXISTS (SELECT 1 FROM subscriptions_billingperiod p WHERE p.subscription_id = s.id AND p.ends_at > %s)
"""


def read_placements(
    codes: Iterable[str], *, earliest: datetime, latest: datetime, wall: datetime
) -> dict[str, Placement]:
    """
    Return the tenants of these codes with every period that touches [earliest, latest] or the tenant's now, and remember them.

    A code that is no tenant's is missing from the answer.
    """
    placements: dict[str, Placement] = {}
    for row in run(_PLACEMENTS, [latest, wall, earliest, wall, sorted(set(codes))]):
        code, tenant_id, clock_now, advancing = row[:4]
        placement = placements.get(code)
        if placement is None:
            placement = placements[code] = Placement(tenant_id, code, clock_now, bool(advancing))
        if row[4] is not None:
            _add_period(placement, row[4:])
    for placement in placements.values():
        _see_windows(placement)
    if len(_remembered) + len(placements) > REMEMBERED_MAX:
        _remembered.clear()
    _remembered.update((code, placement) for code, placement in placements.items() if placement.clock_now is None)
    return placements


def remembered_placement(code: str) -> Placement | None:
    """Return the tenant as this process has read it last; None where it has not, or its time is a test clock's."""
    return _remembered.get(code)


def forget_placements(codes: Iterable[str] | None = None) -> None:
    """Forget these tenants, whose balances have changed; all, where none are named."""
    for code in list(_remembered) if codes is None else codes:
        _remembered.pop(code, None)


def unopened_subscription(*, tenant_id: int, at: datetime) -> int | None:
    """Return the subscription that runs at the instant though its period is not opened yet; None where none does."""
    row = run(_UNOPENED, [tenant_id, at, at, at]).fetchone()
    return row[0] if row else None


def _see_windows(placement: Placement) -> None:
    versions = tuple(sorted({version_id for period in placement.periods for version_id in period.versions.values()}))
    for period in placement.periods:
        for balance in period.balances.values():
            balance.windows = window_lengths(versions, balance.meter_id, balance.pool)


def _add_period(placement: Placement, row: tuple) -> None:
    period_id, terms_id, starts_at, ends_at, is_closed, instants, versions = row[:7]
    if not placement.periods or placement.periods[-1].id != period_id:
        changes = list(zip(instants, versions, strict=True))
        placement.periods.append(PlacedPeriod(period_id, terms_id, starts_at, ends_at, is_closed, changes))
    balance_id, meter_id, pool, epoch, is_wide, cuts = row[7:-1]
    if balance_id is not None:
        period = placement.periods[-1]
        period.meter_ids.add(meter_id)
        watch = watch_of(period.versions, ends_at=ends_at, meter_id=meter_id, pool=pool, of_tenant=row[-1])
        period.balances[meter_id, pool] = PlacedBalance(
            balance_id, placement.code, meter_id, pool, epoch, period, placement.tenant_id, is_wide, cuts, watch
        )
