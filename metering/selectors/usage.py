"""
Usage over time, from the events themselves: what was counted when, by meter and dimension.

Owns the sums that a chart shows. Not what is billed: that stands in balances and their segments (`overage`). The two differ only once months of
events have been dropped, which a chart then no longer shows.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from django.db import connection

from billing_site.http.problems import DomainError
from subscriptions.core.periods import resolve_wall
from subscriptions.models import Meter, Tenant
from subscriptions.models.catalog import ADDITIVE

ROWS_MAX = 10_000


class Window(StrEnum):
    """The stretch of the tenant's local time that one row sums up."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class TooManyRows(DomainError):
    """The answer would have more rows than anybody reads."""

    status = 400
    code = "too_many_rows"
    title = "The answer would be too large"


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one meter counted in one window, for one value of the dimension asked for."""

    meter: str
    # None where no window was asked for: the row is of the whole stretch.
    starts_at: datetime | None
    ends_at: datetime | None
    # None where no dimension was asked for; "" where the events said nothing of it.
    group: str | None
    # Meter units, what was reversed taken off.
    quantity: Decimal
    events: int


# An event's own counts, and what a replay or a reversal added to them, each at the time at which the event occurred.
_USAGE = """
WITH counted AS (
    SELECT (c.value ->> 0)::bigint AS balance_id, e.occurred_at, c.value ->> 1 AS dimension_key,
           (c.value ->> 2)::numeric AS quantity, 1 AS events
    FROM metering_usageevent e CROSS JOIN LATERAL jsonb_array_elements(e.counts) AS c
    WHERE e.subject = %(subject)s AND e.occurred_at >= %(starts_at)s AND e.occurred_at < %(ends_at)s
    UNION ALL
    SELECT n.balance_id, e.occurred_at, n.dimension_key, n.quantity, CASE n.kind WHEN 'reversal' THEN -1 ELSE 1 END
    FROM metering_usageevent e JOIN metering_eventcount n ON n.event_id = e.id
    WHERE e.subject = %(subject)s AND e.occurred_at >= %(starts_at)s AND e.occurred_at < %(ends_at)s
)
SELECT m.code, date_trunc(%(window)s::text, c.occurred_at, %(zone)s), NULLIF(c.dimension_key, '')::jsonb ->> %(group_by)s::text,
       sum(c.quantity), sum(c.events)
