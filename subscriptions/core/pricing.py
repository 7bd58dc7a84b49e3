"""
Rating: how much a quantity, or a part of it, costs under a price.

The quote, the estimate of the gate, the booking of overage, the invoice and the backtest all call `rate` or `rate_part`. Amounts are
exact fractions in major currency units; nothing is rounded here but the quantity, where a transform says so. Owns no allowance, no
dimension and no currency: a price sees the units that are left to it, from 0.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

from subscriptions.core.money import precise
from subscriptions.core.price_models import MODELS, Usage, hundredth, priced
from subscriptions.core.prices import (
    RATES_WHOLE_VALUE,
    Band,
    Component,
    ComponentKind,
    Operation,
    Price,
    PriceModel,
    Rated,
    Rounding,
    Transform,
    ZeroUsage,
)

__all__ = [
    "RATES_WHOLE_VALUE",
    "Band",
    "Component",
    "ComponentKind",
    "Operation",
    "Price",
    "PriceModel",
    "Rated",
    "Rounding",
    "Transform",
    "ZeroUsage",
    "clamp_event",
    "minimum_top_up",
    "rate",
    "rate_part",
]

_ZERO = Fraction(0)
_NOTHING = Rated(_ZERO, (), _ZERO)
_ROUNDINGS: Mapping[Rounding, Callable[[Fraction], Fraction]] = {
    Rounding.UP: lambda units: Fraction(ceil(units)),
    Rounding.DOWN: lambda units: Fraction(floor(units)),
    Rounding.HALF_UP: lambda units: Fraction(floor(units + Fraction(1, 2))),
    Rounding.NONE: lambda units: units,
}


def rate(
    price: Price, quantity: Fraction | Decimal | int, *, events: int = 0, clamped: Fraction | Decimal | None = None
) -> Rated:
    """
    Price the whole of a period's billable quantity.

    `quantity` is units of overage, or the period's value for the models in RATES_WHOLE_VALUE. `events` counts the events behind the
    value, for the fixed amounts of `percentage`; `clamped` is the sum of `clamp_event` over them, needed exactly when
    `price.clamps_events`, and read by no other price.

    Raises ValueError for a negative quantity or count, or when `clamped` is needed and missing; TypeError for a float.

    >>> rated = rate(Price(PriceModel.PACKAGE, size=Decimal(1000), amount=Decimal("0.20")), 1_224_567)
    >>> rated.amount, rated.components[0].quantity
    (Fraction(245, 1), Fraction(1225, 1))
    """
    units = _exact(quantity)
    if events < 0:
        raise ValueError(f"the number of events is not negative: {events}")
    components = _components(
        price, units, total=units, events=events, clamped=None if clamped is None else _exact(clamped)
    )
    amount = _sum(components)
    return Rated(amount, components, minimum_top_up(price, amount))


def rate_part(
    price: Price, start: Fraction | Decimal | int, end: Fraction | Decimal | int, *, total: Fraction | Decimal | int
) -> Rated:
    """
    Price the part [start, end) of an axis of `total` units, of which other parts may have other prices.

    With F(u) the amount of the first u units after every option, the part costs F(end) − F(start), and F of nothing is 0: what is
    due at 0 units belongs to the part that begins the axis. So a flat amount, a started package, free units, and the room under a
    maximum spend belong to the part that comes to them first. In `volume`, F takes the price of the band that `total` reaches, and
    that band's flat amount belongs to the part that enters it.

    The parts of any partition of [0, total] sum to rate(price, total).amount, and none is negative. An empty part of an axis that is
    not empty costs nothing; on an empty axis the one part [0, 0) is the whole. `top_up` comes with the part that ends the axis, for
    the whole axis under this price; where parts have different prices, ask `minimum_top_up` with the sum instead.

    Raises ValueError for a model in RATES_WHOLE_VALUE, or unless 0 ≤ start ≤ end ≤ total. Source: semantics, "Changing tier".

    >>> price = Price(PriceModel.PACKAGE, size=Decimal(10), amount=Decimal(15))
    >>> [str(rate_part(price, start, end, total=22).amount) for start, end in [(0, 17), (17, 20), (20, 22)]]
    ['30', '0', '15']
    """
    if price.model in RATES_WHOLE_VALUE:
        raise ValueError(f"a {price.model} price rates the whole value of a period, never a part of it")
    start, end, total = _exact(start), _exact(end), _exact(total)
    if not start <= end <= total:
        raise ValueError(f"[{start}, {end}) is no part of [0, {total}]")
    if start == end and total:
        return _NOTHING
    until_end = _components(price, end, total=total)
    components = _difference(until_end, _components(price, start, total=total)) if start else until_end
    top_up = minimum_top_up(price, _sum(until_end)) if end == total else _ZERO
    return Rated(_sum(components), components, top_up)


def minimum_top_up(price: Price, amount: Fraction) -> Fraction:
    """Return what is missing from `amount`, the amount of the whole period, to the price's minimum spend: 0 or more."""
    if price.amount_min is None:
        return _ZERO
    return max(_ZERO, Fraction(price.amount_min) - amount)


