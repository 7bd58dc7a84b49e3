"""
Balances under their row locks, with the grants of their pools: what everything that places or holds usage works on.

Takes the locks, in the documented order, and reads what they guard after them. Writes nothing (`posting` does).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal

from billing_site.prepared import run
from metering.core.burndown import Grant, GrantKind, burn_order
from metering.models import MeterBalance
from metering.selectors.thresholds import Watch
from metering.services.arrays import plain_array
from subscriptions.core.money import exact

_ZERO = Decimal(0)


@dataclass(slots=True)
class BalanceRow:
    """What placing usage needs of a balance; as many of them are made as balances are touched, so it is no model."""

    pk: int
    tenant_id: int
    meter_id: int
    period_id: int
    pool: str
    used: Decimal
    covered: Decimal
    held: Decimal
    held_amount: Decimal
    events: int
    epoch: int
    newest_segment_at: datetime | None
    booked_overage: Decimal
    booked_at: datetime | None
    due_at: datetime | None
    closed_at: datetime | None
    is_wide: bool
    cuts: list[datetime]


_LOCKED = MeterBalance.objects.select_for_update(no_key=True, of=("self",)).order_by("pk").values_list("pk", flat=True)


@dataclass(slots=True)
class LockedBalance:
    """
    A balance under its row lock, with the grants of its pool, in burn order; kept up to date while movements are placed.

    Unclosed wide balances of one pool, `mates`, share the grants and what becomes of them: a grant of the pool is burned by all of them.
    """

    row: BalanceRow
    grants: list[Grant] = field(default_factory=list)
    remaining: dict[int, Decimal] = field(default_factory=dict)
    burned: dict[int, Decimal] = field(default_factory=dict)
    expired: dict[int, Decimal] = field(default_factory=dict)
    walks_again: bool = False
    mates: "list[LockedBalance]" = field(default_factory=list)
    # What is to be told of it, None where nothing is: set by who has read it with the placement, else asked when it is needed.
    watch: Watch | None = None
    watch_is_known: bool = False
    # Whether its usage stands in rolling windows.
    has_windows: bool = False

    @property
    def overage(self) -> Decimal:
        """What no grant covers."""
        return self.row.used - self.row.covered

    @property
    def pool(self) -> "list[LockedBalance]":
        """The balances that are walked together, in time order."""
        return self.mates or [self]

    @property
    def newest_segment_at(self) -> datetime | None:
        """The newest segment with usage of what is walked together; an event in an older one walks again from there."""
        if not self.mates:
            return self.row.newest_segment_at
        return max((at for mate in self.mates if (at := mate.row.newest_segment_at) is not None), default=None)

    def model(self) -> MeterBalance:
        """Read the balance with its tenant, meter and period: for the few callers that need them."""
        return MeterBalance.objects.select_related("tenant", "meter", "period").get(pk=self.row.pk)

    def burn(self, grant_id: int, quantity: Decimal) -> None:
        """Move the grant's and the balance's figures by a burn (negative: an un-burn)."""
        with exact():
            self.burned[grant_id] = self.burned.get(grant_id, _ZERO) + quantity
            self.remaining[grant_id] -= quantity
            self.row.covered += quantity

    def expire_burned(self, grant_id: int, quantity: Decimal) -> None:
        """Un-burn a part that expires at once, so that nothing becomes available again."""
        with exact():
            self.burned[grant_id] = self.burned.get(grant_id, _ZERO) - quantity
            self.expired[grant_id] = self.expired.get(grant_id, _ZERO) + quantity
            self.row.covered -= quantity


_READ_LOCKED = f"""
SELECT b.id, {", ".join(f"b.{column.name}" for column in fields(BalanceRow) if column.name != "pk")},
       g.id, g.remaining, g.quantity, g.priority, g.effective_at, g.expires_at, g.kind, g.created_at
