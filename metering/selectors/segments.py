"""In which segment of a stored balance an instant lies."""

from datetime import datetime

from metering.core.segments import segment_start
from metering.models import MeterBalance
from metering.selectors.placement import PlacedPeriod
from subscriptions.selectors.agreement import version_spans


def segment_of(balance: MeterBalance, instant: datetime) -> tuple[datetime, int]:
    """
    Return the first instant of a balance's segment, and the id of its terms; instants beyond a cut end belong to the last one.

    A meter that does not add up has one segment, that of the period's first instant.
    """
    spans = version_spans(balance.period)
    changes = [(span.starts_at, span.terms_id) for span in spans[1:]]
    period = balance.period
    placed = PlacedPeriod(period.pk, spans[0].terms_id, period.starts_at, period.ends_at, False, changes)
    if instant >= period.ends_at:
        instant = max([spans[-1].starts_at, *balance.cuts])
    starts_at, terms_id = placed.segment_of(instant)
    return segment_start(starts_at, balance.cuts, instant), terms_id
