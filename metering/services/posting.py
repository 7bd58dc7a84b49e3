"""
Writes movements of usage to locked balances: ledger entries, segment totals, grants and balances, as one posting.

The only writer of these four together, shared by recording, replay and reversal. Callers hold the transaction; `lock_balances` takes
the locks that everything here relies on, in the documented order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import connection

from billing_site import doorbell
from metering.core.burndown import Grant, burn_order, split, walk
from metering.models import CreditGrant, LedgerEntry, MeterBalance, SegmentTotal
from metering.services.arrays import columns, plain_array, text_array
from subscriptions.core.money import exact
from subscriptions.services import outbox

# Overage is priced at most this often per balance (and at closing); what is shown is computed, never read from bookings.
BOOKING_INTERVAL = timedelta(minutes=1)

_ZERO = Decimal(0)


@dataclass(slots=True)
class Movement:
    """Usage of one dimension set in one segment of a balance, folded over events. Negative takes usage back."""

    balance_id: int
    segment_at: datetime
    dimension_key: str
    quantity: Decimal = _ZERO
    events: int = 0
    # Σ of the events' clamped prices, where their charge clamps per event.
    clamped: Decimal = _ZERO


@dataclass(slots=True)
class LockedBalance:
    """A balance under its row lock, with the grants of its pool; kept up to date while movements are placed."""

    row: MeterBalance
    grants: list[Grant] = field(default_factory=list)
    remaining: dict[int, Decimal] = field(default_factory=dict)
    burned: dict[int, Decimal] = field(default_factory=dict)
    expired: dict[int, Decimal] = field(default_factory=dict)
    walks_again: bool = False

    @property
    def overage(self) -> Decimal:
        """What no grant covers."""
        return self.row.used - self.row.covered

    def burn(self, grant_id: int, quantity: Decimal) -> None:
        """Move the grant's and the balance's figures by a burn (negative: an un-burn)."""
        with exact():
            self.burned[grant_id] = self.burned.get(grant_id, _ZERO) + quantity
            self.remaining[grant_id] -= quantity
            self.row.covered += quantity


_Entry = tuple[int, int, int | None, str, datetime, str, Decimal, int]


def lock_balances(balance_ids: Iterable[int]) -> dict[int, LockedBalance]:
    """
    Lock these balances in id order, and read the grants of their pools.

    One lock per balance and group of requests. The lock of a balance guards its grants, so they need none of their own.
    """
    ids = sorted(set(balance_ids))
    rows = (
        MeterBalance.objects.select_for_update(no_key=True, of=("self",))
        .select_related("tenant", "meter", "period")
        .filter(pk__in=ids)
        .order_by("pk")
    )
    locked = {row.pk: LockedBalance(row) for row in rows}
    for grant in CreditGrant.objects.filter(balance_id__in=ids):
        balance = locked[grant.balance_id]
        balance.grants.append(grant.as_core())
        balance.remaining[grant.pk] = grant.remaining
    for balance in locked.values():
        balance.grants = burn_order(balance.grants)
    return locked


def post(
    movements: Sequence[Movement],
    *,
    posting_id: UUID,
    locked: Mapping[int, LockedBalance],
    now_of: Mapping[int, datetime],
) -> None:
    """
    Place the movements and write everything that follows from them.

    Inside the newest segment usage appends: it burns what is left of the grants in force. Usage in an older segment, and a
    reversal, are entered as overage first and then put right by walking the segments again. A closed balance's burns are frozen:
    late usage is overage, and a reversal lowers overage first.

    `now_of` gives each balance's tenant time, which dates the booking that falls due.
    """
    overage_before = {balance_id: balance.overage for balance_id, balance in locked.items()}
    entries: list[_Entry] = []
    for movement in movements:
        entries += _place(locked[movement.balance_id], movement)
    insert_entries(posting_id, entries)
    _add_totals(movements)
    corrections: list[_Entry] = []
    for balance in locked.values():
        if balance.walks_again:
            corrections += _walk_again(balance)
    if corrections:
        insert_entries(posting_id, corrections)
    for balance_id, balance in locked.items():
        _schedule_booking(balance, now_of[balance_id])
        if overage_before[balance_id] == 0 and balance.overage > 0:
            _announce_overage(balance)
    _update_grants(locked.values())
    _update_balances(locked.values())


def insert_entries(posting_id: UUID, entries: Sequence[_Entry]) -> None:
    """Append ledger entries (tenant, balance, grant, kind, segment, dimension key, quantity, events) to a posting."""
    tenants, balances, grants, kinds, segments, keys, quantities, events = columns(entries, 8)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO metering_ledgerentry
                   (posting_id, tenant_id, balance_id, grant_id, kind, segment_at, dimension_key, quantity, events)
            SELECT %s, * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::timestamptz[], %s::text[],
                                     %s::numeric[], %s::int[])
            """,
            [
                posting_id,
                plain_array(tenants),
                plain_array(balances),
                plain_array(grants),
                text_array(kinds),
                text_array(segment.isoformat() for segment in segments),
                text_array(keys),
                plain_array(quantities),
                plain_array(events),
            ],
        )


