"""
Measuring: what an event's data counts for a meter, and in which dimension set.

Owns a meter's reading of data: filters, weighted properties, declared dimensions; and the recount of a period. Does not
own how a quantity is written (`quantities`), prices, nor which events are accepted. Source: semantics, "Measuring".
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from metering.core.identity import canonical, canonical_number
from metering.core.quantities import (
    QUANTITY_STRING,
    RefusalReason,
    RefusedValue,
    add_weighted,
    fit,
    read_money,
    read_quantity,
)
from subscriptions.core.money import exact

DimensionSet = tuple[tuple[str, str], ...]
"""The (name, value) pairs of a meter's declared dimensions, sorted by name; a dimension that the event does not have is ""."""

_DIMENSION_LENGTH_MAX = 200
_ZERO = Decimal(0)
_ONE = Decimal(1)


class Aggregation(StrEnum):
    """
    How the events of a period become one quantity.

    Sums and counts are additive: each event adds its own, wherever it lies. The others have one value per dimension set of a pool,
    that of all events of the period, which begins at nothing in each; what the pool used is the sum of its sets' values.
    """

    SUM = "sum"
    COUNT = "count"
    MAX = "max"
    LATEST = "latest"
    UNIQUE_COUNT = "unique_count"

    @property
    def is_additive(self) -> bool:
        """Whether a period's quantity is the sum of its events' quantities."""
        return self is Aggregation.SUM or self is Aggregation.COUNT


# Named for every event; looking a member of an enumeration up costs as much as reading a property.
_COUNT, _UNIQUE_COUNT = Aggregation.COUNT, Aggregation.UNIQUE_COUNT

_DETAILS = {
    RefusalReason.NOT_A_NUMBER: "is not a plain decimal number",
    RefusalReason.NEGATIVE: "is negative; to take usage back, reverse the event that reported it",
    RefusalReason.TOO_LARGE: "has more than 18 digits before the decimal point",
    RefusalReason.TOO_FINE: "has more than 12 decimals; binary floats that were added up look like this, send exact decimals",
    RefusalReason.NOT_SCALAR: "is an object or an array, where one value is needed",
    RefusalReason.TOO_LONG: f"is longer than {_DIMENSION_LENGTH_MAX} characters",
}


@dataclass(frozen=True, slots=True)
class WeightedProperty:
    """
    One summand of a meter's value: the property at a dotted path, times a weight.

    `money` says that the property is an amount, often computed from floats: it is rounded half even to 18 decimals
    where other properties would be refused.
    """

    path: str
    weight: Decimal = _ONE
    money: bool = False

    def __post_init__(self) -> None:
        _path_names(self.path)
        try:
            weight = read_quantity(self.weight)
        except RefusedValue as refused:
            raise ValueError(
                f"a weight has the digits of a quantity, {self.weight} {_DETAILS[refused.reason]}"
            ) from None
        if not weight:
            raise ValueError("a weight is above 0")


@dataclass(frozen=True, slots=True)
class MeterDefinition:
    """
    What a meter counts: events of one type that pass its filters, by the sum of weighted properties.

    `filters` maps a dotted path to the value it must have, or a list of such values; numbers equal their strings, and
    null equals absent. `dimensions` are dotted paths, too. `precision` is the number of decimals to which prorated
    allowances of the meter are rounded.

    Raises ValueError for what cannot be measured: a count of a property or anything else of none, a unique count of
    several, money beside what is no money, a dimension or property named twice.
    """

    code: str
    event_type: str
    aggregation: Aggregation
    _: KW_ONLY
    properties: tuple[WeightedProperty, ...] = ()
    filters: Mapping[str, object] = field(default_factory=dict, hash=False)
    dimensions: tuple[str, ...] = ()
    precision: int = 0
    filter_paths: tuple[tuple[tuple[str, ...], frozenset[str]], ...] = field(init=False, repr=False, compare=False)
    dimension_paths: tuple[tuple[str, tuple[str, ...]], ...] = field(init=False, repr=False, compare=False)
    property_paths: tuple[tuple[WeightedProperty, tuple[str, ...]], ...] = field(init=False, repr=False, compare=False)
    # Whether the measured value is an amount of money.
    is_money: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check()
        accepted = ((_path_names(path), _accepted_texts(value)) for path, value in self.filters.items())
        object.__setattr__(self, "filter_paths", tuple(accepted))
        named = tuple((name, _path_names(name)) for name in sorted(self.dimensions))
        object.__setattr__(self, "dimension_paths", named)
        weighted = tuple((each, _path_names(each.path)) for each in self.properties)
        object.__setattr__(self, "property_paths", weighted)
        object.__setattr__(self, "is_money", any(each.money for each in self.properties))

    def _check(self) -> None:
        if bool(self.properties) == (self.aggregation == Aggregation.COUNT):
            raise ValueError("a count has no value property, every other aggregation has one")
        if self.aggregation == Aggregation.UNIQUE_COUNT and len(self.properties) > 1:
            raise ValueError("a unique count has one value property")
        if len({each.money for each in self.properties}) > 1:
            raise ValueError("money is not added to what is no money")
        for names in (self.dimensions, [each.path for each in self.properties]):
            if len(set(names)) < len(names):
                raise ValueError(f"named twice: {', '.join(names)}")


