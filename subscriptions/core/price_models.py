"""
The eight price models, one strategy each, and the table that finds them.

A strategy turns usage that is already transformed and freed of free units into components. It knows nothing of discounts, caps or
parts of an axis: `pricing` does those alike for all.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil

from subscriptions.core.prices import Component, ComponentKind, Price, PriceModel, ZeroUsage


@dataclass(frozen=True, slots=True)
class Usage:
    """
    What a strategy prices.

    `quantity` is the billable units (or value); `reach` the billable units of the whole axis, which choose the band in `volume`;
    `clamped` the sum of per-event amounts, for a price that clamps them.
    """

    quantity: Fraction
    reach: Fraction
    events: int = 0
    clamped: Fraction | None = None


def hundredth(percent: Decimal) -> Decimal:
    """Return a percentage as a factor, exactly, whatever the current decimal context."""
    return Decimal(f"{percent:f}E-2")


def priced(
    kind: ComponentKind,
    quantity: Fraction,
    unit_amount: Decimal | None,
    *,
    band: int | None = None,
    flat_amount: Decimal | None = None,
) -> Component:
    """Return the component whose total is quantity × unit_amount + flat_amount; no unit amount means free of charge."""
    total = quantity * Fraction(unit_amount) if unit_amount else Fraction(0)
    if flat_amount:
        total += Fraction(flat_amount)
    return Component(kind, band, quantity, unit_amount, flat_amount, total)


def _flat(price: Price, usage: Usage) -> Iterator[Component]:
    """The amount, however much was used: 0 units cost it, too."""
    yield priced(ComponentKind.FLAT, usage.quantity, None, flat_amount=price.amount)


def _per_unit(price: Price, usage: Usage) -> Iterator[Component]:
    yield priced(ComponentKind.UNITS, usage.quantity, price.unit_amount)


def _package(price: Price, usage: Usage) -> Iterator[Component]:
    """A started package is a whole package."""
    assert price.size is not None  # a Price refuses to be made without
    packages = Fraction(ceil(usage.quantity / Fraction(price.size)))
    yield priced(ComponentKind.PACKAGES, packages, price.amount)


def _graduated(price: Price, usage: Usage) -> Iterator[Component]:
    """Each unit at its own band's price, plus the flat amount of each band that is entered."""
    lower = Fraction(0)
    for number, band in enumerate(price.bands, start=1):
        if usage.quantity <= lower and not _always_entered(price, number):
            return
        upper = usage.quantity if band.up_to is None else min(usage.quantity, Fraction(band.up_to))
        unit_amount = hundredth(band.unit_amount) if price.model in _RATES_IN_PERCENT else band.unit_amount
        yield priced(ComponentKind.BAND, upper - lower, unit_amount, band=number, flat_amount=band.flat_amount)
        lower = upper


def _volume(price: Price, usage: Usage) -> Iterator[Component]:
    """All units at the price of the band that the whole axis reaches; its flat amount once the quantity enters that band."""
    lower = Fraction(0)
    for number, band in enumerate(price.bands, start=1):
        if band.up_to is None or usage.reach <= band.up_to:
            entered = usage.quantity > lower or _always_entered(price, number)
            flat_amount = band.flat_amount if entered else Decimal(0)
            yield priced(ComponentKind.BAND, usage.quantity, band.unit_amount, band=number, flat_amount=flat_amount)
            return
        lower = Fraction(band.up_to)


def _percentage(price: Price, usage: Usage) -> Iterator[Component]:
    """A share of the value and a fixed amount per event; or the clamped amounts of the events, and then nothing is free."""
    if price.clamps_events:
        yield _clamped_events(usage)
        return
    assert price.rate is not None  # a Price refuses to be made without
    free_value = min(usage.quantity, Fraction(price.free_value))
    free_events = min(usage.events, price.free_events)
    yield priced(ComponentKind.FREE_VALUE, free_value, None)
    yield priced(ComponentKind.VALUE, usage.quantity - free_value, hundredth(price.rate))
    if price.fixed_amount:
        yield priced(ComponentKind.FREE_EVENTS, Fraction(free_events), None)
        yield priced(ComponentKind.EVENTS, Fraction(usage.events - free_events), price.fixed_amount)


def _clamped_events(usage: Usage) -> Component:
    if usage.clamped is None and (usage.quantity or usage.events):
        raise ValueError(
            "a price with a minimum or maximum per event is rated on the sum of clamp_event: pass `clamped`"
        )
    return Component(
        ComponentKind.CLAMPED_EVENTS, None, Fraction(usage.events), None, None, usage.clamped or Fraction(0)
    )


def _dynamic(price: Price, usage: Usage) -> Iterator[Component]:
    yield priced(ComponentKind.VALUE, usage.quantity, price.multiplier)


def _always_entered(price: Price, number: int) -> bool:
    return number == 1 and price.zero_usage == ZeroUsage.FIRST_TIER_FLAT


_RATES_IN_PERCENT = frozenset({PriceModel.GRADUATED_PERCENTAGE})

MODELS: Mapping[PriceModel, Callable[[Price, Usage], Iterator[Component]]] = {
    PriceModel.FLAT: _flat,
    PriceModel.PER_UNIT: _per_unit,
    PriceModel.PACKAGE: _package,
    PriceModel.GRADUATED: _graduated,
    PriceModel.VOLUME: _volume,
    PriceModel.PERCENTAGE: _percentage,
    PriceModel.GRADUATED_PERCENTAGE: _graduated,
    PriceModel.DYNAMIC: _dynamic,
}
"""The strategy of each model. A new model is a function here, a row here, and a row in each table of `prices`."""