def _place(balance: LockedBalance, movement: Movement) -> list[_Entry]:
    """Return the usage entries of a movement, and move the balance's figures."""
    row = balance.row
    newest = row.newest_segment_at
    with exact():
        row.used += movement.quantity
        row.events += movement.events
    if newest is None or movement.segment_at > newest:
        row.newest_segment_at = movement.segment_at
    if row.closed_at is not None:
        return _place_late(balance, movement)
    if movement.quantity < 0 or (newest is not None and movement.segment_at < newest):
        balance.walks_again = True
        return [_entry(row, movement, None, movement.quantity, movement.events)]
    in_force = [
        (grant.id, balance.remaining[int(grant.id)]) for grant in balance.grants if grant.covers(movement.segment_at)
    ]
    burns, overage = split(movement.quantity, in_force)
    parts: list[tuple[int | None, Decimal]] = [(int(grant_id), quantity) for grant_id, quantity in burns]
    if overage or not parts:
        parts.append((None, overage))
    for grant_id, quantity in parts:
        if grant_id is not None:
            balance.burn(grant_id, quantity)
    # The events are counted once, on the first part.
    return [
        _entry(row, movement, grant_id, quantity, movement.events if index == 0 else 0)
        for index, (grant_id, quantity) in enumerate(parts)
    ]


def _place_late(balance: LockedBalance, movement: Movement) -> list[_Entry]:
    """
    Enter usage of a closed balance: burns are frozen, so it is overage.

    A reversal lowers the segment's overage first; the rest posts an un-burn and an expiry of equal size at once, so that nothing
    becomes available again (semantics, "Grants, segments, burn-down").
    """
    row = balance.row
    entries = [_entry(row, movement, None, movement.quantity, movement.events)]
    if movement.quantity >= 0:
        return entries
    current = _consumed(row.pk)
    with exact():
        excess = -(current.get((movement.segment_at, None), _ZERO) + movement.quantity)
    for grant in reversed(balance.grants):
        grant_id = int(grant.id)
        unburned = min(max(excess, _ZERO), current.get((movement.segment_at, grant_id), _ZERO))
        if unburned > 0:
            entries.append(_correction(row, "walk", grant_id, movement.segment_at, -unburned))
            entries.append(_correction(row, "walk", None, movement.segment_at, unburned))
            entries.append(_correction(row, "expire", grant_id, movement.segment_at, unburned))
            balance.burn(grant_id, -unburned)
            with exact():
                balance.expired[grant_id] = balance.expired.get(grant_id, _ZERO) + unburned
                excess -= unburned
    return entries


def _walk_again(balance: LockedBalance) -> list[_Entry]:
    """Walk the balance's segments over their totals, and return the entries that bring the ledger to that position."""
    row = balance.row
    totals: dict[datetime, Decimal] = {}
    with exact():
        for segment_at, quantity in (
            SegmentTotal.objects.filter(balance_id=row.pk).order_by("segment_at").values_list("segment_at", "quantity")
        ):
            totals[segment_at] = totals.get(segment_at, _ZERO) + quantity
    position = walk(totals.items(), balance.grants)
    current = _consumed(row.pk)
    entries = []
    for segment_at, burndown in zip(totals, position.segments, strict=True):
        targets: dict[int | None, Decimal] = {int(grant_id): burned for grant_id, burned in burndown.burns.items()}
        targets[None] = burndown.overage
        for grant in balance.grants:
            targets.setdefault(int(grant.id), _ZERO)
        for grant_id, target in targets.items():
            with exact():
                difference = target - current.get((segment_at, grant_id), _ZERO)
            if difference:
                entries.append(_correction(row, "walk", grant_id, segment_at, difference))
                if grant_id is not None:
                    balance.burn(grant_id, difference)
    return entries


