"""Where pools stand: what was used, what is left, and what the overage costs so far. A pure read of the ledger's rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing_site.database import one_state
from billing_site.prepared import run
from metering.core.measuring import dimension_set
from metering.core.overage import SegmentUsage, price_pool
from metering.core.pools import Pool, costs_nothing_unused
from metering.core.windows import WindowUse
from metering.selectors.overage import BalanceFigures, charges_in_force, segments_of
from metering.selectors.terms import CHANGES_OF_PERIOD, TERMS_OF_PERIOD, pools_of_version
from metering.selectors.windows import WindowUses
from subscriptions.core.money import exact, precise

_ZERO = Decimal(0)


@dataclass(slots=True)
class BalanceView:
    """Where a pool stands: one per meter, unless a charge has a pool of its own, which `dimensions` then names."""

    tenant: str
    meter: str
    dimensions: dict[str, str]
    period_ends_at: datetime
    # Meter units.
    used: Decimal
    included: Decimal
    remaining: Decimal
    overage: Decimal
    held: Decimal
    # In the tenant's currency, not rounded.
    overage_amount_precise: Decimal
    # The terms by which the gate decides.
    pool: Pool
    standing: "Standing"
    # What stands in each of the pool's windows, in their order; only read for the gate.
    window_uses: Sequence[WindowUse] = ()

    @property
    def state(self) -> str:
        """`included` while something remains, `exhausted` when nothing remains and nothing is beyond, `overage` beyond."""
        if self.overage > 0:
            return "overage"
        return "included" if self.remaining > 0 else "exhausted"


@dataclass(slots=True)
class Standing:
    """A balance's row, with what a view of it takes from elsewhere."""

    row: BalanceFigures
    # Codes.
    tenant: str
    meter: str
    ends_at: datetime
    # The terms of its period by the instants from which they are in force, in time order.
    versions: Mapping[datetime, int]
    # Of the grants in force at the tenant's time; of those of the pool, what closed periods have left.
    granted: Decimal = _ZERO
    remaining: Decimal = _ZERO
    # What balances of earlier periods, which still wait for late usage, hold of the grants that it shares with them.
    held_elsewhere: Decimal = _ZERO
    # What its overage was priced from; None where rating had no need of it.
    segments: Sequence[SegmentUsage] | None = None

    def add_grant(self, quantity: Decimal, remaining: Decimal) -> None:
        """Count a grant that is in force."""
        with exact():
            self.granted += quantity
            self.remaining += remaining


@dataclass(slots=True)
class TenantBalances:
    """A tenant's pools in its present period, by meter and pool. `views` is None while no stored period covers its now."""

    tenant_id: int
    now: datetime
    views: list[BalanceView] | None
    # In its currency; None without one.
    spend_cap: Decimal | None = None


@dataclass(slots=True)
class _Row:
    pk: int
    period_id: int
    meter_id: int
    pool: str
    used: Decimal
    covered: Decimal
    # Without the holds whose time is up, whether or not somebody has come to them.
    held: Decimal
    held_amount: Decimal


_BALANCES = f"""
SELECT t.code, t.id, n.now, t.spend_cap, p.id, {TERMS_OF_PERIOD}, p.starts_at, p.ends_at,
       {CHANGES_OF_PERIOD},
       m.code, g.quantity, g.remaining, LEAST(COALESCE(e.quantity, 0), g.shared), b.id, b.period_id, b.meter_id, b.pool, b.used, b.covered,
       b.held - COALESCE(o.quantity, 0), b.held_amount - COALESCE(o.amount, 0)
FROM subscriptions_tenant t
LEFT JOIN subscriptions_testclock c ON c.id = t.test_clock_id
CROSS JOIN LATERAL (SELECT COALESCE(c.now, %s::timestamptz) AS now) AS n
LEFT JOIN subscriptions_billingperiod p ON p.tenant_id = t.id AND p.starts_at <= n.now AND p.ends_at > n.now
LEFT JOIN metering_meterbalance b ON b.period_id = p.id
LEFT JOIN subscriptions_meter m ON m.id = b.meter_id
LEFT JOIN LATERAL (
    SELECT COALESCE(sum(quantity - settled), 0) AS quantity, COALESCE(sum(remaining), 0) AS remaining,
           COALESCE(sum(remaining) FILTER (WHERE balance_id IS NULL), 0) AS shared
    FROM (
        SELECT quantity, settled, remaining, effective_at, expires_at, voided_at, balance_id
        FROM metering_creditgrant WHERE balance_id = b.id
        UNION ALL
        SELECT quantity, settled, remaining, effective_at, expires_at, voided_at, balance_id FROM metering_creditgrant
        WHERE b.is_wide AND balance_id IS NULL AND (tenant_id, meter_id, pool) = (b.tenant_id, b.meter_id, b.pool)
    ) AS o
    WHERE effective_at <= n.now AND COALESCE(expires_at > n.now, true) AND COALESCE(voided_at > n.now, true)
) AS g ON true
LEFT JOIN LATERAL (
    SELECT sum(quantity) AS quantity, sum(amount_precise) AS amount FROM metering_authorization
    WHERE balance_id = b.id AND due_at <= n.now
) AS o ON b.held > 0
LEFT JOIN LATERAL (
    SELECT sum(a.quantity) AS quantity FROM metering_meterbalance m JOIN metering_authorization a ON a.balance_id = m.id AND a.due_at > n.now
    WHERE (m.tenant_id, m.meter_id, m.pool) = (b.tenant_id, b.meter_id, b.pool) AND m.id <> b.id AND m.is_wide AND m.closed_at IS NULL
) AS e ON b.is_wide
WHERE t.code = ANY(%s::text[])
ORDER BY t.id, m.code, b.pool
"""


