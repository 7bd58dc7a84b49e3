"""
Writes movements of usage to locked balances: ledger entries, segment totals, grants and balances, as one posting.

The only writer of these four together, shared by recording, replay and reversal. Callers hold the transaction and the balances' locks (`locked`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from billing_site import doorbell
from billing_site.prepared import run
from metering.core.burndown import split, walk
from metering.models import LedgerEntry, SegmentTotal
from metering.services import thresholds
from metering.services.arrays import columns, plain_array, text_array, time_array
from metering.services.locked import BalanceRow, LockedBalance
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
    # By how much a value of all events moves (`values`): the balance has no other segment.
    of_value: bool = False


_Entry = tuple[int, int, int | None, str, datetime, str, Decimal, int]


def post(
    movements: Sequence[Movement],
    *,
    posting_id: UUID,
    kind: str,
    locked: Mapping[int, LockedBalance],
    now_of: Mapping[int, datetime],
    cause: thresholds.Cause = thresholds.Cause.USAGE,
) -> None:
    """
    Place the movements, and write the posting with everything that follows from them.

    Inside the newest segment usage appends: it burns what is left of the grants in force. Usage in an older segment, and a
    reversal, are entered as overage first and then put right by walking the segments again; a value that falls needs no walk, as it
    has one segment. A closed balance's burns are frozen: late usage is overage, and a reversal lowers overage first.

    `now_of` gives each balance's tenant time, which dates the booking that falls due; `cause` is why thresholds are reached by it.
    """
    if len(now_of) < len(locked):
        now_of = _now_of_mates(locked, now_of)
    overage_before = {balance_id: balance.overage for balance_id, balance in locked.items()}
    entries: list[_Entry] = []
    for movement in movements:
        entries += _place(locked[movement.balance_id], movement)
    walking = [balance for balance in locked.values() if balance.walks_again]
    if walking:
        entries += _walk_again(walking, movements, entries)
    for balance_id, balance in locked.items():
        _schedule_booking(balance, now_of[balance_id])
        if overage_before[balance_id] == 0 and balance.overage > 0:
            _announce_overage(balance)
    if entries:
        _write(posting_id, kind, movements, entries, locked.values())
    if any(balance.watch is not None or not balance.watch_is_known for balance in locked.values()):
        thresholds.cross(locked.values(), now_of=now_of, cause=cause)


def _now_of_mates(locked: Mapping[int, LockedBalance], now_of: Mapping[int, datetime]) -> dict[int, datetime]:
    """Return the tenant times, also of balances that no movement names: those of the ones with which they were locked."""
    return {
        balance_id: next(now_of[one.row.pk] for one in (balance, *balance.mates) if one.row.pk in now_of)
        for balance_id, balance in locked.items()
    }


def _place(balance: LockedBalance, movement: Movement) -> list[_Entry]:
    """Return the usage entries of a movement, and move the balance's figures."""
    row = balance.row
    newest = balance.newest_segment_at
    with exact():
        row.used += movement.quantity
        row.events += movement.events
    if row.newest_segment_at is None or movement.segment_at > row.newest_segment_at:
        row.newest_segment_at = movement.segment_at
    if row.closed_at is not None:
        return _place_late(balance, movement)
    if movement.quantity < 0 and movement.of_value:
        return _lower(balance, movement)
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
    return _usage(row, movement, parts)


def _lower(balance: LockedBalance, movement: Movement) -> list[_Entry]:
    """Lower a value: its overage first, then what was burned, last grant first. With one segment, that is where walking again would end."""
    row = balance.row
    with exact():
        excess = max(row.covered - row.used, _ZERO)
        overage = movement.quantity + excess
    parts: list[tuple[int | None, Decimal]] = [(None, overage)] if overage else []
    for grant in reversed(balance.grants):
        grant_id = int(grant.id)
        with exact():
            unburned = min(excess, grant.quantity - balance.remaining[grant_id])
            excess -= unburned
        if unburned:
            balance.burn(grant_id, -unburned)
            parts.append((grant_id, -unburned))
    return _usage(row, movement, parts)


def _usage(row: BalanceRow, movement: Movement, parts: Iterable[tuple[int | None, Decimal]]) -> list[_Entry]:
    """Return the entries of a movement's parts by grant; its events are counted once, on the first."""
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
    current = _consumed([row.pk])
    with exact():
        # Values of several sets may fall in one posting; the row knows of them, and the ledger does not yet.
        overage = (
            row.used - row.covered
            if movement.of_value
            else current.get((row.pk, movement.segment_at, None), _ZERO) + movement.quantity
        )
        excess = max(-overage, _ZERO)
    for grant in reversed(balance.grants):
        grant_id = int(grant.id)
        unburned = min(excess, current.get((row.pk, movement.segment_at, grant_id), _ZERO))
        if unburned > 0:
            entries.append(_correction(row, "walk", grant_id, movement.segment_at, -unburned))
            entries.append(_correction(row, "walk", None, movement.segment_at, unburned))
            entries.append(_correction(row, "expire", grant_id, movement.segment_at, unburned))
            balance.expire_burned(grant_id, unburned)
            with exact():
                excess -= unburned
    return entries


