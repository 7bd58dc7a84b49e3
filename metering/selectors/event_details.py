"""
Stored events as people ask for them: lists, and one event with everything that it was counted as.

Owns how an event is looked up and shown. Does not own the invoice line on which it stands: invoices are above, and their door adds it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from django.db.models import BooleanField, Exists, OuterRef, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast

from billing_site.http.problems import DomainError
from metering.core.measuring import DimensionSet, dimension_set
from metering.models import EventCount, MeterBalance, UsageEvent
from metering.selectors.events import near
from metering.selectors.overage import SegmentTotals, read_totals
from metering.selectors.segments import segment_of
from metering.selectors.terms import pools_of_version
from subscriptions.core.money import exact
from subscriptions.models import Meter
from subscriptions.selectors.agreement import version_of_terms

RECORD = "record"


class EventNotFound(DomainError):
    """No stored event has this id."""

    status = 404
    code = "not_found"
    title = "There is no such event"


@dataclass(frozen=True, slots=True)
class CountedAs:
    """One movement that an event caused: how it was counted at first, by a replay, or taken back by a reversal."""

    # record, replay or reversal.
    kind: str
    balance: MeterBalance
    dimensions: DimensionSet
    # Meter units; negative in a reversal.
    quantity: Decimal
    # The segment in which it counts, with the totals of all events there, and the version that prices it.
    segment: SegmentTotals
    version_id: int
    # The charge that prices it; None where none does (it is listed as unpriced).
    charge_id: int | None


@dataclass(frozen=True, slots=True)
class EventDetail:
    """An event with all that it was counted as, oldest first."""

    event: UsageEvent
    counted_as: tuple[CountedAs, ...]

    def document(self) -> dict[str, Any]:
        """Return the event as the API shows it, but for the invoice line."""
        return {**event_document(self.event), "counted_as": [_counted_document(counted) for counted in self.counted_as]}


# Counts name balances by number; an event belongs to a meter if one of its balances does, or one that a replay counted it for.
_OF_METER = """
EXISTS (SELECT 1 FROM jsonb_array_elements(metering_usageevent.counts) AS c
        JOIN metering_meterbalance b ON b.id = (c.value ->> 0)::bigint WHERE b.meter_id = %s)
OR EXISTS (SELECT 1 FROM metering_eventcount n
           JOIN metering_meterbalance b ON b.id = n.balance_id WHERE n.event_id = metering_usageevent.id AND b.meter_id = %s)
"""


def find_events(
    *,
    subject: str | None = None,
    source: str | None = None,
    event_id: str | None = None,
    meter: Meter | None = None,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
) -> QuerySet[UsageEvent]:
    """
    Return the events to which every given condition applies, unordered; times are a half-open stretch of when they occurred.

    Each comes with `data_text` (its data, exactly as stored), `was_replayed` and `was_reversed`. Fast with a subject; without one, whatever
    months are kept are read.
    """
    events = described(UsageEvent.objects.all())
    conditions = {
        "subject": subject,
        "source": source,
        "event_id": event_id,
        "occurred_at__gte": starts_at,
        "occurred_at__lt": ends_at,
    }
    events = events.filter(**{name: value for name, value in conditions.items() if value is not None})
    if meter is not None:
        # Our own text; the meter's number is bound.
        of_meter = RawSQL(f"({_OF_METER})", [meter.pk, meter.pk], output_field=BooleanField())  # noqa: S611
        events = events.filter(of_meter)
    return events


def event_detail(event_id: UUID) -> EventDetail:
    """Return an event by our id of it, with all that it was counted as. Raises EventNotFound (404)."""
    event = described(UsageEvent.objects.filter(near(event_id))).first() if event_id.version == 7 else None
    if event is None:
        raise EventNotFound(f"There is no event {event_id}.")
    movements = [_Movement(RECORD, balance_id, key, Decimal(text)) for balance_id, key, text, *_ in event.counts]
    later = EventCount.objects.filter(event_id=event_id).order_by("pk")
    movements += [_Movement(count.kind, count.balance_id, count.dimension_key, count.quantity) for count in later]
    return EventDetail(event, tuple(_explained(event, movements)))


class _Movement(NamedTuple):
    kind: str
    balance_id: int
    dimension_key: str
    quantity: Decimal


def described(events: QuerySet[UsageEvent]) -> QuerySet[UsageEvent]:
    """Read data as text: the model's own decoder would make floats of its numbers."""
    counts = EventCount.objects.filter(event_id=OuterRef("pk"))
    return events.defer("data").annotate(
        data_text=Cast("data", TextField()),
        was_replayed=Exists(counts.filter(kind=EventCount.Kind.REPLAY)),
        was_reversed=Exists(counts.filter(kind=EventCount.Kind.REVERSAL)),
    )


def _explained(event: UsageEvent, movements: Sequence[_Movement]) -> Iterator[CountedAs]:
    ids = {movement.balance_id for movement in movements}
    balances = MeterBalance.objects.select_related("meter", "period").in_bulk(ids)
    totals = read_totals(sorted(ids))
    for movement in movements:
        balance = balances[movement.balance_id]
        # A meter that does not add up has one segment, which begins with the period.
        counts_at = event.occurred_at if balance.meter.is_additive else balance.period.starts_at
        segment_at, terms_id = segment_of(balance, counts_at)
        # Counting it has made its segment's total.
        segment = next(one for one in totals[balance.pk] if one.segment_at == segment_at)
        dimensions = dimension_set(movement.dimension_key)
        pools = pools_of_version(terms_id).get(balance.meter_id)
        charge = pools.charge_for(dimensions) if pools else None
        yield CountedAs(
            kind=movement.kind,
            balance=balance,
            dimensions=dimensions,
            quantity=movement.quantity,
            segment=segment,
            version_id=version_of_terms(terms_id),
            charge_id=int(charge.charge_id) if charge else None,
        )


def event_document(event: UsageEvent) -> dict[str, Any]:
    """Return an event of `find_events` or `event_detail` as every answer shows it; `event` is our id, `id` the sender's."""
    reversed_, replayed = event.was_reversed, event.was_replayed  # type: ignore[attr-defined]
    counted = bool(event.posting_id) or replayed
    return {
        "event": str(event.pk),
        "id": event.event_id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.occurred_at,
        "recorded_at": event.recorded_at,
        "data": msgspec.Raw(event.data_text.encode()),  # type: ignore[attr-defined]
        "status": "reversed" if reversed_ else "counted" if counted else "unmatched",
        "code": "" if counted else event.unmatched_code,
    }


def _counted_document(counted: CountedAs) -> dict[str, Any]:
    balance, segment = counted.balance, counted.segment
    with exact():
        segment_quantity = sum(segment.usage.values(), Decimal(0))
    return {
        "kind": counted.kind,
        "meter": balance.meter.code,
        "dimensions": dict(counted.dimensions),
        "quantity": counted.quantity,
        "period": {"starts_at": balance.period.starts_at, "ends_at": balance.period.ends_at},
        "segment": {
            "starts_at": segment.segment_at,
            "quantity": segment_quantity,
            "events": sum(segment.events.values()),
            "same_dimensions": {
                "quantity": segment.usage.get(counted.dimensions, Decimal(0)),
                "events": segment.events.get(counted.dimensions, 0),
            },
        },
        "pool": {
            "dimensions": dict(dimension_set(balance.pool)) if balance.pool else {},
            "used": balance.used,
            "covered": balance.covered,
            "overage": balance.overage,
        },
    }
