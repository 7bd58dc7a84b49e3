"""
What a meter may count: its aggregation, value property, filters and dimensions.

A fault is named by its path ("value_property.1.weight"), a code and a message, as in `version_documents`.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing_site.http.problems import Invalid
from subscriptions.core.documents import ANY_NUMBER, POSITIVE, Reading, join
from subscriptions.core.money import plain
from subscriptions.services.reading import INTEGER_LIMIT, listed, shortened

PROPERTIES_MAX = 20
FILTERS_MAX = 20
FILTER_VALUES_MAX = 100
DIMENSIONS_MAX = 10
PATH_LENGTH_MAX = 200
TEXT_MAX = 200
PRECISION_MAX = 12
WINDOW_DAYS_MAX = 366


class Aggregation(StrEnum):
    """How the events of a period become one quantity."""

    SUM = "sum"
    COUNT = "count"
    MAX = "max"
    LATEST = "latest"
    UNIQUE_COUNT = "unique_count"


class InvalidMeter(Invalid):
    """The document is no meter; `errors` names every fault."""


def read_counting(
    *, aggregation: object, value_property: object, filters: object, dimensions: object
) -> dict[str, Any]:
    """
    Read what decides a meter's count, and return it in its canonical form: weights as plain strings, nothing null.

    `sum`, `max` and `latest` need a value property (a dotted path, or a list of {"property", "weight"?, "money"?}), `unique_count`
    needs a path, `count` has none. Raises InvalidMeter (422) with every fault.
    """
    reading = Reading()
    chosen = reading.choice(aggregation, "aggregation", Aggregation)
    counting = {
        "aggregation": str(chosen),
        "value_property": _value_property(value_property, chosen, reading),
        "filters": _filters({} if filters is None else filters, reading),
        "dimensions": _dimensions([] if dimensions is None else dimensions, reading),
    }
    if reading.faults:
        raise InvalidMeter("The meter has values that are not allowed.", errors=reading.faults)
    return counting


def _value_property(value: object, aggregation: Aggregation | None, reading: Reading) -> object:
    path = "value_property"
    if aggregation is Aggregation.COUNT:
        if value is not None:
            reading.fault(path, "not_allowed", "does not belong to a count, which counts events")
        return None
    if value is None:
        reading.fault(path, "required", "is required: a dotted path, or a list of weighted properties")
        return None
    if isinstance(value, str) or aggregation is Aggregation.UNIQUE_COUNT:
        return _dotted(value, path, reading)
    weighted = [
        _weighted(document, f"{path}.{index}", reading)
        for index, document in enumerate(listed(value, path, reading, at_most=PROPERTIES_MAX))
    ]
    if value == []:
        reading.fault(path, "required", "must name at least one property")
    _refuse_repeats([each["property"] for each in weighted], path, reading)
    if len({each.get("money", False) for each in weighted}) > 1:
        reading.fault(path, "money_and_units", "must not add money to what is no money")
    return weighted


def _weighted(document: object, path: str, reading: Reading) -> dict[str, Any]:
    given = reading.members(document, path=path, known=("property", "weight", "money")) or {}
    weighted: dict[str, Any] = {"property": _dotted(given.get("property"), f"{path}.property", reading)}
    if "weight" in given:
        weight = reading.number(given["weight"], f"{path}.weight", POSITIVE)
        weighted["weight"] = plain(weight or Decimal(1))
    if "money" in given:
        if not isinstance(given["money"], bool):
            reading.fault(f"{path}.money", "not_true_or_false", "must be true or false")
        weighted["money"] = given["money"] is True
    return weighted


def _filters(value: object, reading: Reading) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        reading.fault("filters", "not_an_object", 'must be an object such as {"region": ["eu", "us"]}')
        return {}
    if len(value) > FILTERS_MAX:
        reading.fault("filters", "too_many", f"must have at most {FILTERS_MAX} members")
        return {}
    filters: dict[str, Any] = {}
    for name, accepted in value.items():
        path = join("filters", shortened(name))
        _dotted(name, path, reading)
        if isinstance(accepted, list | tuple):
            entries = listed(accepted, path, reading, at_most=FILTER_VALUES_MAX)
            filters[name] = [_scalar(each, f"{path}.{index}", reading) for index, each in enumerate(entries)]
            if not accepted:
                reading.fault(path, "required", "must accept at least one value")
        else:
            filters[name] = _scalar(accepted, path, reading)
    return filters


def _scalar(value: object, path: str, reading: Reading) -> object:
    """Read one value to compare with. A fraction is kept as its text, which a filter takes for the same number."""
    match value:
        case None | bool():
            return value
        case int() if abs(value) < INTEGER_LIMIT:
            return value
        case str() if len(value) <= TEXT_MAX:
            return value
        case Decimal():
            number = reading.number(value.copy_abs(), path, ANY_NUMBER)
            return None if number is None else ("-" if value < 0 else "") + plain(number)
    reading.fault(
        path, "not_a_value", f"must be a text of at most {TEXT_MAX} characters, a number, true, false or null"
    )
    return None


def _dimensions(value: object, reading: Reading) -> list[str]:
    entries = listed(value, "dimensions", reading, at_most=DIMENSIONS_MAX)
    names = [_dotted(name, f"dimensions.{index}", reading) for index, name in enumerate(entries)]
    _refuse_repeats(names, "dimensions", reading)
    return names


def _dotted(value: object, path: str, reading: Reading) -> str:
    """Read a path into an event's data: names with dots between them."""
    if not isinstance(value, str) or not 1 <= len(value) <= PATH_LENGTH_MAX or not all(value.split(".")):
        message = f"must be a dotted path such as usage.total_tokens, of at most {PATH_LENGTH_MAX} characters"
        reading.fault(path, "not_a_path", message)
        return ""
    return value


def _refuse_repeats(names: list[str], path: str, reading: Reading) -> None:
    for index, name in enumerate(names):
        if name and name in names[:index]:
            reading.fault(f"{path}.{index}", "duplicate", f"names {name} again")
