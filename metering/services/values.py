"""
Moves the values of meters that do not add up: `max`, `latest` and `unique_count`.

Each dimension set of a balance has one value, that of all its events, and what the pool used is the sum of these. What is posted is
always a difference, so that ledger, totals and grants need not know how a meter counts. Callers hold the balances' locks, under which
each value and what it rests on are read and kept: the total of the set, the event that stands as the latest, the values seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from billing_site.prepared import run
from metering.core.measuring import Aggregation, Reading, fold
from metering.services.arrays import bytes_array, plain_array, text_array, time_array
from metering.services.posting import Movement
from subscriptions.core.money import exact

_ZERO = Decimal(0)


@dataclass(slots=True)
class ValueMovement:
    """Events that are new to a dimension set, or one that is taken back, and the movement that says by how much its value moves."""

    aggregation: Aggregation
    movement: Movement
    readings: list[Reading] = field(default_factory=list)

    @property
    def key(self) -> tuple[int, str]:
        """The dimension set of a balance."""
        return self.movement.balance_id, self.movement.dimension_key


@dataclass(slots=True)
class _Standing:
    """A set's value before the movement, and in a `latest` what orders the event that it is of: (time, source, id)."""

    value: Decimal = _ZERO
    order: tuple[datetime, str, str] | None = None


_NOTHING = _Standing()

_STANDING = """
SELECT t.balance_id, t.dimension_key, t.quantity, l.occurred_at, l.source, l.event_id
FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[]) AS wanted (balance_id, segment_at, dimension_key)
JOIN metering_segmenttotal t USING (balance_id, segment_at, dimension_key)
LEFT JOIN metering_latestreading l USING (balance_id, dimension_key)
"""

_STAND = """
INSERT INTO metering_latestreading (balance_id, dimension_key, occurred_at, source, event_id)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::timestamptz[], %s::text[], %s::text[])
ON CONFLICT (balance_id, dimension_key) DO UPDATE
SET occurred_at = excluded.occurred_at, source = excluded.source, event_id = excluded.event_id
"""

_FALL = "DELETE FROM metering_latestreading WHERE balance_id = %s AND dimension_key = %s"

_SEE = """
INSERT INTO metering_seenvalue AS s (balance_id, digest, events) SELECT * FROM unnest(%s::bigint[], %s::bytea[], %s::bigint[])
ON CONFLICT (balance_id, digest) DO UPDATE SET events = s.events + excluded.events
RETURNING balance_id, digest, events
"""

_UNSEE = "UPDATE metering_seenvalue SET events = events - 1 WHERE balance_id = %s AND digest = %s RETURNING events"

# The events of a dimension set that nobody has taken back; COLLATE "C" orders texts as Python does. Those of a cut period may lie beyond its end.
_COUNTED = """
SELECT e.occurred_at, e.source, e.event_id, (c.value ->> 2)::numeric AS quantity
FROM metering_usageevent e CROSS JOIN LATERAL jsonb_array_elements(e.counts) AS c
WHERE e.subject = %s AND e.occurred_at >= %s AND (c.value ->> 0)::bigint = %s AND c.value ->> 1 = %s
  AND NOT EXISTS (SELECT 1 FROM metering_eventcount r
                  WHERE r.event_id = e.id AND r.kind = 'reversal' AND r.balance_id = (c.value ->> 0)::bigint)
"""

_REPLAYED = """
SELECT e.occurred_at, e.source, e.event_id, n.quantity
FROM metering_eventcount n JOIN metering_usageevent e ON e.id = n.event_id
WHERE e.subject = %s AND e.occurred_at >= %s AND n.balance_id = %s AND n.dimension_key = %s AND n.kind = 'replay'
  AND NOT EXISTS (SELECT 1 FROM metering_eventcount r
                  WHERE r.event_id = e.id AND r.kind = 'reversal' AND r.balance_id = n.balance_id)
"""

_LARGEST = "ORDER BY quantity DESC LIMIT 1"
_LAST = 'ORDER BY e.occurred_at DESC, e.source COLLATE "C" DESC, e.event_id COLLATE "C" DESC LIMIT 1'
_REMAINING = {
    Aggregation.MAX: f"({_COUNTED} {_LARGEST}) UNION ALL ({_REPLAYED} {_LARGEST})",
    Aggregation.LATEST: f"({_COUNTED} {_LAST}) UNION ALL ({_REPLAYED} {_LAST})",
}


