"""Meters as the core reads them."""

from collections.abc import Iterable
from dataclasses import dataclass

from billing_site.prepared import run
from metering.core.measuring import Aggregation, MeterDefinition, weighted_properties
from subscriptions.models import Meter


@dataclass(frozen=True, slots=True)
class CountingMeter:
    """A meter's definition, with what ingestion needs beside it."""

    id: int
    definition: MeterDefinition
    window_days: int
    rejects_late: bool


_METERS = """
SELECT id, code, event_type, window_days, late_policy FROM subscriptions_meter WHERE event_type = ANY(%s::text[]) ORDER BY id
"""

_known: dict[int, MeterDefinition] = {}


def counting_meters(event_types: Iterable[str]) -> dict[str, list[CountingMeter]]:
    """
    Return the meters of each event type, read afresh, so that a new meter counts at once.

    A type that no meter counts is missing from the answer.
    """
    by_type: dict[str, list[CountingMeter]] = {}
    for meter_id, code, event_type, window_days, late_policy in run(_METERS, [sorted(set(event_types))]):
        definition = _known.get(meter_id)
        if definition is None or definition.code != code:
            definition = definition_of(Meter.objects.get(pk=meter_id))
        counting = CountingMeter(meter_id, definition, window_days, late_policy == Meter.LatePolicy.REJECT)
        by_type.setdefault(event_type, []).append(counting)
    return by_type


def definition_of(meter: Meter) -> MeterDefinition:
    """Return the meter's definition. What decides a count never changes (a trigger keeps it), so it is read once."""
    known = _known.get(meter.pk)
    if known is None or known.code != meter.code:
        known = _known[meter.pk] = MeterDefinition(
            meter.code,
            meter.event_type,
            Aggregation(meter.aggregation),
            properties=weighted_properties(meter.value_property),
            filters=meter.filters,
            dimensions=tuple(meter.dimensions),
            precision=meter.precision,
        )
    return known
