"""What stands in the buckets of rolling windows, and what the events say should."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import connection

from billing_site.prepared import run
from metering.core.windows import BUCKETS, WindowUse
from subscriptions.core.money import exact
from subscriptions.models import Tenant

_ZERO = Decimal(0)

# Holds of the pool in other periods that are not closed yet count in its windows, too, until their time is up.
_USES = """
WITH wanted AS MATERIALIZED (
    SELECT b.id, b.tenant_id, b.meter_id, b.pool, n.now
    FROM unnest(%s::bigint[], %s::timestamptz[]) AS n (id, now) JOIN metering_meterbalance b ON b.id = n.id
)
SELECT w.id, k.window_seconds, k.bucket_at, k.quantity
FROM wanted w JOIN metering_windowbucket k USING (tenant_id, meter_id, pool)
UNION ALL
SELECT w.id, 0, NULL, sum(a.quantity)
FROM wanted w JOIN metering_meterbalance b USING (tenant_id, meter_id, pool)
JOIN metering_authorization a ON a.balance_id = b.id AND a.due_at > w.now
WHERE b.id <> w.id AND b.held > 0 GROUP BY w.id
"""


class WindowUses:
    """What stands in the windows of some balances' pools, each at its tenant's time, read in one query."""

    def __init__(self, now_of: Mapping[int, datetime]) -> None:
        self._buckets: dict[tuple[int, int], dict[datetime, Decimal]] = {}
        self._held_elsewhere: dict[int, Decimal] = {}
        for balance_id, seconds, bucket_at, quantity in run(_USES, [list(now_of), list(now_of.values())]):
            if bucket_at is None:
                self._held_elsewhere[balance_id] = quantity
            else:
                self._buckets.setdefault((balance_id, seconds), {})[bucket_at] = quantity

    def of(self, balance_id: int, seconds: int, *, held: Decimal) -> WindowUse:
        """Return what stands in a window of this length; `held` is what the balance itself holds."""
        with exact():
            held_in_all = held + self._held_elsewhere.get(balance_id, _ZERO)
        return WindowUse(self._buckets.get((balance_id, seconds), {}), held_in_all)


_USAGE = """
WITH counted AS (
    SELECT (c.value ->> 0)::bigint AS balance_id, e.occurred_at, c.value ->> 1 AS dimension_key, (c.value ->> 2)::numeric AS quantity
    FROM metering_usageevent e CROSS JOIN LATERAL jsonb_array_elements(e.counts) AS c
    WHERE e.subject = %(subject)s AND e.occurred_at > %(since)s
    UNION ALL
    SELECT n.balance_id, e.occurred_at, n.dimension_key, n.quantity
    FROM metering_usageevent e JOIN metering_eventcount n ON n.event_id = e.id
    WHERE e.subject = %(subject)s AND e.occurred_at > %(since)s
)
SELECT c.dimension_key, date_bin(%(width)s, c.occurred_at, '1970-01-01T00:00:00Z') AS at, sum(c.quantity)
FROM counted c JOIN metering_meterbalance b ON b.id = c.balance_id AND b.tenant_id = %(tenant)s AND b.meter_id = %(meter)s
GROUP BY 1, 2
"""


def usage_in_buckets(
    tenant: Tenant, *, meter_id: int, seconds: int, since: datetime
) -> Iterator[tuple[str, datetime, Decimal]]:
    """Yield dimension key, bucket and sum of what a tenant's events counted for a meter, in the buckets that begin after `since`."""
    parameters: dict[str, Any] = {
        "subject": tenant.code,
        "tenant": tenant.pk,
        "meter": meter_id,
        "since": since,
        "width": f"{seconds // BUCKETS} seconds",
    }
    with connection.cursor() as cursor:
        cursor.execute(_USAGE, parameters)
        rows = cursor.fetchall()
    for key, at, quantity in rows:
        if at > since:
            yield key, at.astimezone(UTC), quantity