FROM counted c
JOIN metering_meterbalance b ON b.id = c.balance_id
JOIN subscriptions_meter m ON m.id = b.meter_id
WHERE b.tenant_id = %(tenant)s AND (%(meter)s::bigint IS NULL OR m.id = %(meter)s) AND m.aggregation = ANY(%(additive)s)
GROUP BY 1, 2, 3 ORDER BY 2, 1, 3 LIMIT %(limit)s
"""

# Each dimension set has a value of the events that lie in the window and were not taken back; a group's is the sum of its sets'.
_VALUES = """
WITH counted AS (
    SELECT e.id, e.occurred_at, e.source, e.event_id, (c.value ->> 0)::bigint AS balance_id, c.value ->> 1 AS dimension_key,
           (c.value ->> 2)::numeric AS quantity, c.value ->> 3 AS seen
    FROM metering_usageevent e CROSS JOIN LATERAL jsonb_array_elements(e.counts) AS c
    WHERE e.subject = %(subject)s AND e.occurred_at >= %(starts_at)s AND e.occurred_at < %(ends_at)s
    UNION ALL
    SELECT e.id, e.occurred_at, e.source, e.event_id, n.balance_id, n.dimension_key, n.quantity, n.seen
    FROM metering_usageevent e JOIN metering_eventcount n ON n.event_id = e.id AND n.kind = 'replay'
    WHERE e.subject = %(subject)s AND e.occurred_at >= %(starts_at)s AND e.occurred_at < %(ends_at)s
), of_sets AS (
    SELECT m.code, date_trunc(%(window)s::text, c.occurred_at, %(zone)s) AS begins_at, c.dimension_key, count(*) AS events,
           CASE m.aggregation WHEN 'max' THEN max(c.quantity) WHEN 'unique_count' THEN count(DISTINCT c.seen) ELSE
               (array_agg(c.quantity ORDER BY c.occurred_at DESC, c.source COLLATE "C" DESC, c.event_id COLLATE "C" DESC))[1]
           END AS value
    FROM counted c
    JOIN metering_meterbalance b ON b.id = c.balance_id
    JOIN subscriptions_meter m ON m.id = b.meter_id
    WHERE b.tenant_id = %(tenant)s AND (%(meter)s::bigint IS NULL OR m.id = %(meter)s) AND m.aggregation <> ALL(%(additive)s)
      AND NOT EXISTS (SELECT 1 FROM metering_eventcount r
                      WHERE r.event_id = c.id AND r.kind = 'reversal' AND r.balance_id = c.balance_id)
    GROUP BY m.code, m.aggregation, 2, 3
)
SELECT code, begins_at, NULLIF(dimension_key, '')::jsonb ->> %(group_by)s::text, sum(value), sum(events)
FROM of_sets GROUP BY 1, 2, 3 ORDER BY 2, 1, 3 LIMIT %(limit)s
"""


def usage(
    *,
    tenant: Tenant,
    meter: Meter | None,
    starts_at: datetime,
    ends_at: datetime,
    window: Window | None,
    group_by: str | None,
) -> list[UsageRow]:
    """
    Return what the tenant's events counted in [starts_at, ends_at), oldest window first; windows without usage are missing.

    A meter that does not add up has in each window the value of that window's events, as if it were a period.
    Windows lie in the tenant's present time zone. The first and last hold only the events inside the stretch, even where it cuts them. An
    hour that a change of clocks repeats has two rows. Raises TooManyRows beyond 10,000.
    """
    parameters: dict[str, Any] = {
        "tenant": tenant.pk,
        "subject": tenant.code,
        "meter": meter.pk if meter else None,
        "starts_at": starts_at,
        "ends_at": ends_at,
        "window": window.value if window else None,
        "zone": tenant.timezone,
        "group_by": group_by,
        "additive": ADDITIVE,
        "limit": ROWS_MAX + 1,
    }
    found: list[tuple[Any, ...]] = []
    with connection.cursor() as cursor:
        for statement in _statements(meter):
            cursor.execute(statement, parameters)
            found += cursor.fetchall()
    if len(found) > ROWS_MAX:
        raise TooManyRows(f"There are more than {ROWS_MAX} rows: ask for a shorter time, wider windows or no grouping.")
    return [
        UsageRow(
            code,
            begin and begin.astimezone(UTC),
            window_end(begin, window, tenant.timezone) if begin and window else None,
            (group or "") if group_by else None,
            quantity,
            int(events),
        )
        for code, begin, group, quantity, events in sorted(found, key=_place)
    ]


def _statements(meter: Meter | None) -> list[str]:
    """Return what is to be asked: sums, values, or both where all meters are wanted and some do not add up."""
    if meter is not None:
        return [_USAGE if meter.is_additive else _VALUES]
    return [_USAGE, _VALUES] if Meter.objects.exclude(aggregation__in=ADDITIVE).exists() else [_USAGE]


def _place(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Oldest window first, then by meter and group; without windows all begin at once."""
    code, begin, group, *_ = row
    return begin and begin.timestamp(), code, group or ""


def window_end(starts_at: datetime, window: Window, zone: str) -> datetime:
    """
    Return the instant at which a window ends, by the local calendar.

    >>> window_end(datetime(2026, 3, 28, 23, tzinfo=UTC), Window.DAY, "Europe/Berlin").isoformat()  # a day of 23 hours
    '2026-03-29T22:00:00+00:00'
    """
    if window is Window.HOUR:
        return starts_at.astimezone(UTC) + timedelta(hours=1)
    day = starts_at.astimezone(ZoneInfo(zone)).date()
    following = (
        day + timedelta(days=1) if window is Window.DAY else (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    )
    return resolve_wall(datetime.combine(following, time()), zone)