def balances_of_tenants(codes: Iterable[str], *, wall: datetime) -> dict[str, TenantBalances]:
    """
    Return where the pools of these tenants stand, by their codes, in one query.

    Where rating must look closer at a pool, or a window limits one, more is asked: then all of it is read from one state of the database, so
    that an event that comes in between is in all figures or in none. A test clock's tenant has its own now. A code that is no tenant's is
    missing.
    """
    found, standings = _standings(codes, wall)
    if not any(_takes_more(standing) for standing in standings):
        _add_views(found, standings)
        return found
    with one_state():
        found, standings = _standings(codes, wall)
        _add_views(found, standings)
        _read_windows(found)
    return found


def _standings(codes: Iterable[str], wall: datetime) -> tuple[dict[str, TenantBalances], list[Standing]]:
    found: dict[str, TenantBalances] = {}
    standings: list[Standing] = []
    for row in run(_BALANCES, [wall, sorted(set(codes))]):
        code, tenant_id, now, cap, period_id, terms_id, starts_at, ends_at, instants, versions, meter = row[:11]
        granted, left, elsewhere = row[11:14]
        if code not in found:
            found[code] = TenantBalances(tenant_id, now, None if period_id is None else [], cap)
        if meter is not None:
            in_force = dict([(starts_at, terms_id), *zip(instants, versions, strict=True)])
            standings.append(Standing(_Row(*row[14:]), code, meter, ends_at, in_force, granted, left, elsewhere))
    return found, standings


def _takes_more(standing: Standing) -> bool:
    return (_unit_amount(standing) is None and _may_cost(standing)) or bool(_pool(standing).windows)


def _add_views(found: Mapping[str, TenantBalances], standings: Sequence[Standing]) -> None:
    for view in balance_views(standings):
        views = found[view.tenant].views
        assert views is not None
        views.append(view)


def _read_windows(found: Mapping[str, TenantBalances]) -> None:
    windowed = [(view, one.now) for one in found.values() for view in one.views or () if view.pool.windows]
    if not windowed:
        return
    uses = WindowUses({view.standing.row.pk: now for view, now in windowed})
    for view, _ in windowed:
        row = view.standing.row
        view.window_uses = [uses.of(row.pk, window.seconds, held=row.held) for window in view.pool.windows]


def balance_views(standings: Sequence[Standing]) -> list[BalanceView]:
    """Return a view of each balance, in order."""
    amounts = overage_amounts(standings)
    views = []
    for standing in standings:
        row = standing.row
        with exact():
            overage = row.used - row.covered
        view = BalanceView(
            tenant=standing.tenant,
            meter=standing.meter,
            dimensions=dict(dimension_set(row.pool)) if row.pool else {},
            period_ends_at=standing.ends_at,
            used=row.used,
            included=standing.granted,
            remaining=standing.remaining,
            overage=overage,
            held=row.held,
            overage_amount_precise=amounts.get(row.pk, _ZERO),
            pool=_pool(standing),
            standing=standing,
        )
        views.append(view)
    return views


def _pool(standing: Standing) -> Pool:
    """Return the pool by the newest terms that have it: those in force, but for one that a change of tier has left behind."""
    row = standing.row
    for terms_id in reversed([*standing.versions.values()]):
        pools = pools_of_version(terms_id).get(row.meter_id)
        if pools and row.pool in pools.by_key:
            return pools.by_key[row.pool]
    raise LookupError(f"No terms of its period have the pool of balance {row.pk}.")


def overage_amounts(standings: Sequence[Standing]) -> dict[int, Decimal]:
    """Return what overage costs so far, by balance (none: nothing); where each unit of it costs the same, without asking for its segments."""
    amounts: dict[int, Decimal] = {}
    closer: list[Standing] = []
    for standing in standings:
        row, unit_amount = standing.row, _unit_amount(standing)
        if unit_amount is not None:
            with exact():
                amounts[row.pk] = (row.used - row.covered) * unit_amount
        elif _may_cost(standing):
            closer.append(standing)
    if closer:
        versions_of = {standing.row.period_id: standing.versions for standing in closer}
        segments = segments_of([standing.row for standing in closer], versions_of)
        for standing in closer:
            standing.segments = segments[standing.row.pk]
            charges = charges_in_force(standing.row, standing.versions)
            amounts[standing.row.pk] = precise(price_pool(standing.segments, charges).amount)
    return amounts


def _unit_amount(standing: Standing) -> Decimal | None:
    """Return what each unit of overage costs, where the period's terms have not changed and nothing else decides."""
    return _pool(standing).unit_amount if len(standing.versions) == 1 else None


def _may_cost(standing: Standing) -> bool:
    row = standing.row
    return row.used != row.covered or len(standing.versions) > 1 or not costs_nothing_unused(_pool(standing))
