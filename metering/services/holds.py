"""
The rows of authorizations: finding them by the keys of those who ask, locking, writing and ending them.

A hold and the figures of its balance move together: whoever writes here holds the balance's lock, and writes `held` with it. The order of
locks is authorizations by id, then balances by id; so an expiry that comes while balances are locked already skips what others have locked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from uuid import UUID

from billing_site.prepared import run
from metering.selectors.authorizations import Hold
from metering.services.arrays import bytes_array, plain_array, text_array, uuid_array
from metering.services.posting import LockedBalance

_COLUMNS = [column.name for column in fields(Hold)]

# How long to wait for locks is set on the way: NULL leaves the connection's own setting.
_BY_KEY = f"""
SELECT patience, {", ".join(f"a.{name}" for name in _COLUMNS)}
FROM (SELECT set_config('lock_timeout', COALESCE(%s, current_setting('lock_timeout')), true) AS patience) AS p
CROSS JOIN unnest(%s::bigint[], %s::text[]) AS w (tenant_id, key)
LEFT JOIN metering_authorization a ON a.tenant_id = w.tenant_id AND a.key = w.key
"""

# A key that another transaction has taken meanwhile is missing from the answer.
_HOLD = """
WITH balances AS (
    UPDATE metering_meterbalance b SET held = d.held, held_amount = d.held_amount
    FROM unnest(%s::bigint[], %s::numeric[], %s::numeric[]) AS d (id, held, held_amount) WHERE b.id = d.id
)
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


def find_by_keys(keys: Iterable[tuple[int, str]], *, lock_timeout_ms: int | None = None) -> dict[tuple[int, str], Hold]:
    """
    Return the authorizations of these (tenant id, key) pairs; a pair that has none is missing.

    With `lock_timeout_ms` the transaction waits no longer than this for any lock.
    """
    tenants, names = zip(*keys, strict=True)
    patience = None if lock_timeout_ms is None else str(lock_timeout_ms)
    rows = run(_BY_KEY, [patience, plain_array(tenants), text_array(names)])
    holds = (Hold(*row[1:]) for row in rows if row[1] is not None)
    return {(hold.tenant_id, hold.key): hold for hold in holds}


def insert(holds: Sequence[Hold], balances: Iterable[LockedBalance], *, written_by: UUID) -> bool:
    """Write new holds and what their balances now hold; whether every key was free."""
    rows = [balance.row for balance in balances]
    inserted = run(
        _HOLD,
        [
            plain_array([row.pk for row in rows]),
            plain_array([row.held for row in rows]),
            plain_array([row.held_amount for row in rows]),
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
            plain_array([hold.authorized_at.isoformat() for hold in holds]),
            plain_array([hold.expires_at.isoformat() for hold in holds]),
        ],
    )
    return len(inserted.fetchall()) == len(holds)
