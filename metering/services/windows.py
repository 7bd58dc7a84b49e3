"""
Keeps what was used within rolling windows: buckets, moved by the posting that counts an event or takes it back.

The sums reach over periods, so two balances of a pool may move one bucket at once: its row's lock orders them, and buckets are taken in order.
Nothing here is done for pools without windows.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from django.db.models import F

from billing_site.prepared import run
from metering.core.measuring import dimension_set
from metering.core.windows import bucket_of, counts_after
from metering.models import MeterBalance
from metering.selectors.terms import TERMS_OF_CHANGE, TERMS_OF_PERIOD, pools_of_version, window_lengths
from metering.selectors.windows import usage_in_buckets
from metering.services.arrays import columns, plain_array, text_array, time_array
from metering.services.locked import LockedBalance
from subscriptions.core.money import exact
from subscriptions.models import BillingPeriod
from subscriptions.selectors.agreement import terms_id_in

if TYPE_CHECKING:  # they open periods, and so come to this module
    from metering.services.candidates import Candidate

_ZERO = Decimal(0)


class _Bucket(NamedTuple):
    """What names a bucket: their order is the order in which the rows are locked."""

    tenant_id: int
    meter_id: int
    pool: str
    seconds: int
    at: datetime


_ADD = """
WITH moved AS MATERIALIZED (
    SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::int[], %s::timestamptz[], %s::numeric[], %s::timestamptz[])
         AS d (tenant_id, meter_id, pool, window_seconds, bucket_at, quantity, counts_after)
), gone AS (
    DELETE FROM metering_windowbucket b USING moved d
    WHERE (b.tenant_id, b.meter_id, b.pool, b.window_seconds) = (d.tenant_id, d.meter_id, d.pool, d.window_seconds)
      AND b.bucket_at <= d.counts_after
)
INSERT INTO metering_windowbucket AS b (tenant_id, meter_id, pool, window_seconds, bucket_at, quantity)
SELECT tenant_id, meter_id, pool, window_seconds, bucket_at, quantity FROM moved WHERE bucket_at > counts_after
ON CONFLICT (tenant_id, meter_id, pool, window_seconds, bucket_at) DO UPDATE SET quantity = b.quantity + excluded.quantity
"""

# A bucket that has gone needs nothing taken out of it, and one that was begun again after it had gone does not count.
_TAKE_OUT = """
UPDATE metering_windowbucket SET quantity = GREATEST(quantity - %s, 0)
WHERE (tenant_id, meter_id, pool) = (%s, %s, %s)
  AND bucket_at = date_bin(make_interval(secs => window_seconds / 60), %s, '1970-01-01T00:00:00Z')
