"""Grants as they are read: those of a tenant, and where each stands."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import QuerySet

from billing_site.http.problems import DomainError
from metering.models import CreditGrant, GrantSchedule, MeterBalance
from subscriptions.core.money import exact
from subscriptions.models import Meter, Tenant

_ZERO = Decimal(0)

PoolKey = tuple[int, int, str]
"""Tenant, meter and pool."""


class GrantNotFound(DomainError):
    """The tenant has no grant, or no schedule, of this id."""

    status = 404
    code = "not_found"
    title = "There is no such grant"


@dataclass(frozen=True, slots=True)
class GrantStanding:
    """
    What has become of a grant by an instant of the tenant's time: quantity = burned + expired + voided + rolled over + remaining.

    `status` is `pending` before it covers anything, `active`, then `used_up`, `expired`, `voided` or `rolled_over`.
    """

    status: str
    expired: Decimal
    voided: Decimal
    remaining: Decimal


def find_grants(*, tenant: Tenant, meter: Meter | None = None) -> QuerySet[CreditGrant]:
    """Return the tenant's grants, of one meter or of all, unordered, with what an answer names of them at hand."""
    grants = CreditGrant.objects.filter(tenant=tenant).select_related(
        "tenant", "meter", "balance__period", "schedule", "rolled_from"
    )
    return grants if meter is None else grants.filter(meter=meter)


def get_grant(*, tenant: Tenant, public_id: UUID) -> CreditGrant:
    """Return a grant of the tenant. Raises GrantNotFound (404)."""
    grant = find_grants(tenant=tenant).filter(public_id=public_id).first()
    if grant is None:
        raise GrantNotFound(f"{tenant.code} has no grant {public_id}.")
    return grant


def find_schedules(*, tenant: Tenant) -> QuerySet[GrantSchedule]:
    """Return the tenant's schedules, unordered."""
    return GrantSchedule.objects.filter(tenant=tenant).select_related("tenant", "meter")


def get_schedule(*, tenant: Tenant, public_id: UUID) -> GrantSchedule:
    """Return a schedule of the tenant. Raises GrantNotFound (404)."""
    schedule = find_schedules(tenant=tenant).filter(public_id=public_id).first()
    if schedule is None:
        raise GrantNotFound(f"{tenant.code} has no grant schedule {public_id}.")
    return schedule


def pool_key(row: MeterBalance | CreditGrant) -> PoolKey:
    """Return which pool the row is of."""
    return row.tenant_id, row.meter_id, row.pool


def pool_grants(pools: Iterable[PoolKey]) -> dict[PoolKey, list[CreditGrant]]:
    """Return the grants of these pools that belong to no one balance, by pool."""
    wanted = set(pools)
    found: dict[PoolKey, list[CreditGrant]] = {}
    candidates = CreditGrant.objects.filter(
        balance__isnull=True, tenant_id__in={one[0] for one in wanted}, meter_id__in={one[1] for one in wanted}
    )
    for grant in candidates.order_by("pk"):
        if pool_key(grant) in wanted:
            found.setdefault(pool_key(grant), []).append(grant)
    return found


def wide_mates(balances: Iterable[MeterBalance]) -> set[int]:
    """Return the ids of the open balances that share grants of the pool with these."""
    pools = {pool_key(one) for one in balances if one.is_wide}
    if not pools:
        return set()
    rows = MeterBalance.objects.filter(
        tenant_id__in={pool[0] for pool in pools}, is_wide=True, closed_at__isnull=True
    ).values_list("pk", "tenant_id", "meter_id", "pool")
    return {pk for pk, *pool in rows if tuple(pool) in pools}


def standing_of(grant: CreditGrant, *, at: datetime) -> GrantStanding:
    """
    Return where a grant stands at the tenant's time.

    What is in force is decided by time: what is left of a grant whose time is over counts as expired, or voided, though its entry is
    posted later, and late events of its time may burn of it until then.
    """
    ends = [end for end in (grant.expires_at, grant.voided_at) if end is not None]
    over = bool(ends) and min(ends) <= at
    left = grant.remaining
    with exact():
        voided = grant.voided + (left if over and grant.was_voided else _ZERO)
        expired = grant.expired + (left if over and not grant.was_voided else _ZERO)
    if over:
        status = "voided" if grant.was_voided else "rolled_over" if grant.rolled_over else "expired"
    elif grant.effective_at > at:
        status = "pending"
    else:
        status = "active" if left else "used_up"
    return GrantStanding(status, expired, voided, _ZERO if over else left)
