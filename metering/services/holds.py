"""
The rows of authorizations: finding them by the keys of those who ask, locking, writing and ending them.

A hold and the figures of its balance move together: whoever writes here holds the balance's lock, and writes `held` with it. The order of
locks is authorizations by id, then balances by id; so an expiry that comes while balances are locked already skips what others have locked.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing_site.database import among
from billing_site.prepared import run
from metering.models import Authorization, MeterBalance, TenantSpend
from metering.selectors.authorizations import HOLD_COLUMNS, Hold
from metering.services.arrays import bytes_array, columns, plain_array, text_array, time_array, uuid_array
from metering.services.locked import LockedBalance
from subscriptions.core.money import exact


@dataclass(slots=True)
class Asked:
    """What is stored about those who ask."""

    # The holds that were made under their (tenant id, key) before.
    holds: dict[tuple[int, str], Hold] = field(default_factory=dict)
    # Caps by tenant id, of those who have one.
    spend_caps: dict[int, Decimal] = field(default_factory=dict)
    # Balances that hold something whose time is up.
    overdue: set[int] = field(default_factory=set)


# How long to wait for locks is set on the way: NULL leaves the connection's own setting.
_BY_KEY = f"""
SELECT patience, t.id, t.spend_cap, w.balance_id,
       EXISTS (SELECT 1 FROM metering_authorization o WHERE o.balance_id = w.balance_id AND o.due_at <= w.now), {", ".join(f"a.{name}" for name in HOLD_COLUMNS)}
FROM (SELECT set_config('lock_timeout', COALESCE(%s, current_setting('lock_timeout')), true) AS patience) AS p
LEFT JOIN unnest(%s::bigint[], %s::text[], %s::bigint[], %s::timestamptz[]) AS w (tenant_id, key, balance_id, now) ON true
LEFT JOIN subscriptions_tenant t ON t.id = w.tenant_id
LEFT JOIN metering_authorization a ON a.tenant_id = w.tenant_id AND a.key = w.key
"""

_BALANCES = """
    UPDATE metering_meterbalance b SET held = d.held, held_amount = d.held_amount
    FROM unnest(%s::bigint[], %s::numeric[], %s::numeric[]) AS d (id, held, held_amount) WHERE b.id = d.id
"""

# A key that another transaction has taken meanwhile is missing from the answer.
_HOLD = f"""
WITH balances AS ({_BALANCES})
INSERT INTO metering_authorization
       (id, tenant_id, balance_id, key, fingerprint, dimension_key, quantity, overage_quantity, amount_precise, decision,
        authorized_at, expires_at, due_at, status, freed_by, written_by, attempts, parked_reason)
SELECT id, tenant_id, balance_id, key, fingerprint, dimension_key, quantity, overage_quantity, amount_precise, decision,
       authorized_at, expires_at, expires_at, 'held', '', %s::uuid, 0, ''
FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::text[], %s::bytea[], %s::text[], %s::numeric[], %s::numeric[],
            %s::numeric[], %s::text[], %s::timestamptz[], %s::timestamptz[])
     AS h (id, tenant_id, balance_id, key, fingerprint, dimension_key, quantity, overage_quantity, amount_precise, decision,
           authorized_at, expires_at)
ON CONFLICT (tenant_id, key) DO NOTHING RETURNING id
"""

# What falls due is the expiry of a hold.
_CHANGE = f"""
WITH balances AS ({_BALANCES})
UPDATE metering_authorization a
SET quantity = d.quantity, overage_quantity = d.overage_quantity, amount_precise = d.amount_precise, expires_at = d.expires_at,
    due_at = CASE WHEN d.status = 'held' THEN d.expires_at END, status = d.status, freed_by = d.freed_by,
    settled_quantity = d.settled_quantity, settled_event = d.settled_event, settled_fingerprint = d.settled_fingerprint,
    written_by = %s::uuid
FROM unnest(%s::uuid[], %s::numeric[], %s::numeric[], %s::numeric[], %s::timestamptz[], %s::text[], %s::text[],
            %s::numeric[], %s::uuid[], %s::bytea[])
     AS d (id, quantity, overage_quantity, amount_precise, expires_at, status, freed_by,
           settled_quantity, settled_event, settled_fingerprint)