def clamp_event(price: Price, value: Decimal | int) -> Decimal:
    """
    Return one event's amount under a percentage price: rate % of the value plus the fixed amount, within the bounds per event.

    Exact, in major currency units. Free value and free events do not apply: which events are free would depend on their order.
    Raises ValueError for a negative value or a price of another model; TypeError for a float.

    >>> price = Price(PriceModel.PERCENTAGE, rate=Decimal("2.99"), minimum_per_event=Decimal("1.75"))
    >>> clamp_event(price, Decimal(10)), clamp_event(price, Decimal(80))
    (Decimal('1.75'), Decimal('2.392'))
    """
    if price.model != PriceModel.PERCENTAGE or price.rate is None:
        raise ValueError(f"a {price.model} price has no amount per event")
    amount = precise(_exact(value) * Fraction(price.rate) / 100 + Fraction(price.fixed_amount))  # at most 26 decimals
    if price.minimum_per_event is not None:
        amount = max(amount, price.minimum_per_event)
    if price.maximum_per_event is not None:
        amount = min(amount, price.maximum_per_event)
    return amount


def _components(
    price: Price, units: Fraction, *, total: Fraction, events: int = 0, clamped: Fraction | None = None
) -> tuple[Component, ...]:
    """Run the whole pipeline over the first `units` of an axis of `total`, but for the minimum, and explain each step that acted."""
    converted = _transformed(price.transform, units)
    billable, reach = converted, _transformed(price.transform, total)
    components = [priced(ComponentKind.TRANSFORM, converted, None)] if price.transform else []
    if price.free_units:
        free = Fraction(price.free_units)
        components.append(priced(ComponentKind.FREE_UNITS, min(converted, free), None))
        billable, reach = max(_ZERO, converted - free), max(_ZERO, reach - free)
    components += MODELS[price.model](price, Usage(billable, reach=reach, events=events, clamped=clamped))
    if price.percent_discount:
        discount = hundredth(price.percent_discount).copy_negate()
        components.append(priced(ComponentKind.PERCENT_DISCOUNT, _sum(components), discount))
    if price.amount_max is not None:
        excess = max(Fraction(0), _sum(components) - Fraction(price.amount_max))
        components.append(Component(ComponentKind.MAXIMUM, None, Fraction(0), None, None, -excess))
    return tuple(component for component in components if component.quantity or component.total)


def _transformed(transform: Transform | None, units: Fraction) -> Fraction:
    if transform is None:
        return units
    by = Fraction(transform.by)
    return _ROUNDINGS[transform.rounding](units * by if transform.operation == Operation.MULTIPLY else units / by)


def _difference(until_end: tuple[Component, ...], until_start: tuple[Component, ...]) -> tuple[Component, ...]:
    """
    Return what the components up to the end have beyond those up to the start of a part.

    More units never remove a component (volume keeps the band of the whole axis), so those at the end are all there are.
    """
    before = {(component.kind, component.band): component for component in until_start}
    parts = (_beyond(component, before.get((component.kind, component.band))) for component in until_end)
    return tuple(part for part in parts if part.quantity or part.total)


def _beyond(component: Component, before: Component | None) -> Component:
    if before is None:
        return component
    billed_before = component.flat_amount is not None and component.flat_amount == before.flat_amount
    return Component(
        component.kind,
        component.band,
        component.quantity - before.quantity,
        component.unit_amount,
        Decimal(0) if billed_before else component.flat_amount,
        component.total - before.total,
    )


def _exact(quantity: Fraction | Decimal | int) -> Fraction:
    if isinstance(quantity, float):
        raise TypeError("a quantity is a Decimal, a Fraction or an int: a binary float has lost digits already")
    exact = quantity if type(quantity) is Fraction else Fraction(quantity)
    if exact.numerator < 0:
        raise ValueError(f"a quantity is not negative: {quantity}")
    return exact


def _sum(components: list[Component] | tuple[Component, ...]) -> Fraction:
    return sum((component.total for component in components), Fraction(0))
