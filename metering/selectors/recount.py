"""
Counts a balance again from the events themselves, as if no total had ever been kept.

This is what `verify` rates: each event is measured anew by its meter, reversals are taken back, and the segments are walked; where the meter
does not add up, each dimension set's value is folded from its events. What the
ledger says is used only to know which events belong to the booking that is verified, and which came after closing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from django.db import connection

from metering.core.burndown import walk
from metering.core.measuring import (
    SETTLED_SOURCE,
    DimensionSet,
    Measured,
    Reading,
    dimension_key,
    fold,
    measure,
    measure_settled,
)
from metering.core.overage import SegmentUsage
from metering.core.segments import VersionSpan, cut, meets
from metering.models import CreditGrant, MeterBalance
from metering.selectors.events import decode_data
from metering.selectors.grants import pool_grants, pool_key
from metering.selectors.meters import definition_of
from metering.selectors.terms import pools_of_version
from subscriptions.core.money import exact
from subscriptions.core.pricing import clamp_event
from subscriptions.selectors.agreement import version_spans

_ZERO = Decimal(0)

# The events that postings counted for a balance, in their order; +1 for each that a posting or replay counted, -1 for each reversed one.
_EVENTS = """
WITH postings AS (
    SELECT posting_id, min(id) AS place, min(id) > %(closing)s AS is_late FROM metering_ledgerentry
    WHERE balance_id = %(balance)s AND id <= %(up_to)s AND kind = 'usage' GROUP BY posting_id
)
SELECT e.occurred_at, e.source, e.event_id, e.data::text, p.is_late, 1, p.place
FROM metering_usageevent e JOIN postings p USING (posting_id)
WHERE e.subject = %(subject)s AND e.counts @> jsonb_build_array(jsonb_build_array(%(balance)s::bigint))
UNION ALL
SELECT e.occurred_at, e.source, e.event_id, e.data::text, p.is_late, CASE c.kind WHEN 'reversal' THEN -1 ELSE 1 END, p.place
FROM metering_eventcount c JOIN postings p USING (posting_id)
JOIN metering_usageevent e ON e.subject = %(subject)s AND e.id = c.event_id
WHERE c.balance_id = %(balance)s
ORDER BY place
"""


class _Counted(NamedTuple):
    """An event that a posting counted (sign 1) or took back (-1); `place` tells the postings apart, in their order."""

    occurred_at: datetime
    source: str
    event_id: str
    data: str
    is_late: bool
    sign: int
    place: int


@dataclass(slots=True)
class _Segment:
    """What one segment's events sum to by dimension set; its usage in time, and what came after closing, in its order."""

    starts_at: datetime
    version_id: int
    usage: dict[DimensionSet, Decimal] = field(default_factory=dict)
    events: dict[DimensionSet, int] = field(default_factory=dict)
    clamped: dict[DimensionSet, Decimal] = field(default_factory=dict)
    in_time: Decimal = _ZERO
    late: list[Decimal] = field(default_factory=list)

    def overage(self, in_time: Decimal) -> Decimal:
        """Return the overage, given that of the usage in time: late usage adds to it, a late reversal lowers it to nothing at most."""
        overage = in_time
        with exact():
            for quantity in self.late:
                overage = max(overage + quantity, _ZERO)
        return overage


def recount(*, balance: MeterBalance, up_to_entry_id: int) -> list[SegmentUsage]:
    """
    Return the balance's segments as its events alone say, counting the postings up to a ledger entry.

    Reads every event of the balance, and of the earlier ones that burned the same grants of the pool: its cost grows with them.
    """
    of_pool = pool_grants([pool_key(balance)]).get(pool_key(balance), [])
    counted = [
        (one, _counted(one, of_pool, up_to_entry_id if one == balance else _closing_entry_id(one)))
        for one in (*_sharing(balance, of_pool), balance)
    ]
    own = CreditGrant.objects.filter(balance__in=[one for one, _ in counted])
    in_time = [(one.starts_at, max(one.in_time, _ZERO)) for _, segments in counted for one in segments]
    position = walk(in_time, [grant.as_core() for grant in (*own, *of_pool)])
    segments = counted[-1][1]
    return [
        SegmentUsage(
            version_id=one.version_id,
            usage=one.usage,
            overage=one.overage(burndown.overage),
            events=one.events,
            clamped=one.clamped,
        )
        for one, burndown in zip(segments, position.segments[-len(segments) :], strict=True)
    ]