def take_in(moved: Sequence[ValueMovement]) -> None:
    """Set the movements of new events to what they add to the values of their sets, and keep what the values then rest on."""
    _see([one for one in moved if one.aggregation is Aggregation.UNIQUE_COUNT])
    others = [one for one in moved if one.aggregation is not Aggregation.UNIQUE_COUNT]
    standing = _standing(others)
    now_standing: list[tuple[ValueMovement, Reading]] = []
    for one in others:
        before = standing.get(one.key, _NOTHING)
        if one.aggregation is Aggregation.MAX:
            _move(one, before, max(before.value, fold(Aggregation.MAX, one.readings)))
            continue
        last = max(one.readings, key=_order)
        if before.order is None or _order(last) > before.order:
            _move(one, before, last.quantity)
            now_standing.append((one, last))
        else:
            _move(one, before, before.value)
    _stand(now_standing)


def take_back(moved: Sequence[ValueMovement], *, subject: str) -> None:
    """
    Set the movements of reversed events to what the values of their sets lose by them; a `latest` may gain.

    The reversals are written already: a value that rested on its event is counted again from what is left of the period's.
    """
    others = [one for one in moved if one.aggregation is not Aggregation.UNIQUE_COUNT]
    standing = _standing(others)
    for one in moved:
        [reading] = one.readings
        if one.aggregation is Aggregation.UNIQUE_COUNT:
            [(events,)] = run(_UNSEE, [one.movement.balance_id, _digest(reading)])
            _set(one, Decimal(0 if events else -1))
            continue
        before = standing[one.key]
        rested_on_it = (
            reading.quantity == before.value if one.aggregation is Aggregation.MAX else _order(reading) == before.order
        )
        if not rested_on_it:
            _move(one, before, before.value)
            continue
        left = _remaining(one, subject)
        _move(one, before, fold(one.aggregation, left))
        if one.aggregation is Aggregation.LATEST and left:
            _stand([(one, max(left, key=_order))])
        elif one.aggregation is Aggregation.LATEST:
            run(_FALL, one.key)


def _see(moved: Sequence[ValueMovement]) -> None:
    """Count the values of unique counts; a value is new when all events that have it came just now."""
    if not moved:
        return
    seen: dict[tuple[int, bytes], int] = {}
    movement_of: dict[tuple[int, bytes], ValueMovement] = {}
    for one in moved:
        _set(one, _ZERO)
        for reading in one.readings:
            key = (one.movement.balance_id, _digest(reading))
            seen[key] = seen.get(key, 0) + 1
            movement_of[key] = one
    balances, digests = zip(*seen, strict=True)
    for balance_id, digest, events in run(
        _SEE, [plain_array(balances), bytes_array(digests), plain_array(seen.values())]
    ):
        key = (balance_id, bytes(digest))
        if events == seen[key]:
            movement_of[key].movement.quantity += 1


def _standing(moved: Sequence[ValueMovement]) -> dict[tuple[int, str], _Standing]:
    """Return the values of these sets; one that never had an event is missing."""
    if not moved:
        return {}
    movements = [one.movement for one in moved]
    rows = run(
        _STANDING,
        [
            plain_array([one.balance_id for one in movements]),
            time_array([one.segment_at for one in movements]),
            text_array([one.dimension_key for one in movements]),
        ],
    )
    return {
        (balance_id, key): _Standing(value, None if occurred_at is None else (occurred_at, source, event_id))
        for balance_id, key, value, occurred_at, source, event_id in rows
    }


def _stand(standing: Sequence[tuple[ValueMovement, Reading]]) -> None:
    """Keep which events now stand as the latest."""
    if not standing:
        return
    run(
        _STAND,
        [
            plain_array([one.movement.balance_id for one, _ in standing]),
            text_array([one.movement.dimension_key for one, _ in standing]),
            time_array([reading.occurred_at for _, reading in standing]),
            text_array([reading.source for _, reading in standing]),
            text_array([reading.event_id for _, reading in standing]),
        ],
    )


def _remaining(one: ValueMovement, subject: str) -> list[Reading]:
    """Return those of the set's events, two at most, among which the one is that its value rests on; none when all are reversed."""
    of_set = [subject, one.movement.segment_at, *one.key]
    return [Reading(*row) for row in run(_REMAINING[one.aggregation], of_set * 2)]


def _move(one: ValueMovement, before: _Standing, value: Decimal) -> None:
    with exact():
        _set(one, value - before.value)


def _set(one: ValueMovement, difference: Decimal) -> None:
    one.movement.quantity, one.movement.of_value = difference, True


def _order(reading: Reading) -> tuple[datetime, str, str]:
    return reading[:3]


def _digest(reading: Reading) -> bytes:
    assert reading.seen is not None, "a unique count's reading has a value"
    return bytes.fromhex(reading.seen)