WHERE a.id = d.id
"""


def read_asked(questions: Collection[tuple[int, str, int | None, str]], *, lock_timeout_ms: int | None = None) -> Asked:
    """
    Return what is stored about those who ask: tenant id, key, the balance that they would use, the tenant's time in ISO form.

    With `lock_timeout_ms` the transaction waits no longer than this for any lock.
    """
    tenants, keys, balances, nows = columns(list(questions), 4)
    patience = None if lock_timeout_ms is None else str(lock_timeout_ms)
    arrays = [plain_array(tenants), text_array(keys), plain_array(balances), plain_array(nows)]
    asked = Asked()
    for _, tenant_id, spend_cap, balance_id, is_overdue, *row in run(_BY_KEY, [patience, *arrays]):
        if spend_cap is not None:
            asked.spend_caps[tenant_id] = spend_cap
        if is_overdue:
            asked.overdue.add(balance_id)
        if row[0] is not None:
            hold = Hold(*row)
            asked.holds[hold.tenant_id, hold.key] = hold
    return asked


def lock_spend(tenant_ids: Iterable[int]) -> None:
    """Lock the spend rows of tenants that have a cap, in their order; made where this is the first time."""
    ids = sorted(tenant_ids)
    rows = TenantSpend.objects.select_for_update(no_key=True, of=("self",)).filter(pk__in=ids).order_by("pk")
    if len(list(rows)) < len(ids):
        TenantSpend.objects.bulk_create([TenantSpend(pk=pk) for pk in ids], ignore_conflicts=True)
        list(rows.all())


def lock(ids: Iterable[UUID]) -> dict[UUID, Hold]:
    """Lock these authorizations in id order; one that there is not is missing."""
    rows = Authorization.objects.select_for_update(no_key=True, of=("self",)).filter(pk__in=list(ids)).order_by("pk")
    return {row[0]: Hold(*row) for row in rows.values_list(*HOLD_COLUMNS)}


def free(hold: Hold, balance: LockedBalance, *, by: str) -> None:
    """Give a hold's quantity back to its balance, in memory; `by` says how it ended: settled, released or expired."""
    with exact():
        balance.row.held -= hold.quantity
        balance.row.held_amount -= hold.amount_precise
    hold.status = hold.freed_by = by


def expire_overdue(balance: LockedBalance, *, now: datetime, besides: Collection[UUID], written_by: UUID) -> bool:
    """
    Expire the balance's holds whose time is up; whether there were any.

    The caller holds the balance's lock, so those that another transaction has locked are left to it: it is ending them.
    """
    overdue = Authorization.objects.select_for_update(no_key=True, of=("self",), skip_locked=True).filter(
        balance_id=balance.row.pk, due_at__lte=now
    )
    rows = [Hold(*row) for row in overdue.order_by("pk").values_list(*HOLD_COLUMNS)]
    expired = [hold for hold in rows if hold.id not in besides]
    for hold in expired:
        free(hold, balance, by=Authorization.Status.EXPIRED)
    if expired:
        change(expired, [balance], written_by=written_by)
    return bool(expired)


def lock_of_periods(period_ids: Collection[int]) -> None:
    """Lock the holds of periods whose balances are to be locked and closed."""
    balances = MeterBalance.objects.filter(among("period_id", period_ids)).values("pk")
    held = Authorization.objects.filter(balance_id__in=balances, due_at__isnull=False)
    list(held.select_for_update(no_key=True, of=("self",)).order_by("pk").values_list("pk"))


def expire_of_balances(balances: Iterable[MeterBalance]) -> None:
    """Expire all holds of balances that are being closed, whatever time they have left. The caller holds the balances' locks."""
    holding = [balance.pk for balance in balances if balance.held]
    if holding:
        expired = Authorization.Status.EXPIRED
        held = Authorization.objects.filter(balance_id__in=holding, due_at__isnull=False)
        held.update(status=expired, freed_by=expired, due_at=None, leased_until=None)
        MeterBalance.objects.filter(pk__in=holding).update(held=0, held_amount=0)


def insert(holds: Sequence[Hold], balances: Iterable[LockedBalance], *, written_by: UUID) -> bool:
    """Write new holds and what their balances now hold; whether every key was free."""
    inserted = run(
        _HOLD,
        [
            *_held_arrays(balances),
            written_by,
            uuid_array([hold.id for hold in holds]),
            plain_array([hold.tenant_id for hold in holds]),
            plain_array([hold.balance_id for hold in holds]),
            text_array([hold.key for hold in holds]),
            bytes_array([hold.fingerprint for hold in holds]),
            text_array([hold.dimension_key for hold in holds]),
            plain_array([hold.quantity for hold in holds]),
            plain_array([hold.overage_quantity for hold in holds]),
            plain_array([hold.amount_precise for hold in holds]),
            text_array([hold.decision for hold in holds]),
            time_array([hold.authorized_at for hold in holds]),
            time_array([hold.expires_at for hold in holds]),
        ],
    )
    return len(inserted.fetchall()) == len(holds)


def change(holds: Sequence[Hold], balances: Iterable[LockedBalance], *, written_by: UUID) -> None:
    """Write holds that have ended or grown, and what their balances now hold. The caller holds the locks of both."""
    run(
        _CHANGE,
        [
            *_held_arrays(balances),
            written_by,
            uuid_array([hold.id for hold in holds]),
            plain_array([hold.quantity for hold in holds]),
            plain_array([hold.overage_quantity for hold in holds]),
            plain_array([hold.amount_precise for hold in holds]),
            time_array([hold.expires_at for hold in holds]),
            text_array([hold.status for hold in holds]),
            text_array([hold.freed_by for hold in holds]),
            plain_array([hold.settled_quantity for hold in holds]),
            uuid_array([hold.settled_event for hold in holds]),
            _nullable_bytes([hold.settled_fingerprint for hold in holds]),
        ],
    )


def _held_arrays(balances: Iterable[LockedBalance]) -> list[str]:
    rows = [balance.row for balance in balances]
    return [
        plain_array([row.pk for row in rows]),
        plain_array([row.held for row in rows]),
        plain_array([row.held_amount for row in rows]),
    ]


def _nullable_bytes(values: Iterable[bytes | None]) -> str:
    return "{" + ",".join(["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]) + "}"