def _sharing(balance: MeterBalance, grants: Sequence[CreditGrant]) -> list[MeterBalance]:
    """Return the earlier balances of the pool whose usage decides what is left of its grants for this one, in time order."""
    core = [grant.as_core() for grant in grants]
    earlier = MeterBalance.objects.select_related("period", "meter", "tenant").filter(
        tenant=balance.tenant, meter=balance.meter, pool=balance.pool, period__starts_at__lt=balance.period.starts_at
    )
    found: list[MeterBalance] = []
    reached = [grant for grant in core if meets(grant, balance.period.period)]
    for one in earlier.order_by("-period__starts_at") if reached else ():
        if any(meets(grant, one.period.period) for grant in reached):
            found.insert(0, one)
            reached += [grant for grant in core if grant not in reached and meets(grant, one.period.period)]
    return found


def _counted(balance: MeterBalance, grants: Sequence[CreditGrant], up_to_entry_id: int) -> list[_Segment]:
    """Return the segments of a balance with what its events sum to."""
    versions = [VersionSpan(span.terms_id, span.starts_at) for span in version_spans(balance.period)]
    pieces = cut(
        balance.period.period, versions, [grant.as_core() for grant in grants] if balance.meter.is_additive else []
    )
    segments = [_Segment(piece.starts_at, int(piece.version_id)) for piece in pieces]
    events = _read_events(balance, up_to_entry_id)
    if balance.meter.is_additive:
        for event in events:
            _add(balance, segments, event)
    else:
        _value(balance, segments[0], events)
    return segments


def _read_events(balance: MeterBalance, up_to_entry_id: int) -> Iterator[_Counted]:
    parameters: dict[str, Any] = {
        "balance": balance.pk,
        "subject": balance.tenant.code,
        "up_to": up_to_entry_id,
        "closing": _closing_entry_id(balance),
    }
    with connection.cursor() as cursor:
        cursor.execute(_EVENTS, parameters)
        yield from map(_Counted._make, cursor)


def _closing_entry_id(balance: MeterBalance) -> int:
    """Return the ledger entry after which usage is late."""
    return 2**62 if balance.closing_entry_id is None else balance.closing_entry_id


def _measured(balance: MeterBalance, event: _Counted) -> Measured:
    read = measure_settled if event.source == SETTLED_SOURCE else measure
    measured = read(definition_of(balance.meter), decode_data(event.data))
    assert isinstance(measured, Measured), "a counted event measures as it did when it was counted"
    return measured


def _value(balance: MeterBalance, segment: _Segment, events: Iterable[_Counted]) -> None:
    """
    Count a meter that does not add up: the value of each dimension set is that of its events that were not taken back.

    What came after closing is how the values moved with each posting, set by set in the order in which they were posted.
    """
    aggregation = definition_of(balance.meter).aggregation
    readings: dict[DimensionSet, dict[tuple[str, str], Reading]] = {}
    for is_late, part in groupby(events, key=attrgetter("is_late")):
        # What came in time counts as one, whatever its order.
        postings = (posting for _, posting in groupby(part, key=attrgetter("place"))) if is_late else (part,)
        for posting in postings:
            for names in sorted(_touch(balance, segment, readings, posting), key=dimension_key):
                value = fold(aggregation, readings[names].values())
                with exact():
                    moved = value - segment.usage.get(names, _ZERO)
                    segment.in_time += _ZERO if is_late else moved
                segment.usage[names] = value
                if is_late:
                    segment.late.append(moved)


def _touch(
    balance: MeterBalance,
    segment: _Segment,
    readings: dict[DimensionSet, dict[tuple[str, str], Reading]],
    events: Iterable[_Counted],
) -> set[DimensionSet]:
    """Put the events among the readings of their dimension sets, or take them away again; return the sets."""
    touched = set()
    for event in events:
        measured = _measured(balance, event)
        names, identity = measured.dimensions, (event.source, event.event_id)
        touched.add(names)
        of_set = readings.setdefault(names, {})
        if event.sign > 0:
            of_set[identity] = Reading(event.occurred_at, *identity, measured.quantity, measured.seen)
        else:
            del of_set[identity]
        segment.events[names] = segment.events.get(names, 0) + event.sign
    return touched


def _add(balance: MeterBalance, segments: list[_Segment], event: _Counted) -> None:
    measured, sign = _measured(balance, event), event.sign
    segment = next(one for one in reversed(segments) if one.starts_at <= event.occurred_at)
    names = measured.dimensions
    charge = pools_of_version(segment.version_id)[balance.meter_id].charge_for(names)
    with exact():
        quantity = sign * measured.quantity
        segment.usage[names] = segment.usage.get(names, _ZERO) + quantity
        segment.events[names] = segment.events.get(names, 0) + sign
        if charge is not None and charge.price.clamps_events:
            price = clamp_event(charge.price, measured.quantity)
            segment.clamped[names] = segment.clamped.get(names, _ZERO) + sign * price
        if event.is_late:
            segment.late.append(quantity)
        else:
            segment.in_time += quantity
