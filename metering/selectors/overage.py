"""What balances cost: the totals of their segments, priced by the one rating core. Computed each time, never read from bookings."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from django.db import connection

from billing_site.database import array_of
from billing_site.prepared import run
from metering.core.measuring import DimensionSet, dimension_set
from metering.core.overage import ChargeTerms, PricedPool, SegmentUsage, price_pool, price_units
from metering.models import MeterBalance
from metering.selectors.terms import pools_of_version
from subscriptions.core.money import exact
from subscriptions.models import BillingPeriod
from subscriptions.selectors.agreement import version_spans, version_spans_of
from subscriptions.selectors.catalog import terms_of

_ZERO = Decimal(0)

_TOTALS = """
SELECT balance_id, segment_at, dimension_key, quantity, events, clamped
FROM metering_segmenttotal WHERE balance_id = ANY(%s::bigint[]) ORDER BY balance_id, segment_at, dimension_key
"""

_SEGMENT_OVERAGE = """
SELECT balance_id, segment_at, sum(quantity)
FROM metering_ledgerentry WHERE balance_id = ANY(%s::bigint[]) AND grant_id IS NULL AND kind IN ('usage', 'walk') GROUP BY 1, 2
"""


class BalanceFigures(Protocol):
    """What pricing reads of a balance's row: the model's, or the slim one of posting."""

    pk: int
    period_id: int
    meter_id: int
    pool: str
    used: Decimal
    covered: Decimal
    held: Decimal
    held_amount: Decimal


@dataclass(frozen=True, slots=True)
class PricedBalance:
    """A balance with its price so far. `currency` is the version's."""

    balance: MeterBalance
    priced: PricedPool
    currency: str


@dataclass(frozen=True, slots=True)
class SegmentTotals:
    """The totals of one segment of a balance, by dimension set."""

    segment_at: datetime
    usage: dict[DimensionSet, Decimal]
    events: dict[DimensionSet, int]
    clamped: dict[DimensionSet, Decimal]

    @property
    def used(self) -> Decimal:
        """The usage of all sets."""
        with exact():
            return sum(self.usage.values(), _ZERO)


def priced_balances(*, period_ids: Iterable[int]) -> list[PricedBalance]:
    """Return every balance of these periods with its price, in the order of period and id."""
    balances = list(
        MeterBalance.objects.filter(period_id__in=list(period_ids))
        .select_related("period", "meter", "tenant")
        .order_by("period_id", "pk")
    )
    return price_balances(balances)


def price_balances(balances: Sequence[MeterBalance]) -> list[PricedBalance]:
    """Price these balances (their period must be at hand), with a few queries however many there are."""
    spans_of = version_spans_of(balance.period for balance in balances)
    versions_of = {pk: {span.starts_at: span.terms_id for span in spans} for pk, spans in spans_of.items()}
    priced = price_pools(balances, versions_of)
    return [
        PricedBalance(balance, priced[balance.pk], terms_of(balance.period.version_id).currency) for balance in balances
    ]


def price_pools(
    balances: Sequence[BalanceFigures],
    versions_of: Mapping[int, Mapping[datetime, int]],
    totals: Mapping[int, list[SegmentTotals]] | None = None,
) -> dict[int, PricedPool]:
    """
    Price these balances by id.

    `versions_of` gives, by period id, the versions by the instants from which they are in force, in time order; `totals` what `read_totals`
    has found, where it was asked already. A pool whose overage costs one amount per unit needs no more than its overage.
    """
    priced: dict[int, PricedPool] = {}
    closer: list[BalanceFigures] = []
    for balance in balances:
        if charge := _charge_per_unit(balance, versions_of[balance.period_id].values()):
            with exact():
                priced[balance.pk] = price_units(charge, balance.used - balance.covered)
        else:
            closer.append(balance)
    segments = segments_of(closer, versions_of, totals) if closer else {}
    for balance in closer:
        charges = charges_in_force(balance, versions_of[balance.period_id])
        priced[balance.pk] = price_pool(segments[balance.pk], charges)
    return priced


