"""
The JSON form of a price: the one validator for API, admin form and file, and its inverse.

A fault is named by its path in the document ("bands.1.up_to"), a code and a message. The codes: required, unknown_field,
unknown_choice, not_allowed, not_an_object, not_a_list, too_many, not_a_decimal, not_whole, not_positive, negative, too_large,
too_precise, not_ascending, last_band_open, above_maximum.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from decimal import Decimal
from typing import Any

from subscriptions.core.documents import ANY_NUMBER, POSITIVE, Fault, NumberRule, Reading
from subscriptions.core.money import plain
from subscriptions.core.prices import (
    OPTIONAL_FIELDS,
    REQUIRED_FIELDS,
    Band,
    Operation,
    Price,
    PriceModel,
    Rounding,
    Transform,
    ZeroUsage,
)

BANDS_MAX = 100


class PriceError(ValueError):
    """A document is no price. `errors` holds every fault as (path, code, message)."""

    def __init__(self, errors: Iterable[tuple[str, str, str]]) -> None:
        self.errors = [Fault(*error) for error in errors]
        super().__init__(self.errors)

    def __str__(self) -> str:
        return "; ".join(f"{path or 'price'}: {message}" for path, _, message in self.errors)


_NUMBERS: Mapping[str, NumberRule] = {
    "unit_amount": ANY_NUMBER,
    "amount": ANY_NUMBER,
    "size": POSITIVE,
    "rate": ANY_NUMBER,
    "multiplier": ANY_NUMBER,
    "fixed_amount": ANY_NUMBER,
    "free_value": ANY_NUMBER,
    "free_events": NumberRule(whole=True),
    "minimum_per_event": ANY_NUMBER,
    "maximum_per_event": ANY_NUMBER,
    "free_units": ANY_NUMBER,
    "percent_discount": NumberRule(at_most=Decimal(100)),
    "amount_max": ANY_NUMBER,
    "amount_min": ANY_NUMBER,
}
_FIELDS = ("model", "bands", "zero_usage", "transform", *_NUMBERS)


def parse_price(document: object) -> Price:
    """
    Read a price from its JSON form, or name all that is wrong with it.

    Numbers may be Decimal, int or str, with at most 18 integer digits and 12 decimals, and not negative; a float is refused, because
    it has lost digits before it comes here. A null is the same as an absent field, except that the last band's `up_to` must be null
    or absent. Fields that do not belong to the model are refused, so that a price which cannot act is never saved.

    Raises PriceError, and nothing else, whatever the document is; it names every fault, up to 500.

    >>> parse_price({"model": "per_unit", "unit_amount": "0.0002"}).unit_amount
    Decimal('0.0002')
    """
    reading = Reading()
    given = reading.members(document, path="", known=_FIELDS)
    if given is None:
        raise PriceError(reading.faults)
    model = reading.choice(given.get("model"), "model", PriceModel)
    if model is not None:
        _check_fields(given, model, reading)
    values: dict[str, Any] = {
        name: reading.number(given[name], name, rule) for name, rule in _NUMBERS.items() if name in given
    }
    if "zero_usage" in given:
        values["zero_usage"] = reading.choice(given["zero_usage"], "zero_usage", ZeroUsage)
    if "transform" in given:
        values["transform"] = _transform(given["transform"], reading)
    if "bands" in given:
        values["bands"] = _bands(given["bands"], model, reading)
    _check_together(values, reading)
    if reading.faults or model is None:
        raise PriceError(reading.faults)
    if "free_events" in values:
        values["free_events"] = int(values["free_events"])
    return Price(model, **values)


def price_document(price: Price) -> dict[str, Any]:
    """
    Return the JSON form of a price: numbers as plain strings, options at their default left out.

    parse_price(price_document(price)) == price, always.

    >>> price_document(Price(PriceModel.FLAT, amount=Decimal("1E+1")))
    {'model': 'flat', 'amount': '10'}
    """
    written: dict[str, Any] = {"model": price.model.value}
    for field in fields(price):
        value = getattr(price, field.name)
        if field.name == "model" or value == field.default:
            continue
        written[field.name] = _member(value, price.model)
    return written


def _member(value: object, model: PriceModel) -> object:
    match value:
        case tuple():
            return [_band_document(band, model) for band in value]
        case Transform():
            return {"op": str(value.operation), "by": plain(value.by), "round": str(value.rounding)}
        case Decimal():
            return plain(value)
        case ZeroUsage():
            return value.value
    return value  # the number of free events


def _band_document(band: Band, model: PriceModel) -> dict[str, str | None]:
    return {
        "up_to": None if band.up_to is None else plain(band.up_to),
        _band_amount(model): plain(band.unit_amount),
        "flat_amount": plain(band.flat_amount),
    }


def _band_amount(model: PriceModel) -> str:
    return "rate" if model == PriceModel.GRADUATED_PERCENTAGE else "unit_amount"


def _check_fields(given: Mapping[str, Any], model: PriceModel, reading: Reading) -> None:
    """Report what the model needs and the document lacks, and what the document has and the model does not know."""
    for name in REQUIRED_FIELDS[model]:
        if name not in given:
            reading.fault(name, "required", f"is required in a {model} price")
    known = ("model", *REQUIRED_FIELDS[model], *OPTIONAL_FIELDS[model])
    for name in given:
        if name not in known:
            reading.fault(name, "not_allowed", f"does not belong to a {model} price")


def _check_together(values: Mapping[str, Any], reading: Reading) -> None:
    """Report values that are right alone and wrong together."""
    for least, most in (("minimum_per_event", "maximum_per_event"), ("amount_min", "amount_max")):
        floor, ceiling = values.get(least), values.get(most)
        if floor is not None and ceiling is not None and floor > ceiling:
            reading.fault(least, "above_maximum", f"must be at most {most}, {plain(ceiling)}")
    if values.get("minimum_per_event") is not None or values.get("maximum_per_event") is not None:
        for name in ("free_value", "free_events", "transform"):
            if values.get(name):
                message = "does not combine with a minimum or maximum per event: each event is rated by its own value"
                reading.fault(name, "not_allowed", message)


def _transform(value: object, reading: Reading) -> Transform | None:
    given = reading.members(value, path="transform", known=("op", "by", "round"))
    if given is None:
        return None
    operation = reading.choice(given.get("op"), "transform.op", Operation)
    by = reading.number(given.get("by"), "transform.by", POSITIVE)
    rounding = reading.choice(given.get("round", Rounding.NONE), "transform.round", Rounding)
    return Transform(operation, by, rounding) if operation and by and rounding else None


def _bands(value: object, model: PriceModel | None, reading: Reading) -> tuple[Band, ...]:
    if model is None or "bands" not in REQUIRED_FIELDS[model]:
        return ()  # reported already, and which fields a band has depends on the model
    if not isinstance(value, list | tuple):
        reading.fault("bands", "not_a_list", "must be a list of bands")
        return ()
    if not value:
        reading.fault("bands", "required", "must hold at least one band")
    if len(value) > BANDS_MAX:
        reading.fault("bands", "too_many", f"must hold at most {BANDS_MAX} bands")
        return ()
    bands = []
    lower: Decimal | None = None
    for index, item in enumerate(value):
        path = f"bands.{index}"
        given = reading.members(item, path=path, known=("up_to", _band_amount(model), "flat_amount"))
        if given is None:
            continue
        up_to = _up_to(given.get("up_to"), f"{path}.up_to", lower, last=index == len(value) - 1, reading=reading)
        lower = up_to or lower
        amount = reading.number(given.get(_band_amount(model)), f"{path}.{_band_amount(model)}", ANY_NUMBER)
        flat_amount = reading.number(given.get("flat_amount", 0), f"{path}.flat_amount", ANY_NUMBER)
        if amount is not None and flat_amount is not None:
            bands.append(Band(up_to, amount, flat_amount))
    return tuple(bands)


def _up_to(value: object, path: str, lower: Decimal | None, *, last: bool, reading: Reading) -> Decimal | None:
    if value is None:
        if not last:
            reading.fault(path, "last_band_open", "is required: only the last band is open")
        return None
    if last:
        reading.fault(path, "last_band_open", "must be null: the last band is open")
    up_to = reading.number(value, path, POSITIVE)
    if up_to is not None and lower is not None and up_to <= lower and not last:
        reading.fault(path, "not_ascending", f"must be greater than {plain(lower)}, the limit of the band before")
    return up_to