class Measured(NamedTuple):
    """
    What an event counts: a quantity with at most 18 + 12 digits, 0 or more, and its dimension set.

    For `unique_count` the quantity is 1, and `seen` the canonical text of the value; elsewhere `seen` is None.
    """

    quantity: Decimal
    dimensions: DimensionSet
    seen: str | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """The event matches, but has none of the meter's properties; `path` names the first."""

    path: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The event matches, but the value at `path` is not acceptable."""

    path: str
    reason: RefusalReason

    @property
    def detail(self) -> str:
        """A sentence for whoever sent the event."""
        return f"{self.path} {_DETAILS[self.reason]}"


@dataclass(frozen=True, slots=True)
class NotMatched:
    """The event is of another type, or does not pass the filters."""


Measurement = Measured | Missing | Refused | NotMatched


class Reading(NamedTuple):
    """
    One counted event of a period, for `fold`.

    `seen` is what tells the values of a unique count apart: their canonical text or its digest; elsewhere None.
    """

    occurred_at: datetime
    source: str
    event_id: str
    quantity: Decimal
    seen: str | None = None


def measure(definition: MeterDefinition, data: Mapping[str, object], *, event_type: str | None = None) -> Measurement:
    """
    Read an event's data for one meter.

    `data` is decoded JSON, with Decimal for every fraction; numbers may also be sent as strings of plain decimals.
    `event_type` is compared with the meter's unless the caller, who passes None, has chosen the meter by it. Of several
    weighted properties, missing ones count as 0 if at least one is there; null is the same as missing. Money is rounded
    half even, to 18 decimals where it is read and to the 12 of a quantity after the weighted sum; all else is exact or
    refused.
    """
    if event_type is not None and event_type != definition.event_type:
        return NotMatched()
    for names, accepted in definition.filter_paths:
        value = _find(data, names)
        if isinstance(value, (dict, list)) or canonical(value) not in accepted:
            return NotMatched()
    path = ""
    try:
        dimensions = []
        for path, names in definition.dimension_paths:
            dimensions.append((path, _dimension_value(_find(data, names))))
        if definition.aggregation is _COUNT:
            return Measured(_ONE, tuple(dimensions))
        path = definition.properties[0].path
        if definition.aggregation is _UNIQUE_COUNT:
            seen = _find(data, definition.property_paths[0][1])
            return Missing(path) if seen is None else Measured(_ONE, tuple(dimensions), _seen_text(seen))
    except RefusedValue as refused:
        return Refused(path, refused.reason)
    quantity = _weighted_sum(definition, data)
    return Measured(quantity, tuple(dimensions)) if isinstance(quantity, Decimal) else quantity


SETTLED_SOURCE = "tierbook:authorization"
"""The source of events that a quantity was settled by; nobody else may send them."""


def settled_data(meter: str, quantity: Decimal, dimensions: DimensionSet) -> dict[str, object]:
    """Return the data of an event that says what was used, and has no properties to measure it by."""
    return {"meter": meter, "quantity": canonical_number(quantity), "dimensions": dict(dimensions)}


def measure_settled(definition: MeterDefinition, data: Mapping[str, object]) -> Measurement:
    """Read an event of SETTLED_SOURCE: its quantity is given, and counts for the meter that it names alone."""
    quantity, dimensions = data.get("quantity"), data.get("dimensions")
    if data.get("meter") != definition.code or not isinstance(dimensions, Mapping):
        return NotMatched()
    return Measured(read_quantity(quantity), tuple(sorted(dimensions.items())))


def fold(aggregation: Aggregation, readings: Iterable[Reading]) -> Decimal:
    """
    Count a period again from its events, in any order; 0 for none.

    `latest` is the reading that occurred last, ties by source and id.
    """
    match aggregation:
        case Aggregation.SUM | Aggregation.COUNT:
            with exact():
                return sum((reading.quantity for reading in readings), _ZERO)
        case Aggregation.MAX:
            return max((reading.quantity for reading in readings), default=_ZERO)
        case Aggregation.LATEST:
            last = max(readings, key=lambda reading: reading[:3], default=None)
            return _ZERO if last is None else last.quantity
        case Aggregation.UNIQUE_COUNT:
            return Decimal(len({reading.seen for reading in readings}))


def weighted_properties(value_property: object) -> tuple[WeightedProperty, ...]:
    """
    Read a meter's `value_property`: a dotted path, or a list of {"property", "weight"?, "money"?}; None is none.

    Weights are decimals as strings. Raises ValueError for anything else.

    >>> weighted_properties([{"property": "input_tokens"}, {"property": "output_tokens", "weight": "4"}])[1].weight
    Decimal('4')
    """
    if value_property is None:
        return ()
    if isinstance(value_property, str):
        return (WeightedProperty(value_property),)
    if not isinstance(value_property, list):
        raise ValueError("a value property is a path, or a list of weighted properties")
    return tuple(_weighted_property(document) for document in value_property)


@lru_cache(maxsize=10_000)
def dimension_key(dimensions: DimensionSet) -> str:
    """
    Return the canonical text of a dimension set: a JSON object, compact, sorted by name.

    >>> dimension_key((("direction", "in"), ("model", "opus")))
    '{"direction":"in","model":"opus"}'
    """
    return json.dumps(dict(dimensions), ensure_ascii=False, separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=10_000)
def dimension_set(key: str) -> DimensionSet:
    """Return the dimension set of a key: the inverse of `dimension_key`."""
    return tuple(sorted(json.loads(key).items()))


def _find(data: Mapping[str, object], names: Sequence[str]) -> object:
    """Return the value at a path in an object, None where there is none."""
    if len(names) == 1:  # as most paths have
        return data.get(names[0])
    value: object = data
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _dimension_value(value: object) -> str:
    if isinstance(value, str):
        text = value
    elif value is None:
        return ""
    elif isinstance(value, bool):
        return "true" if value else "false"
    elif isinstance(value, (int, Decimal)):
        text = canonical_number(value)
    else:
        raise RefusedValue(RefusalReason.NOT_SCALAR)
    if len(text) > _DIMENSION_LENGTH_MAX:
        raise RefusedValue(RefusalReason.TOO_LONG)
    return text


def _seen_text(value: object) -> str:
    """Return what tells the values of a unique count apart, with numbers equal to their strings."""
    if isinstance(value, (dict, list)):
        raise RefusedValue(RefusalReason.NOT_SCALAR)
    _dimension_value(value)
    return canonical(value)


def _weighted_sum(definition: MeterDefinition, data: Mapping[str, object]) -> Decimal | Missing | Refused:
    total: Decimal | None = None
    for each, names in definition.property_paths:
        value = _find(data, names)
        if value is None:
            continue
        try:
            quantity = read_money(value) if each.money else read_quantity(value)
        except RefusedValue as refused:
            return Refused(each.path, refused.reason)
        is_alone = total is None and each.weight == _ONE
        total = quantity if is_alone else add_weighted(total or _ZERO, quantity, each.weight)
    if total is None:
        return Missing(definition.properties[0].path)
    try:
        return fit(total, rounded=definition.is_money)
    except RefusedValue as refused:
        return Refused(" + ".join(each.path for each in definition.properties), refused.reason)


def _path_names(path: str) -> tuple[str, ...]:
    names = tuple(path.split("."))
    if not all(names):
        raise ValueError(f"a dotted path has a name between any two dots, not {path!r}")
    return names


def _accepted_texts(value: object) -> frozenset[str]:
    values = value if isinstance(value, list) else [value]
    if any(isinstance(each, (dict, list)) for each in values):
        raise ValueError("a filter compares with single values")
    return frozenset(map(canonical, values))


def _weighted_property(document: object) -> WeightedProperty:
    if not isinstance(document, dict) or not document.keys() <= {"property", "weight", "money"}:
        raise ValueError('a weighted property is {"property", "weight"?, "money"?}')
    path, weight, money = document.get("property"), document.get("weight", "1"), document.get("money", False)
    if not isinstance(path, str) or not isinstance(weight, str) or not isinstance(money, bool):
        raise ValueError("a property is a path, its weight a decimal as a string, money true or false")
    if not QUANTITY_STRING.fullmatch(weight):
        raise ValueError(f"a weight has at most 18 digits and 12 decimals, not {weight}")
    return WeightedProperty(path, Decimal(weight), money)
