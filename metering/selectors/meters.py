"""Meters as the core reads them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from billing_site.prepared import run
from metering.core.measuring import Aggregation, MeterDefinition, weighted_properties
from subscriptions.models import Meter


@dataclass(frozen=True, slots=True)
class CountingMeter:
    """A meter's definition, with what ingestion needs beside it."""

    id: int
    definition: MeterDefinition
    # How far back in the tenant's time an event may lie.
    window: timedelta
    rejects_late: bool


# How long a process goes by what it has read of meters. That a meter was added since is found out at once (`ingest`).
REMEMBERED_SECONDS = 1.0

_METERS = """
SELECT id, code, event_type, window_days, late_policy FROM subscriptions_meter ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Meters:
    """All meters as they were read together."""

    by_type: Mapping[str, Sequence[CountingMeter]]
    # Meters are never deleted, so that it grows with each that is added.
    sum_of_ids: int
    read_at: float

    def of_type(self, event_type: str) -> Sequence[CountingMeter]:
        """Return the meters that count events of this type."""
        return self.by_type.get(event_type, ())


_known: dict[int, MeterDefinition] = {}
_remembered: list[Meters] = []


def counting_meters(*, afresh: bool = False) -> Meters:
    """
    Return the meters, as this process has read them within the last second, or afresh.

    Who writes by what was remembered asks in its transaction whether a meter has been added since, so that a new one counts at once.
    """
    if _remembered and not afresh and time.monotonic() - _remembered[0].read_at < REMEMBERED_SECONDS:
        return _remembered[0]
    read_at = time.monotonic()
    by_type: dict[str, list[CountingMeter]] = {}
    sum_of_ids = 0
    for meter_id, code, event_type, window_days, late_policy in run(_METERS):
        definition = _known.get(meter_id)
        if definition is None or definition.code != code:
            definition = definition_of(Meter.objects.get(pk=meter_id))
        window, rejects_late = timedelta(days=window_days), late_policy == Meter.LatePolicy.REJECT
        counting = CountingMeter(meter_id, definition, window, rejects_late)
        by_type.setdefault(event_type, []).append(counting)
        sum_of_ids += meter_id
    meters = Meters(by_type, sum_of_ids, read_at)
    _remembered[:] = [meters]
    return meters


_by_code: dict[str, tuple[int, MeterDefinition]] = {}


def remembered_meter(code: str) -> tuple[int, MeterDefinition] | None:
    """Return a meter's id and definition as this process has read it last; None where it has not."""
    return _by_code.get(code)


def read_meter(code: str) -> tuple[int, MeterDefinition] | None:
    """Return a meter's id and definition, and remember them; None where there is no such meter."""
    meter = Meter.objects.filter(code=code).first()
    if meter is None:
        return None
    found = _by_code[code] = (meter.pk, definition_of(meter))
    return found


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