def _walk_again(
    walking: Iterable[LockedBalance], movements: Iterable[Movement], entries: Iterable[_Entry]
) -> list[_Entry]:
    """
    Walk the segments of these balances, and of those with which they share grants, over their totals, and return the entries that bring
    the ledger to that position.

    `movements` and `entries` are those of this posting, which are not written yet.
    """
    pools = list({id(balance.pool[0]): balance.pool for balance in walking}.values())
    ids = [balance.row.pk for pool in pools for balance in pool]
    consumed = _consumed(ids)
    totals: dict[int, dict[datetime, Decimal]] = {balance_id: {} for balance_id in ids}
    stored = SegmentTotal.objects.filter(balance_id__in=ids).values_list("balance_id", "segment_at", "quantity")
    moved = [(one.balance_id, one.segment_at, one.quantity) for one in movements if one.balance_id in totals]
    with exact():
        for balance_id, segment_at, quantity in (*stored, *moved):
            totals[balance_id][segment_at] = totals[balance_id].get(segment_at, _ZERO) + quantity
        for _, balance_id, grant_id, _, segment_at, _, quantity, _ in entries:
            if balance_id in totals:
                key = (balance_id, segment_at, grant_id)
                consumed[key] = consumed.get(key, _ZERO) + quantity
    return [one for pool in pools for one in _walk_pool(pool, totals, consumed)]


def _walk_pool(
    pool: Sequence[LockedBalance],
    totals: Mapping[int, Mapping[datetime, Decimal]],
    consumed: Mapping[tuple[int, datetime, int | None], Decimal],
) -> list[_Entry]:
    """Walk what shares grants, in one go, and return what differs from what the ledger says was consumed."""
    segments = sorted(
        (segment_at, balance.row.pk, quantity)
        for balance in pool
        for segment_at, quantity in totals[balance.row.pk].items()
    )
    by_id = {balance.row.pk: balance for balance in pool}
    grants = pool[0].grants
    position = walk([(segment_at, quantity) for segment_at, _, quantity in segments], grants)
    corrections = []
    for (segment_at, balance_id, _), burndown in zip(segments, position.segments, strict=True):
        balance = by_id[balance_id]
        targets: dict[int | None, Decimal] = {int(grant_id): burned for grant_id, burned in burndown.burns.items()}
        targets[None] = burndown.overage
        for grant in grants:
            targets.setdefault(int(grant.id), _ZERO)
        for grant_id, target in targets.items():
            with exact():
                difference = target - consumed.get((balance_id, segment_at, grant_id), _ZERO)
            if difference:
                corrections.append(_correction(balance.row, "walk", grant_id, segment_at, difference))
                if grant_id is not None:
                    balance.burn(grant_id, difference)
    return corrections


_CONSUMED = """
SELECT balance_id, segment_at, grant_id, sum(quantity) FROM metering_ledgerentry
WHERE balance_id = ANY(%s::bigint[]) AND kind IN ('usage', 'walk') GROUP BY 1, 2, 3
"""


def _consumed(balance_ids: Iterable[int]) -> dict[tuple[int, datetime, int | None], Decimal]:
    """Return what the ledger says each grant (None: overage) gave in each segment of each balance."""
    rows = run(_CONSUMED, [plain_array(balance_ids)])
    return {(balance_id, segment_at, grant_id): quantity for balance_id, segment_at, grant_id, quantity in rows}


def _entry(row: BalanceRow, movement: Movement, grant_id: int | None, quantity: Decimal, events: int) -> _Entry:
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


def _correction(row: BalanceRow, kind: str, grant_id: int | None, segment_at: datetime, quantity: Decimal) -> _Entry:
    return (row.tenant_id, row.pk, grant_id, kind, segment_at, "", quantity, 0)


def _schedule_booking(balance: LockedBalance, now: datetime) -> None:
    row = balance.row
    if row.due_at is None and balance.overage != row.booked_overage:
        row.due_at = now if row.booked_at is None else max(now, row.booked_at + BOOKING_INTERVAL)
        if row.due_at == now:
            doorbell.ring("invoices.book_overage", row.pk)


def _announce_overage(balance: LockedBalance) -> None:
    whole = balance.model()
    outbox.write(
        tenant=whole.tenant,
        type="overage.started",
        payload={"meter": whole.meter.code, "pool": whole.pool, "period": str(whole.period.public_id)},
    )