"""

# The terms at the end of each tenant's last period before an instant.
_BEFORE = f"""
SELECT w.tenant_id, w.starts_at, b.terms_id FROM unnest(%s::bigint[], %s::timestamptz[]) AS w (tenant_id, starts_at)
CROSS JOIN LATERAL (
    SELECT COALESCE((SELECT {TERMS_OF_CHANGE} FROM subscriptions_tierchange x WHERE x.period_id = p.id
                     ORDER BY x.effective_at DESC, x.id DESC LIMIT 1), {TERMS_OF_PERIOD}) AS terms_id
    FROM subscriptions_billingperiod p WHERE p.tenant_id = w.tenant_id AND p.starts_at < w.starts_at
    ORDER BY p.starts_at DESC LIMIT 1
) AS b
"""


def record(counted: "Iterable[Candidate]") -> None:
    """Add what events count to the buckets of their pools' windows. The caller holds the balances' locks, and posts the same events."""
    moved: dict[_Bucket, Decimal] = {}
    oldest: dict[_Bucket, datetime] = {}
    with exact():
        for candidate in counted:
            for count in candidate.counts:
                placed = count.balance
                for seconds in placed.windows:
                    at = bucket_of(candidate.occurred_at, seconds)
                    bucket = _Bucket(placed.tenant_id, placed.meter_id, placed.pool, seconds, at)
                    moved[bucket] = moved.get(bucket, _ZERO) + count.quantity
                    oldest[bucket] = counts_after(candidate.now, seconds)
    _add(moved, oldest)


def take_out(balance: LockedBalance, *, occurred_at: datetime, quantity: Decimal) -> None:
    """Take a reversed event's quantity out of its buckets, as far as they still count. The caller holds the balance's lock."""
    row = balance.row
    run(_TAKE_OUT, [quantity, row.tenant_id, row.meter_id, row.pool, occurred_at])


def fill(periods: Iterable[BillingPeriod]) -> None:
    """
    Begin the windows that are new to a tenant with a period's version: count what was used before it, from the events.

    Usage that was resolved before the period was opened, and does not know of the windows, is resolved again: the tenant's open balances
    are locked, and their epochs raised. The caller holds the locks of the subscriptions. One query where nothing is new.
    """
    with_windows = [period for period in periods if _lengths(terms_id_in(period.kind, period.version_id))]
    if not with_windows:
        return
    tenants = plain_array([period.tenant_id for period in with_windows])
    starts = time_array([period.starts_at for period in with_windows])
    before = {
        (tenant_id, starts_at): terms_before for tenant_id, starts_at, terms_before in run(_BEFORE, [tenants, starts])
    }
    for period in with_windows:
        terms_before = before.get((period.tenant_id, period.starts_at))
        if terms_before is not None:
            after = terms_id_in(period.kind, period.version_id)
            fill_from(period, at=period.starts_at, before=terms_before, after=after)


def fill_from(period: BillingPeriod, *, at: datetime, before: int, after: int) -> None:
    """
    Do the same for the windows that a version has, and the one before it had not, when it comes into force at an instant of the period.

    Both are ids of terms. The caller holds the locks of subscription and period, or makes the period.
    """
    new = _lengths(after) - _lengths(before)
    if new:
        _fill(period, at, after, new)


def _fill(period: BillingPeriod, at: datetime, terms_id: int, new: AbstractSet[tuple[int, str, int]]) -> None:
    balances = MeterBalance.objects.select_for_update(no_key=True, of=("self",)).filter(
        tenant_id=period.tenant_id, closed_at__isnull=True
    )
    ids = [balance.pk for balance in balances.order_by("pk")]
    MeterBalance.objects.filter(pk__in=ids).update(epoch=F("epoch") + 1)
    moved: dict[_Bucket, Decimal] = {}
    for meter_id, pool, seconds in sorted(new):
        pools = pools_of_version(terms_id)[meter_id]
        since = counts_after(at, seconds)
        for key, at, quantity in usage_in_buckets(period.tenant, meter_id=meter_id, seconds=seconds, since=since):
            if pools.key_for(dimension_set(key)) == pool:
                bucket = _Bucket(period.tenant_id, meter_id, pool, seconds, at)
                with exact():
                    moved[bucket] = moved.get(bucket, _ZERO) + quantity
    _add({bucket: quantity for bucket, quantity in moved.items() if quantity > 0}, {})


@lru_cache(maxsize=4096)
def _lengths(terms_id: int) -> frozenset[tuple[int, str, int]]:
    """Return (meter, pool, seconds) of each window of these terms."""
    return frozenset(
        (meter_id, pool, seconds)
        for meter_id, pools in pools_of_version(terms_id).items()
        for pool in pools.by_key
        for seconds in window_lengths((terms_id,), meter_id, pool)
    )


def _add(moved: dict[_Bucket, Decimal], oldest: dict[_Bucket, datetime]) -> None:
    """Add to buckets, and let those go that do not count any more; `oldest` says from when on they do, none for all of them."""
    if not moved:
        return
    buckets = sorted(moved)
    tenants, meters, pools, seconds, instants = columns(buckets, 5)
    run(
        _ADD,
        [
            plain_array(tenants),
            plain_array(meters),
            text_array(pools),
            plain_array(seconds),
            time_array(instants),
            plain_array([moved[bucket] for bucket in buckets]),
            plain_array([oldest[bucket].isoformat() if bucket in oldest else "-infinity" for bucket in buckets]),
        ],
    )
