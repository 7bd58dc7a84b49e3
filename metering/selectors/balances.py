"""Where pools stand: what was used, what is left, and what the overage costs so far. A pure read of the ledger's rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from metering.core.measuring import dimension_set
from metering.core.pools import Pool, costs_nothing_unused
from metering.models import CreditGrant, MeterBalance
from metering.selectors.overage import price_balances
from metering.selectors.terms import pools_of_version
from subscriptions.core.money import exact, precise
from subscriptions.models import Tenant

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

    @property
    def state(self) -> str:
        """`included` while something remains, `exhausted` when nothing remains and nothing is beyond, `overage` beyond."""
        if self.overage > 0:
            return "overage"
        return "included" if self.remaining > 0 else "exhausted"


def current_balances(tenant: Tenant, *, now: datetime) -> list[BalanceView]:
    """Return the tenant's pools in the period that covers `now`, by meter and pool; none where no period does."""
    rows = list(
        MeterBalance.objects.filter(tenant=tenant, period__starts_at__lte=now, period__ends_at__gt=now)
        .select_related("period", "meter", "tenant")
        .order_by("meter__code", "pool")
    )
    return list(balance_views(rows, now_of={row.pk: now for row in rows}).values())


def balance_views(rows: Sequence[MeterBalance], *, now_of: Mapping[int, datetime]) -> dict[int, BalanceView]:
    """
    Return a view of each balance by its id. Tenant, meter and period must be at hand on the rows.

    A grant counts into `included` and `remaining` while it is in force at the tenant's time.
    """
    quantities = _granted(rows, now_of)
    pools = {row.pk: _pool(row) for row in rows}
    amounts = _amounts([row for row in rows if row.used != row.covered or not costs_nothing_unused(pools[row.pk])])
    views = {}
    for row in rows:
        included, remaining = quantities.get(row.pk, (_ZERO, _ZERO))
        with exact():
            overage = row.used - row.covered
        views[row.pk] = BalanceView(
            tenant=row.tenant.code,
            meter=row.meter.code,
            dimensions=dict(dimension_set(row.pool)) if row.pool else {},
            period_ends_at=row.period.ends_at,
            used=row.used,
            included=included,
            remaining=remaining,
            overage=overage,
            held=row.held,
            overage_amount_precise=amounts.get(row.pk, _ZERO),
            pool=pools[row.pk],
        )
    return views


def _granted(rows: Sequence[MeterBalance], now_of: Mapping[int, datetime]) -> dict[int, tuple[Decimal, Decimal]]:
    quantities: dict[int, tuple[Decimal, Decimal]] = {}
    for grant in CreditGrant.objects.filter(balance_id__in=[row.pk for row in rows]):
        if grant.effective_at <= now_of[grant.balance_id] < grant.expires_at:
            included, remaining = quantities.get(grant.balance_id, (_ZERO, _ZERO))
            with exact():
                quantities[grant.balance_id] = (included + grant.quantity, remaining + grant.remaining)
    return quantities


def _pool(row: MeterBalance) -> Pool:
    return pools_of_version(row.period.version_id)[row.meter_id].by_key[row.pool]


def _amounts(rows: list[MeterBalance]) -> dict[int, Decimal]:
    return {one.balance.pk: precise(one.priced.amount) for one in price_balances(rows)} if rows else {}
