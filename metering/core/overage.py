"""
Pricing a pool's overage: spreading it over dimension sets and versions, and what is still to be booked.

Owns which charge prices which part of the period's overage. Does not own what a part costs
(`subscriptions.core.pricing`), nor which usage is overage (`burndown`). Quantities and amounts are exact fractions,
amounts in major currency units. Source: semantics, "Rating", "Overage", and "Changing tier in mid-period".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate

from metering.core.measuring import DimensionSet
from subscriptions.core.money import exact, precise
from subscriptions.core.pricing import (
    RATES_WHOLE_VALUE,
    Component,
    ComponentKind,
    Price,
    Rated,
    minimum_top_up,
    rate,
    rate_part,
)

ChargeId = int | str
VersionId = int | str
Shares = Mapping[DimensionSet, Fraction]

_ZERO = Fraction(0)
_NOTHING = Rated(_ZERO, (), _ZERO)


@dataclass(frozen=True, slots=True)
class ChargeTerms:
    """
    One charge of a version: which dimension sets it prices, and how.

    `dimensions` are the values that a set must have; none matches every set.
    """

    charge_id: ChargeId
    version_id: VersionId
    dimensions: Mapping[str, str] = field(hash=False)
    price: Price


@dataclass(frozen=True, slots=True)
class SegmentUsage:
    """
    What a pool used in one segment, by dimension set, and how much of it is overage.

    `events` counts the events, and `clamped` sums their amounts clamped one by one, for charges that need them
    (percentages); other pools leave both out.
    """

    version_id: VersionId
    usage: Mapping[DimensionSet, Decimal]
    overage: Decimal
    events: Mapping[DimensionSet, int] = field(default_factory=dict, hash=False)
    clamped: Mapping[DimensionSet, Decimal] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class PricedPart:
    """
    What the part [start, end) of a charge's axis costs.

    The axis counts overage in time order, for a charge that rates the whole value usage. `top_up` is what the minimum
    spend of the last version adds, on the last bill of the period only; it is not in `amount`.
    """

    charge_id: ChargeId
    version_id: VersionId
    start: Fraction
    end: Fraction
    amount: Fraction
    components: tuple[Component, ...]
    top_up: Fraction

    @property
    def quantity(self) -> Fraction:
        """The units that the part prices."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Owed:
    """What a charge of a version has come to in a period so far, over all its parts."""

    quantity: Fraction
    amount: Fraction


@dataclass(frozen=True, slots=True)
class PricedPool:
    """
    The price of a pool's period. The parts are in time order.

    A version that was left and came back has two parts for each charge. `unpriced` is the overage of sets that no
    charge of their version matches.
    """

    parts: tuple[PricedPart, ...]
    unpriced: Shares

    @property
    def amount(self) -> Fraction:
        """The sum of the parts, without top-ups."""
        return sum((part.amount for part in self.parts), Fraction(0))

    def owed(self) -> dict[tuple[ChargeId, VersionId], Owed]:
        """Return what is owed by charge and version, which is how overage is booked; also where it is nothing."""
        owed: dict[tuple[ChargeId, VersionId], Owed] = {}
        for part in self.parts:
            key = part.charge_id, part.version_id
            before = owed.get(key)
            owed[key] = (
                Owed(before.quantity + part.quantity, before.amount + part.amount)
                if before
                else Owed(part.quantity, part.amount)
            )
        return owed


@dataclass(frozen=True, slots=True)
class Booked:
    """The sums of what has been booked for a charge and version in a period, as stored."""

    quantity: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class OverageDelta:
    """What is to be booked next; negative where usage was taken back or became cheaper. Falsy when there is nothing to book."""

    quantity: Decimal
    amount: Decimal

    def __bool__(self) -> bool:
        return bool(self.quantity or self.amount)


def overage_delta(owed: Owed, *, booked: Booked) -> OverageDelta:
    """
    Return what is owed so far and not yet booked, unrounded.

    Fractions that no decimal holds are stored to 18 places; since it is always the whole that is so cut, never a delta,
    booking twice books nothing, and booking in steps comes to the same.
    """
    quantity, amount = precise(owed.quantity), precise(owed.amount)
    with exact():
        return OverageDelta(quantity - booked.quantity, amount - booked.amount)


