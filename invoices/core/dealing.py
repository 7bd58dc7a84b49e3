"""
Usage as it was counted, dealt to the pools of other terms.

Owns which of a period's totals belong to which pool, and what of them came late. Neither burns grants nor says what is left out (`backtest` does),
nor what a price is (`metering.core`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from metering.core.burndown import Grant
from metering.core.measuring import DimensionSet
from metering.core.overage import ChargeTerms, PricedPool, SegmentUsage, price_pool, price_units
from metering.core.pools import MeterPools, Pool
from subscriptions.core.money import exact

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Late:
    """Usage, negative where it was taken back, that was posted after its balance had closed."""

    dimensions: DimensionSet
    quantity: Decimal
    events: int


@dataclass(frozen=True, slots=True)
class CountedSegment:
    """The totals of a segment by dimension set, with what of them came late, in the order in which it was posted."""

    starts_at: datetime
    usage: Mapping[DimensionSet, Decimal]
    events: Mapping[DimensionSet, int]
    clamped: Mapping[DimensionSet, Decimal]
    late: Sequence[Late] = ()


@dataclass(frozen=True, slots=True)
class CountedBalance:
    """
    A pool's usage in a period, as it was kept.

    `pools` are the meter's by the terms of that time: by their bounds per event `clamped` was summed. `cuts` are the instants at which
    segments were begun for grants. `grants` are what had rolled over into this balance alone.
    """

    meter_id: int
    pool: str
    is_additive: bool
    cuts: Collection[datetime]
    pools: Sequence[MeterPools]
    segments: Sequence[CountedSegment]
    grants: Sequence[Grant] = ()


class Matcher:
    """A meter's pools in some terms; it remembers where a dimension set belongs, as thousands of tenants have the same ones."""

    def __init__(self, pools: MeterPools) -> None:
        self.pools = pools
        self._known: dict[DimensionSet, tuple[str, ChargeTerms | None]] = {}

    def place(self, names: DimensionSet) -> tuple[str, ChargeTerms | None]:
        """Return the key of the pool that usage with these values belongs to, and the charge that prices it; None where none does."""
        found = self._known.get(names)
        if found is None:
            found = self._known[names] = self.pools.key_for(names), self.pools.charge_for(names)
        return found


@dataclass(slots=True)
class _Dealt:
    """What of a segment belongs to one pool."""

    usage: dict[DimensionSet, Decimal] = field(default_factory=dict)
    events: dict[DimensionSet, int] = field(default_factory=dict)
    clamped: dict[DimensionSet, Decimal] = field(default_factory=dict)
    late: list[Late] = field(default_factory=list)

    def in_time(self) -> Decimal:
        """Return the usage that was there when the period closed; what was taken back before its event came in counts as nothing."""
        with exact():
            in_time = sum(self.usage.values(), _ZERO) - sum((one.quantity for one in self.late), _ZERO)
        return max(in_time, _ZERO)

    def overage(self, in_time: Decimal) -> Decimal:
        """Return the overage with what came late: it adds to it, and what was taken back lowers it to nothing at most."""
        overage = in_time
        with exact():
            for one in self.late:
                overage = max(overage + one.quantity, _ZERO)
        return overage


class PoolUsage:
    """A period's usage that belongs to one pool of the terms, whatever pools it was counted in; made by `deal`."""

    def __init__(self, *, is_additive: bool) -> None:
        self.is_additive = is_additive
        # What had rolled over into the balance that was this pool's then.
        self.rolled: list[Grant] = []
        self._segments: dict[datetime, _Dealt] = {}

    def segment(self, starts_at: datetime) -> _Dealt:
        """Return the pool's part of the segment that starts then."""
        if (found := self._segments.get(starts_at)) is None:
            found = self._segments[starts_at] = _Dealt()
        return found

    @property
    def has_late(self) -> bool:
        """Whether anything came after closing."""
        return any(segment.late for segment in self._segments.values())

    def in_time(self) -> Iterable[tuple[datetime, Decimal]]:
        """Return each segment's usage as it was when the period closed, in time order."""
        return [(starts_at, segment.in_time()) for starts_at, segment in self._in_order()]

    def priced(self, overage: Sequence[Decimal], pool: Pool, *, late: bool = True) -> PricedPool:
        """Price the pool, given each segment's overage when the period closed: with what came late, or as it was then."""
        pairs = zip(self._in_order(), overage, strict=True)
        segments = [_segment(dealt, in_time, pool, late=late) for (_, dealt), in_time in pairs]
        if pool.unit_amount is not None:
            with exact():
                return price_units(pool.charges[0], sum((one.overage for one in segments), _ZERO))
        return price_pool(segments, pool.charges)

    def _in_order(self) -> list[tuple[datetime, _Dealt]]:
        return sorted(self._segments.items())


def deal(starts_at: datetime, balances: Sequence[CountedBalance], matcher: Matcher) -> dict[str, PoolUsage]:
    """
    Deal a meter's usage in a period that starts then to the pools of other terms, by their keys.

    Every pool has a segment at the period's start, also where nothing was used.
    """
    is_additive = all(balance.is_additive for balance in balances)
    dealt = {key: PoolUsage(is_additive=is_additive) for key in matcher.pools.by_key}
    for usage in dealt.values():
        usage.segment(starts_at)
    with exact():
        for balance in balances:
            if balance.pool in dealt:
                dealt[balance.pool].rolled += balance.grants
            for segment in balance.segments:
                _deal_segment(segment, dealt, matcher)
    return dealt


def _deal_segment(segment: CountedSegment, dealt: Mapping[str, PoolUsage], matcher: Matcher) -> None:
    for names, quantity in segment.usage.items():
        to = dealt[matcher.place(names)[0]].segment(segment.starts_at)
        clamped, events = segment.clamped.get(names, _ZERO), segment.events.get(names, 0)
        # A set has one balance, but where a change of versions moved it to another pool.
        if names in to.usage:
            quantity, clamped = to.usage[names] + quantity, to.clamped[names] + clamped
            events += to.events[names]
        to.usage[names], to.clamped[names], to.events[names] = quantity, clamped, events
    for one in segment.late:
        dealt[matcher.place(one.dimensions)[0]].segment(segment.starts_at).late.append(one)


def _segment(dealt: _Dealt, in_time: Decimal, pool: Pool, *, late: bool) -> SegmentUsage:
    version_id = pool.charges[0].version_id if pool.charges else 0
    if late:
        return SegmentUsage(version_id, dealt.usage, dealt.overage(in_time), dealt.events, dealt.clamped)
    usage, events = dict(dealt.usage), dict(dealt.events)
    with exact():
        for one in dealt.late:
            usage[one.dimensions] -= one.quantity
            events[one.dimensions] -= one.events
    return SegmentUsage(version_id, usage, in_time, events, dealt.clamped)