FROM metering_meterbalance b LEFT JOIN metering_creditgrant g ON g.balance_id = b.id
WHERE b.id = ANY(%s::bigint[]) ORDER BY b.id
"""
_BALANCE_COLUMNS = len(fields(BalanceRow))

# A grant of the pool, for each of the wide balances; what closed periods have burned of it is not theirs to walk.
_READ_POOL_GRANTS = """
SELECT b.id, g.id, g.remaining, g.quantity - g.settled, g.priority, g.effective_at, g.expires_at, g.kind, g.created_at, g.ranked_at,
       g.voided_at
FROM metering_meterbalance b
JOIN metering_creditgrant g ON (g.tenant_id, g.meter_id, g.pool) = (b.tenant_id, b.meter_id, b.pool) AND g.balance_id IS NULL
WHERE b.id = ANY(%s::bigint[])
"""

_WIDE_MATES = """
SELECT o.id FROM metering_meterbalance b
JOIN metering_meterbalance o ON (o.tenant_id, o.meter_id, o.pool) = (b.tenant_id, b.meter_id, b.pool)
WHERE b.id = ANY(%s::bigint[]) AND b.closed_at IS NULL AND o.is_wide AND o.closed_at IS NULL
"""


def lock_balances(balance_ids: Iterable[int], *, wide: Collection[int] = ()) -> dict[int, LockedBalance]:
    """
    Lock these balances in id order, and read them with the grants of their pools.

    One lock per balance and group of requests. The lock of a balance guards its grants, so they need none of their own. Of those among
    them that are `wide` and open, the pool's other open wide balances are locked and returned, too. Who these are, and which are wide, was read before
    the lock: a caller compares the epochs of the balances that it asked for with what it read before, as whoever changes that raises them.
    """
    wanted = {*balance_ids, *(row[0] for row in run(_WIDE_MATES, [plain_array(wide)]))} if wide else set(balance_ids)
    locked: dict[int, LockedBalance] = {}
    ids = list(_LOCKED.filter(pk__in=sorted(wanted)))
    # What the lock guards is read after it, and past the ORM: a row costs a fifth of it.
    for row in run(_READ_LOCKED, [plain_array(ids)]):
        balance = locked.get(row[0])
        if balance is None:
            balance = locked[row[0]] = LockedBalance(BalanceRow(*row[:_BALANCE_COLUMNS]))
        if row[_BALANCE_COLUMNS] is not None:
            _add_grant(balance, *row[_BALANCE_COLUMNS:])
    if wide:
        _join_pools(locked)
    for balance in locked.values():
        if len(balance.grants) > 1:
            balance.grants = burn_order(balance.grants)
    return locked


def _add_grant(
    balance: LockedBalance,
    grant_id: int,
    remaining: Decimal,
    quantity: Decimal,
    priority: int,
    effective_at: datetime,
    expires_at: datetime | None,
    kind: str,
    created_at: datetime,
    ranked_at: datetime | None = None,
    voided_at: datetime | None = None,
) -> None:
    grant = Grant(
        id=grant_id,
        quantity=quantity,
        priority=priority,
        effective_at=effective_at,
        expires_at=expires_at,
        voided_at=voided_at,
        kind=GrantKind(kind),
        created_at=created_at,
        ranked_at=ranked_at,
    )
    balance.grants.append(grant)
    balance.remaining[grant_id] = remaining


def _join_pools(locked: Mapping[int, LockedBalance]) -> None:
    """Give wide balances the grants of their pools, and let the unclosed ones of a pool share them."""
    wide = [balance for balance in locked.values() if balance.row.is_wide]
    for balance_id, *grant in run(_READ_POOL_GRANTS, [plain_array(balance.row.pk for balance in wide)]):
        _add_grant(locked[balance_id], *grant)
    pools: dict[tuple[int, int, str], list[LockedBalance]] = {}
    for balance in wide:
        if balance.row.closed_at is None:
            pools.setdefault((balance.row.tenant_id, balance.row.meter_id, balance.row.pool), []).append(balance)
    for mates in pools.values():
        shared = list({grant.id: grant for mate in mates for grant in mate.grants}.values())
        remaining = {grant_id: left for mate in mates for grant_id, left in mate.remaining.items()}
        burned: dict[int, Decimal] = {}
        for mate in mates:
            mate.grants, mate.remaining, mate.burned, mate.mates = shared, remaining, burned, mates