def segments_of(
    balances: Sequence[BalanceFigures],
    versions_of: Mapping[int, Mapping[datetime, int]],
    totals: Mapping[int, list[SegmentTotals]] | None = None,
) -> dict[int, list[SegmentUsage]]:
    """Return the segments of these balances' periods by balance, as rating reads them; `totals` as in `price_pools`."""
    if totals is None:
        totals = read_totals([balance.pk for balance in balances])
    overage = _overage_by_segment(balances, totals)
    found = {}
    for balance in balances:
        versions = versions_of[balance.period_id]
        found[balance.pk] = [
            SegmentUsage(
                version_id=versions[max(at for at in versions if at <= segment.segment_at)],
                usage=segment.usage,
                overage=overage[balance.pk, segment.segment_at],
                events=segment.events,
                clamped=segment.clamped,
            )
            for segment in with_empty_segments(totals.get(balance.pk, []), versions)
        ]
    return found


def charges_in_force(balance: BalanceFigures, versions: Mapping[datetime, int]) -> list[ChargeTerms]:
    """Return the charges that burn from a balance's pool under each of its period's versions; one that was left and came back counts once."""
    return [
        charge
        for version_id in dict.fromkeys(versions.values())
        for charge in charges_of_pool(version_id, balance.meter_id, balance.pool)
    ]


def _charge_per_unit(balance: BalanceFigures, version_ids: Collection[int]) -> ChargeTerms | None:
    """Return the charge whose unit amount is all that decides about the balance's overage; None where rating must look closer."""
    if len(version_ids) != 1:
        return None
    [version_id] = version_ids
    meter_pools = pools_of_version(version_id).get(balance.meter_id)
    pool = meter_pools.by_key.get(balance.pool) if meter_pools else None
    return pool.charges[0] if pool and pool.unit_amount is not None else None


def versions_in_force(period: BillingPeriod) -> dict[datetime, int]:
    """Return the period's versions by the instants from which they are in force, in time order."""
    return {span.starts_at: span.terms_id for span in version_spans(period)}


def charges_of_pool(version_id: int, meter_id: int, pool: str) -> tuple[ChargeTerms, ...]:
    """Return the version's charges that burn from a pool; none where the version has no such pool."""
    meter_pools = pools_of_version(version_id).get(meter_id)
    found = meter_pools.by_key.get(pool) if meter_pools else None
    return found.charges if found else ()


def read_totals(balance_ids: list[int]) -> dict[int, list[SegmentTotals]]:
    """Return the totals of each balance's segments in time order; a balance without usage is missing."""
    by_balance: dict[int, list[SegmentTotals]] = {}
    for balance_id, segment_at, key, quantity, events, clamped in run(_TOTALS, [array_of(balance_ids)]):
        segments = by_balance.setdefault(balance_id, [])
        if not segments or segments[-1].segment_at != segment_at:
            segments.append(SegmentTotals(segment_at, {}, {}, {}))
        names = dimension_set(key)
        segments[-1].usage[names] = quantity
        segments[-1].events[names] = events
        segments[-1].clamped[names] = clamped
    return by_balance


def with_empty_segments(segments: list[SegmentTotals], versions: Mapping[datetime, int]) -> list[SegmentTotals]:
    """Add the versions' segments that had no usage, so that each version's part of the axis has a place."""
    known = {segment.segment_at for segment in segments}
    empty = [SegmentTotals(starts_at, {}, {}, {}) for starts_at in versions if starts_at not in known]
    return sorted([*segments, *empty], key=lambda segment: segment.segment_at)


class _Overage(dict[tuple[int, datetime], Decimal]):
    """Overage by balance and segment; nothing where nothing is entered."""

    def __missing__(self, key: tuple[int, datetime]) -> Decimal:
        return _ZERO


def _overage_by_segment(balances: Sequence[BalanceFigures], totals: Mapping[int, list[SegmentTotals]]) -> _Overage:
    """A balance with one segment has all its overage there; only the others must ask the ledger."""
    overage = _Overage()
    several = []
    for balance in balances:
        segments = totals.get(balance.pk, [])
        if len(segments) == 1:
            with exact():
                overage[balance.pk, segments[0].segment_at] = balance.used - balance.covered
        elif segments:
            several.append(balance.pk)
    if several:
        with connection.cursor() as cursor:
            cursor.execute(_SEGMENT_OVERAGE, [array_of(several)])
            for balance_id, segment_at, quantity in cursor:
                overage[balance_id, segment_at] = quantity
    return overage
