"""A price in words, term by term, and the components of a rated amount as people read them."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from subscriptions.core import words
from subscriptions.core.prices import (
    RATES_WHOLE_VALUE,
    ComponentKind,
    Operation,
    Price,
    PriceModel,
    Rounding,
    Transform,
    ZeroUsage,
)

_ROUNDINGS = {
    Rounding.UP: ", rounded up",
    Rounding.DOWN: ", rounded down",
    Rounding.HALF_UP: ", rounded to the nearest",
    Rounding.NONE: "",
}
# What the units are called that a transform has made.
_CONVERTED = "billed unit"


def price_terms(price: Price, name: str, unit: str, currency: str) -> Iterator[tuple[str, str]]:
    """
    Yield a price's terms as pairs of a label and what it says. `name` is what is priced, `unit` the meter's.

    >>> [term] = price_terms(Price(PriceModel.PER_UNIT, unit_amount=Decimal("0.0002")), "tokens", "token", "USD")
    >>> term
    ('Overage of tokens', '$0.0002 per token')
    """
    of_name = f"{'Price' if price.model in RATES_WHOLE_VALUE else 'Overage'} of {name}"
    if price.transform:
        yield f"{of_name} is counted", _transform(price.transform)
        unit = _CONVERTED
    yield of_name, _model(price, unit, currency)
    yield from _bands(price, of_name, unit, currency)
    yield from _options(price, of_name, unit, currency)


def _model(price: Price, unit: str, currency: str) -> str:
    match price.model:
        case PriceModel.FLAT:
            return f"{words.money(price.amount or 0, currency)} per period, whatever is used"
        case PriceModel.PER_UNIT:
            return f"{words.money(price.unit_amount or 0, currency)} per {words.one(unit)}"
        case PriceModel.PACKAGE:
            size = words.units(price.size or 0, unit)
            return f"{words.money(price.amount or 0, currency)} per package of {size}, a started one in full"
        case PriceModel.GRADUATED:
            return f"in bands: each {words.one(unit)} at the price of its own band"
        case PriceModel.VOLUME:
            return f"in bands: all {words.many(unit)} at the price of the band that the total reaches"
        case PriceModel.GRADUATED_PERCENTAGE:
            return "in bands: each part of the value at the rate of its own band"
        case PriceModel.PERCENTAGE:
            fixed = f" and {words.money(price.fixed_amount, currency)} per event" if price.fixed_amount else ""
            return f"{words.percent(price.rate or 0)} of the value{fixed}"
        case PriceModel.DYNAMIC:
            return f"the cost that comes with the events, times {words.quantity(price.multiplier or 0)}"


def _bands(price: Price, of_name: str, unit: str, currency: str) -> Iterator[tuple[str, str]]:
    is_rate = price.model == PriceModel.GRADUATED_PERCENTAGE
    lower = Decimal(0)
    for band in price.bands:
        amount = (
            f"{words.percent(band.unit_amount)} of the value"
            if is_rate
            else f"{words.money(band.unit_amount, currency)} per {words.one(unit)}"
        )
        entry = f", and {words.money(band.flat_amount, currency)} once" if band.flat_amount else ""
        yield f"{of_name}, {_stretch(lower, band.up_to, unit, currency, is_value=is_rate)}", amount + entry
        lower = band.up_to or lower


def _stretch(lower: Decimal, upper: Decimal | None, unit: str, currency: str, *, is_value: bool) -> str:
    """Write from where to where a band goes."""

    def bound(number: Decimal) -> str:
        return words.money(number, currency) if is_value else words.units(number, unit)

    if upper is None:
        return f"beyond {bound(lower)}" if lower else "any amount"
    if not lower:
        return f"up to {bound(upper)}"
    return f"{words.money(lower, currency) if is_value else words.quantity(lower)} to {bound(upper)}"


def _options(price: Price, of_name: str, unit: str, currency: str) -> Iterator[tuple[str, str]]:
    amounts: Mapping[str, Decimal | None] = {
        "at least, per event": price.minimum_per_event,
        "at most, per event": price.maximum_per_event,
        "free value": price.free_value or None,
    }
    for label, amount in amounts.items():
        if amount is not None:
            yield f"{of_name}, {label}", words.money(amount, currency)
    if price.free_events:
        yield f"{of_name}, free of the amount per event", words.units(Decimal(price.free_events), "event")
    if price.zero_usage == ZeroUsage.FIRST_TIER_FLAT:
        yield f"{of_name}, without usage", "the amount of the first band that is billed once"
    if price.free_units:
        yield f"{of_name}, free", words.units(price.free_units, unit)
    if price.percent_discount:
        yield f"{of_name}, discount", words.percent(price.percent_discount)
    if price.amount_max is not None:
        yield f"{of_name}, maximum spend", words.money(price.amount_max, currency)
    if price.amount_min is not None:
        yield f"{of_name}, minimum spend", words.money(price.amount_min, currency)


def _transform(transform: Transform) -> str:
    verb = "multiplied" if transform.operation == Operation.MULTIPLY else "divided"
    return f"{verb} by {words.quantity(transform.by)}{_ROUNDINGS[transform.rounding]}"


def component_words(component: Mapping[str, Any], unit: str, currency: str, *, is_value: bool = False) -> str:
    """
    Write how a component of a rated amount (its document) was reached; its total stands apart. `is_value`: what is priced is money.

    >>> component = {"kind": "band", "band": 2, "quantity": "990000", "unit_amount": "0.0002", "flat_amount": "0", "total": "198"}
    >>> component_words(component, "token", "USD")
    'Band 2: 990,000 tokens × $0.0002'
    """
    number = Decimal(str(component["quantity"]))
    factor = Decimal(str(component["unit_amount"] or 0))
    counted = words.money(number, currency) if is_value else words.units(words.rounded(number, places=6), unit)
    price = words.quantity(factor) if is_value else words.money(factor, currency)
    match component["kind"]:
        case ComponentKind.TRANSFORM:
            return f"Counted as {words.units(number, _CONVERTED)}"
        case ComponentKind.FREE_UNITS:
            return f"{counted} free"
        case ComponentKind.FLAT:
            return "Flat amount"
        case ComponentKind.UNITS | ComponentKind.VALUE:
            return f"{counted} × {price}"
        case ComponentKind.PACKAGES:
            return f"{words.units(number, 'package')} × {price}"
        case ComponentKind.BAND:
            return f"Band {component['band']}: {counted} × {price}{_entry(component, currency)}"
        case ComponentKind.FREE_VALUE:
            return f"{counted} of the value free"
        case ComponentKind.EVENTS:
            return f"{words.units(number, 'event')} × {words.money(factor, currency)}"
        case ComponentKind.FREE_EVENTS:
            return f"{words.units(number, 'event')} free"
        case ComponentKind.CLAMPED_EVENTS:
            return f"{words.units(number, 'event')}, each within its bounds"
        case ComponentKind.PERCENT_DISCOUNT:
            return "Discount"
        case ComponentKind.MAXIMUM:
            return "Beyond the maximum spend"
    return str(component["kind"]).replace("_", " ").capitalize()


def _entry(component: Mapping[str, Any], currency: str) -> str:
    flat = Decimal(str(component["flat_amount"] or 0))
    return f" + {words.money(flat, currency)} once" if flat else ""