def match(charges: Iterable[ChargeTerms], dimension_set: DimensionSet) -> ChargeTerms | None:
    """
    Return the charge of one version that prices a dimension set: the most specific of those that match, None if there
    is none.

    Raises ValueError when two are equally specific: a version like that is not published.
    """
    pairs = set(dimension_set)
    best = rival = None
    for charge in charges:
        if not pairs.issuperset(charge.dimensions.items()):
            continue
        if best is None or len(charge.dimensions) > len(best.dimensions):
            best, rival = charge, None
        elif len(charge.dimensions) == len(best.dimensions):
            rival = charge
    if best is not None and rival is not None:
        raise ValueError(f"charges {best.charge_id} and {rival.charge_id} match {dimension_set} equally well")
    return best


def spread(overage: Decimal, usage: Mapping[DimensionSet, Decimal]) -> dict[DimensionSet, Fraction]:
    """
    Spread one segment's overage over its dimension sets, in proportion to their usage: exactly, so that the shares sum
    to it.

    Sets without usage are left out. Raises ValueError unless 0 ≤ overage ≤ usage.
    """
    with exact():
        used = sum(usage.values(), Decimal(0))
    if not 0 <= overage <= used:
        raise ValueError(f"an overage of {overage} is no part of a usage of {used}")
    if not overage:
        return {each: _ZERO for each, quantity in usage.items() if quantity}
    if overage == used:
        return {each: Fraction(quantity) for each, quantity in usage.items() if quantity}
    share = Fraction(overage) / Fraction(used)
    return {each: Fraction(quantity) * share for each, quantity in usage.items() if quantity}


def price_pool(segments: Sequence[SegmentUsage], charges: Sequence[ChargeTerms]) -> PricedPool:
    """
    Price the overage of a pool's period, so far or at its end.

    `segments` are all segments of the period in time order, also those without usage; `charges` those of the pool in
    every version that the segments name. Each version's overage is the part of every charge's axis that begins after
    the overage of earlier segments in the sets that the charge would have priced; so neither a change between equal
    versions nor a cycle of changes alters what is owed. Charges of the models that rate a whole value see usage in the
    place of overage, and are priced along an axis in the same way.

    What a price asks for 0 units is owed once: in the first version, or by the part that begins the axis.

    Golden: 10,000 included, 6,000 input at 0.0002 and 6,000 output at 0.001 → 1,000 × 0.0002 + 1,000 × 0.001 = 1.20.
    """
    runs = _runs(segments)
    by_version: dict[VersionId, list[ChargeTerms]] = {}
    for charge in charges:
        by_version.setdefault(charge.version_id, []).append(charge)
    axes = _axes(runs, by_version)
    parts: list[PricedPart] = []
    spent: dict[tuple[tuple[str, str], ...], Fraction] = {}
    for number, (version_id, _) in enumerate(runs):
        for charge in by_version.get(version_id, []):
            lower, upper, rated = _rated(charge, axes[charge.version_id, charge.charge_id], number)
            # A minimum spend looks at what the same dimensions have cost in the whole period, under whichever version.
            dimensions = tuple(sorted(charge.dimensions.items()))
            spent[dimensions] = spent.get(dimensions, _ZERO) + rated.amount
            top_up = minimum_top_up(charge.price, spent[dimensions]) if number == len(runs) - 1 else _ZERO
            parts.append(
                PricedPart(charge.charge_id, version_id, lower, upper, rated.amount, rated.components, top_up=top_up)
            )
    return PricedPool(tuple(parts), _unpriced(runs, by_version))


def price_units(charge: ChargeTerms, overage: Decimal) -> PricedPool:
    """
    Price a period's whole overage by a price that is its unit amount alone (`Pool.unit_amount`), under one version.

    The same answer as `price_pool` gives, without spreading what one charge prices alike. Raises ValueError for less than nothing.
    """
    if overage < 0:
        raise ValueError(f"an overage of {overage} is no part of a usage")
    assert charge.price.unit_amount is not None  # the pool has one
    units = Fraction(overage)
    amount = units * Fraction(charge.price.unit_amount)
    component = Component(ComponentKind.UNITS, None, units, charge.price.unit_amount, None, amount)
    top_up = minimum_top_up(charge.price, amount)
    part = PricedPart(charge.charge_id, charge.version_id, _ZERO, units, amount, (component,) if units else (), top_up)
    return PricedPool((part,), {})


