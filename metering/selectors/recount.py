"""
Counts a balance again from the events themselves, as if no total had ever been kept.

This is what `verify` rates: each event is measured anew by its meter, reversals are taken back, and the segments are walked. What the
ledger says is used only to know which events belong to the booking that is verified, and which came after closing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import connection

from metering.core.burndown import walk
from metering.core.measuring import DimensionSet, Measured, measure
from metering.core.overage import SegmentUsage
from metering.models import CreditGrant, LedgerEntry, MeterBalance
from metering.selectors.events import decode_data
from metering.selectors.meters import definition_of
from metering.selectors.terms import pools_of_version
from subscriptions.core.money import exact
from subscriptions.core.pricing import clamp_event
from subscriptions.selectors.agreement import VersionSpan, version_spans

_ZERO = Decimal(0)

# The events that postings counted for a balance, in their order; +1 for each that a posting or replay counted, -1 for each reversed one.
_EVENTS = """
WITH postings AS (
    SELECT posting_id, min(id) AS place, min(id) > %(closing)s AS is_late FROM metering_ledgerentry
    WHERE balance_id = %(balance)s AND id <= %(up_to)s AND kind = 'usage' GROUP BY posting_id
)
SELECT e.occurred_at, e.data::text, p.is_late, 1, p.place
FROM metering_usageevent e JOIN postings p USING (posting_id)
WHERE e.subject = %(subject)s AND e.counts @> jsonb_build_array(jsonb_build_array(%(balance)s::bigint))
UNION ALL
SELECT e.occurred_at, e.data::text, p.is_late, CASE c.kind WHEN 'reversal' THEN -1 ELSE 1 END, p.place
FROM metering_eventcount c JOIN postings p USING (posting_id)
JOIN metering_usageevent e ON e.subject = %(subject)s AND e.id = c.event_id
WHERE c.balance_id = %(balance)s
ORDER BY place
"""


@dataclass(slots=True)
class _Segment:
    """What one segment's events sum to by dimension set; its usage in time, and what came after closing, in its order."""

    span: VersionSpan
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

    Reads every event of the balance, so its cost grows with them.
    """
    segments = [_Segment(span) for span in version_spans(balance.period)]
    for occurred_at, data, is_late, sign in _read_events(balance, up_to_entry_id):
        _add(balance, segments, occurred_at, data, is_late=is_late, sign=sign)
    grants = [grant.as_core() for grant in CreditGrant.objects.filter(balance=balance)]
    position = walk([(one.span.starts_at, max(one.in_time, _ZERO)) for one in segments], grants)
    return [
        SegmentUsage(
            version_id=one.span.version_id,
            usage=one.usage,
            overage=one.overage(burndown.overage),
            events=one.events,
            clamped=one.clamped,
        )
        for one, burndown in zip(segments, position.segments, strict=True)
    ]


def _read_events(balance: MeterBalance, up_to_entry_id: int) -> Iterator[tuple[datetime, str, bool, int]]:
    parameters: dict[str, Any] = {
        "balance": balance.pk,
        "subject": balance.tenant.code,
        "up_to": up_to_entry_id,
        "closing": _closing_entry_id(balance),
    }
    with connection.cursor() as cursor:
        cursor.execute(_EVENTS, parameters)
        for occurred_at, data, is_late, sign, _ in cursor:
            yield occurred_at, data, is_late, sign


def _closing_entry_id(balance: MeterBalance) -> int:
    """
    Return the ledger entry after which usage is late.

    A closing that found the allowance used up let nothing expire, and left no entry. Then usage is late from the first reversal on whose
    un-burn expired: what came before it is counted alike, in time or late, because the whole allowance covers usage either way.
    """
    entries = LedgerEntry.objects.filter(balance=balance)
    expiry = entries.filter(kind=LedgerEntry.Kind.EXPIRE).select_related("posting").order_by("pk").first()
    if expiry is None:
        return 2**62
    if expiry.posting.kind == "close":
        return expiry.pk
    return entries.filter(posting_id=expiry.posting_id).order_by("pk").values_list("pk", flat=True)[0] - 1


def _add(
    balance: MeterBalance, segments: list[_Segment], occurred_at: datetime, data: str, *, is_late: bool, sign: int
) -> None:
    measured = measure(definition_of(balance.meter), decode_data(data))
    assert isinstance(measured, Measured), "a counted event measures as it did when it was counted"
    segment = next(one for one in reversed(segments) if one.span.starts_at <= occurred_at)
    names = measured.dimensions
    charge = pools_of_version(segment.span.version_id)[balance.meter_id].charge_for(names)
    with exact():
        quantity = sign * measured.quantity
        segment.usage[names] = segment.usage.get(names, _ZERO) + quantity
        segment.events[names] = segment.events.get(names, 0) + sign
        if charge is not None and charge.price.clamps_events:
            price = clamp_event(charge.price, measured.quantity)
            segment.clamped[names] = segment.clamped.get(names, _ZERO) + sign * price
        if is_late:
            segment.late.append(quantity)
        else:
            segment.in_time += quantity