def _consumed(balance_id: int) -> dict[tuple[datetime, int | None], Decimal]:
    """Return what the ledger says each grant (None: overage) gave in each segment."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT segment_at, grant_id, sum(quantity) FROM metering_ledgerentry"
            " WHERE balance_id = %s AND kind IN ('usage', 'walk') GROUP BY 1, 2",
            [balance_id],
        )
        return {(segment_at, grant_id): quantity for segment_at, grant_id, quantity in cursor}


def _entry(row: MeterBalance, movement: Movement, grant_id: int | None, quantity: Decimal, events: int) -> _Entry:
    return (
        row.tenant_id,
        row.pk,
        grant_id,
        LedgerEntry.Kind.USAGE.value,
        movement.segment_at,
        movement.dimension_key,
        quantity,
        events,
    )


def _correction(row: MeterBalance, kind: str, grant_id: int | None, segment_at: datetime, quantity: Decimal) -> _Entry:
    return (row.tenant_id, row.pk, grant_id, kind, segment_at, "", quantity, 0)


def _schedule_booking(balance: LockedBalance, now: datetime) -> None:
    row = balance.row
    if row.due_at is None and balance.overage != row.booked_overage:
        row.due_at = now if row.booked_at is None else max(now, row.booked_at + BOOKING_INTERVAL)
        if row.due_at == now:
            doorbell.ring("invoices.book_overage", row.pk)


def _announce_overage(balance: LockedBalance) -> None:
    row = balance.row
    outbox.write(
        tenant=row.tenant,
        type="overage.started",
        payload={"meter": row.meter.code, "pool": row.pool, "period": str(row.period.public_id)},
    )


_ADD_TO_TOTALS = """
INSERT INTO metering_segmenttotal (balance_id, segment_at, dimension_key, quantity, events, clamped)
SELECT * FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[], %s::numeric[], %s::bigint[], %s::numeric[])
ON CONFLICT (balance_id, segment_at, dimension_key) DO UPDATE
SET quantity = metering_segmenttotal.quantity + excluded.quantity,
    events = metering_segmenttotal.events + excluded.events,
    clamped = metering_segmenttotal.clamped + excluded.clamped
"""

# PostgreSQL checks a row before it looks for the conflict, and a negative total is none: what is taken back is an update.
_TAKE_FROM_TOTALS = """
UPDATE metering_segmenttotal t
SET quantity = t.quantity + d.quantity, events = t.events + d.events, clamped = t.clamped + d.clamped
FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[], %s::numeric[], %s::bigint[], %s::numeric[])
     AS d (balance_id, segment_at, dimension_key, quantity, events, clamped)
WHERE (t.balance_id, t.segment_at, t.dimension_key) = (d.balance_id, d.segment_at, d.dimension_key)
"""


def _add_totals(movements: Sequence[Movement]) -> None:
    taken_back = [movement for movement in movements if movement.events < 0]
    added = [movement for movement in movements if movement.events >= 0]
    with connection.cursor() as cursor:
        for statement, part in ((_ADD_TO_TOTALS, added), (_TAKE_FROM_TOTALS, taken_back)):
            if part:
                cursor.execute(statement, _as_arrays(part))


def _as_arrays(movements: Sequence[Movement]) -> list[str]:
    rows = [
        (m.balance_id, m.segment_at.isoformat(), m.dimension_key, m.quantity, m.events, m.clamped) for m in movements
    ]
    balances, segments, keys, quantities, events, clamped = columns(rows, 6)
    return [
        plain_array(balances),
        text_array(segments),
        text_array(keys),
        plain_array(quantities),
        plain_array(events),
        plain_array(clamped),
    ]


def _update_grants(balances: Iterable[LockedBalance]) -> None:
    rows = [
        (grant_id, burned, balance.expired.get(grant_id, _ZERO))
        for balance in balances
        for grant_id, burned in balance.burned.items()
    ]
    if not rows:
        return
    ids, burned, expired = columns(rows, 3)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE metering_creditgrant g SET burned = g.burned + d.burned, expired = g.expired + d.expired
            FROM unnest(%s::bigint[], %s::numeric[], %s::numeric[]) AS d (id, burned, expired) WHERE g.id = d.id
            """,
            [plain_array(ids), plain_array(burned), plain_array(expired)],
        )


def _update_balances(balances: Iterable[LockedBalance]) -> None:
    rows = [
        (b.row.pk, b.row.used, b.row.covered, b.row.events, _text(b.row.newest_segment_at), _text(b.row.due_at))
        for b in balances
    ]
    ids, used, covered, events, newest, due = columns(rows, 6)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE metering_meterbalance b
            SET used = d.used, covered = d.covered, events = d.events, newest_segment_at = d.newest, due_at = d.due
            FROM unnest(%s::bigint[], %s::numeric[], %s::numeric[], %s::bigint[], %s::timestamptz[], %s::timestamptz[])
                 AS d (id, used, covered, events, newest, due)
            WHERE b.id = d.id
            """,
            [
                plain_array(ids),
                plain_array(used),
                plain_array(covered),
                plain_array(events),
                text_array(newest),
                text_array(due),
            ],
        )


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