# One statement: each part writes a table of its own, and none reads what another writes.
_WRITE = """
WITH entries AS (
    INSERT INTO metering_ledgerentry
           (posting_id, tenant_id, balance_id, grant_id, kind, segment_at, dimension_key, quantity, events)
    SELECT %s::uuid, * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::timestamptz[], %s::text[],
                                   %s::numeric[], %s::int[])
), totals AS (
    INSERT INTO metering_segmenttotal (balance_id, segment_at, dimension_key, quantity, events, clamped)
    SELECT * FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[], %s::numeric[], %s::bigint[], %s::numeric[])
    ON CONFLICT (balance_id, segment_at, dimension_key) DO UPDATE
    SET quantity = metering_segmenttotal.quantity + excluded.quantity,
        events = metering_segmenttotal.events + excluded.events,
        clamped = metering_segmenttotal.clamped + excluded.clamped
), grants AS (
    UPDATE metering_creditgrant g SET burned = g.burned + d.burned, expired = g.expired + d.expired
    FROM unnest(%s::bigint[], %s::numeric[], %s::numeric[]) AS d (id, burned, expired) WHERE g.id = d.id
), balances AS (
    UPDATE metering_meterbalance b
    SET used = d.used, covered = d.covered, held = d.held, held_amount = d.held_amount, events = d.events,
        newest_segment_at = d.newest, due_at = d.due
    FROM unnest(%s::bigint[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[], %s::bigint[], %s::timestamptz[],
                %s::timestamptz[])
         AS d (id, used, covered, held, held_amount, events, newest, due)
    WHERE b.id = d.id
)
INSERT INTO metering_posting (id, kind) VALUES (%s, %s)
"""

# PostgreSQL checks a row before it looks for the conflict, and a negative total is none: what is taken back is an update.
_TAKE_FROM_TOTALS = """
UPDATE metering_segmenttotal t
SET quantity = t.quantity + d.quantity, events = t.events + d.events, clamped = t.clamped + d.clamped
FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[], %s::numeric[], %s::bigint[], %s::numeric[])
     AS d (balance_id, segment_at, dimension_key, quantity, events, clamped)
WHERE (t.balance_id, t.segment_at, t.dimension_key) = (d.balance_id, d.segment_at, d.dimension_key)
"""


def _write(
    posting_id: UUID,
    kind: str,
    movements: Sequence[Movement],
    entries: Sequence[_Entry],
    balances: Collection[LockedBalance],
) -> None:
    added = [movement for movement in movements if movement.events >= 0 and movement.quantity >= 0]
    taken_back = [movement for movement in movements if movement.events < 0 or movement.quantity < 0]
    run(
        _WRITE,
        [
            posting_id,
            *_entry_arrays(entries),
            *_total_arrays(added),
            *_grant_arrays(balances),
            *_balance_arrays(balances),
            posting_id,
            kind,
        ],
    )
    if taken_back:
        run(_TAKE_FROM_TOTALS, _total_arrays(taken_back))


def _entry_arrays(entries: Sequence[_Entry]) -> list[str]:
    tenants, balances, grants, kinds, segments, keys, quantities, events = columns(entries, 8)
    return [
        plain_array(tenants),
        plain_array(balances),
        plain_array(grants),
        text_array(kinds),
        time_array(segments),
        text_array(keys),
        plain_array(quantities),
        plain_array(events),
    ]


def _total_arrays(movements: Sequence[Movement]) -> list[str]:
    return [
        plain_array([movement.balance_id for movement in movements]),
        time_array([movement.segment_at for movement in movements]),
        text_array([movement.dimension_key for movement in movements]),
        plain_array([movement.quantity for movement in movements]),
        plain_array([movement.events for movement in movements]),
        plain_array([movement.clamped for movement in movements]),
    ]


def _grant_arrays(balances: Iterable[LockedBalance]) -> list[str]:
    moved: dict[int, tuple[Decimal, Decimal]] = {}
    for balance in balances:
        if balance.mates and balance is not balance.mates[0]:
            continue  # they share what was burned
        for grant_id, burned in balance.burned.items():
            expired = balance.expired.get(grant_id, _ZERO)
            if grant_id in moved:  # by open balances, and by a closed one
                with exact():
                    burned, expired = burned + moved[grant_id][0], expired + moved[grant_id][1]
            moved[grant_id] = burned, expired
    return [plain_array(column) for column in columns([(pk, *both) for pk, both in moved.items()], 3)]


def _balance_arrays(balances: Iterable[LockedBalance]) -> list[str]:
    rows = [balance.row for balance in balances]
    return [
        plain_array([row.pk for row in rows]),
        plain_array([row.used for row in rows]),
        plain_array([row.covered for row in rows]),
        plain_array([row.held for row in rows]),
        plain_array([row.held_amount for row in rows]),
        plain_array([row.events for row in rows]),
        plain_array([_text(row.newest_segment_at) for row in rows]),
        plain_array([_text(row.due_at) for row in rows]),
    ]


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