@dataclass(frozen=True, slots=True)
class _Reach:
    """How much of each kind there is in a stretch of time, or up to an instant."""

    overage: Fraction = _ZERO
    value: Fraction = _ZERO
    clamped: Fraction = _ZERO
    events: int = 0

    def __add__(self, other: "_Reach") -> "_Reach":
        if self is _NOWHERE:
            return other
        return _Reach(
            self.overage + other.overage,
            self.value + other.value,
            self.clamped + other.clamped,
            self.events + other.events,
        )


_NOWHERE = _Reach()

_Run = tuple[VersionId, dict[DimensionSet, _Reach]]
"""Successive segments of one version, as one."""


def _runs(segments: Iterable[SegmentUsage]) -> list[_Run]:
    runs: list[_Run] = []
    for segment in segments:
        if not runs or runs[-1][0] != segment.version_id:
            runs.append((segment.version_id, {}))
        reaches = runs[-1][1]
        overage = spread(segment.overage, segment.usage)
        for each in {**segment.usage, **segment.events, **segment.clamped}:
            clamped = segment.clamped.get(each)
            reaches[each] = reaches.get(each, _NOWHERE) + _Reach(
                overage.get(each, _ZERO),
                Fraction(segment.usage.get(each, 0)),
                Fraction(clamped) if clamped else _ZERO,
                segment.events.get(each, 0),
            )
    return runs


def _axes(
    runs: Sequence[_Run], by_version: Mapping[VersionId, Sequence[ChargeTerms]]
) -> dict[tuple[VersionId, ChargeId], list[_Reach]]:
    """
    Return how far each charge's axis reaches where each run starts, and at the end.

    A charge's axis counts, in every run, the sets that it would price if its own version were in force.
    """
    axes = {}
    for version_id, charges in by_version.items():
        lengths = {charge.charge_id: [_NOWHERE] * len(runs) for charge in charges}
        for number, (_, reaches) in enumerate(runs):
            for dimension_set, reach in reaches.items():
                if charge := match(charges, dimension_set):
                    lengths[charge.charge_id][number] += reach
        for charge_id, in_runs in lengths.items():
            axes[version_id, charge_id] = list(accumulate(in_runs, initial=_NOWHERE))
    return axes


def _rated(charge: ChargeTerms, axis: Sequence[_Reach], number: int) -> tuple[Fraction, Fraction, Rated]:
    """Return the part of a charge's axis that a run is, and what it costs."""
    start, end, total = axis[number], axis[number + 1], axis[-1]
    if charge.price.model in RATES_WHOLE_VALUE:
        lower, upper = start.value, end.value
        is_used = total != _Reach()
        rated = _rated_value(charge.price, start, end) if end != start or not (is_used or number) else _NOTHING
    else:
        lower, upper = start.overage, end.overage
        # Where nothing is used, every run is the whole of an empty axis: the first one alone owes what 0 units cost.
        rated = rate_part(charge.price, lower, upper, total=total.overage) if total.overage or not number else _NOTHING
    return lower, upper, rated


def _rated_value(price: Price, start: _Reach, end: _Reach) -> Rated:
    """Price what lies between two points of a period's value as the difference of the amounts up to each."""
    until_end = _rated_until(price, end)
    if start == _Reach():
        return until_end
    before = {(each.kind, each.band): each for each in _rated_until(price, start).components}
    parts = (_beyond(each, before.get((each.kind, each.band))) for each in until_end.components)
    components = tuple(part for part in parts if part.quantity or part.total)
    return Rated(sum((part.total for part in components), Fraction(0)), components, Fraction(0))


def _rated_until(price: Price, end: _Reach) -> Rated:
    return rate(price, end.value, events=end.events, clamped=end.clamped if price.clamps_events else None)


def _beyond(component: Component, before: Component | None) -> Component:
    """Return what a component has beyond an earlier state of itself; a flat amount was billed with that."""
    if before is None:
        return component
    return replace(
        component,
        quantity=component.quantity - before.quantity,
        flat_amount=None if component.flat_amount is None else Decimal(0),
        total=component.total - before.total,
    )


def _unpriced(
    runs: Iterable[_Run], by_version: Mapping[VersionId, Sequence[ChargeTerms]]
) -> dict[DimensionSet, Fraction]:
    unpriced: dict[DimensionSet, Fraction] = {}
    for version_id, reaches in runs:
        for dimension_set, reach in reaches.items():
            if reach.overage and match(by_version.get(version_id, []), dimension_set) is None:
                unpriced[dimension_set] = unpriced.get(dimension_set, Fraction(0)) + reach.overage
    return unpriced
