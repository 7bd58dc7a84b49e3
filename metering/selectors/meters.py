"""Meters as the core reads them."""

from collections.abc import Iterable
from dataclasses import dataclass

from metering.core.measuring import Aggregation, MeterDefinition, weighted_properties
from subscriptions.models import Meter


@dataclass(frozen=True, slots=True)
class CountingMeter:
    """A meter's definition, with what ingestion needs beside it."""

    id: int
    definition: MeterDefinition
    window_days: int
    rejects_late: bool


_known: dict[int, MeterDefinition] = {}


def counting_meters(event_types: Iterable[str]) -> dict[str, list[CountingMeter]]:
    """
    Return the meters of each event type, read afresh, so that a new meter counts at once.

    A type that no meter counts is missing from the answer.
    """
    by_type: dict[str, list[CountingMeter]] = {}
    for meter in Meter.objects.filter(event_type__in=set(event_types)).order_by("id"):
        counting = CountingMeter(
            meter.pk,
            definition_of(meter),
            meter.window_days,
            meter.late_policy == Meter.LatePolicy.REJECT,
        )
        by_type.setdefault(meter.event_type, []).append(counting)
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
