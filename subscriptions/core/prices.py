"""
What a price is: its model, bands, options, and the components that explain a rated amount.

Owns the types and the table of which field belongs to which model. Computes nothing: `pricing` rates, `price_models` holds one
strategy per model, `price_documents` reads and writes the JSON form.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from subscriptions.core.money import plain, precise


class PriceModel(StrEnum):
    """How units become money (semantics, "Rating")."""

    FLAT = "flat"
    PER_UNIT = "per_unit"
    PACKAGE = "package"
    GRADUATED = "graduated"
    VOLUME = "volume"
    PERCENTAGE = "percentage"
    GRADUATED_PERCENTAGE = "graduated_percentage"
    DYNAMIC = "dynamic"


RATES_WHOLE_VALUE = frozenset({PriceModel.PERCENTAGE, PriceModel.GRADUATED_PERCENTAGE, PriceModel.DYNAMIC})
"""Models that rate the whole period's monetary value: nothing is included, no grant applies, no part of an axis has a price."""


class ZeroUsage(StrEnum):
    """What 0 units cost in a price with bands: nothing, or the flat amount of the first band."""

    ZERO = "zero"
    FIRST_TIER_FLAT = "first_tier_flat"


class Operation(StrEnum):
    """What a transform does to the quantity."""

    MULTIPLY = "multiply"
    DIVIDE = "divide"


class Rounding(StrEnum):
    """How a transform rounds its result to whole units; `none` keeps the exact fraction."""

    UP = "up"
    DOWN = "down"
    HALF_UP = "half_up"
    NONE = "none"


class ComponentKind(StrEnum):
    """What a component of a rated amount stands for. The last two are adjustments, with negative totals."""

    TRANSFORM = "transform"  # the quantity after the transform; total 0
    FREE_UNITS = "free_units"  # units that the price's own free units took off; total 0
    FLAT = "flat"
    UNITS = "units"
    PACKAGES = "packages"  # quantity counts packages, not units
    BAND = "band"
    VALUE = "value"  # quantity is money, unit_amount the rate as a factor
    FREE_VALUE = "free_value"  # total 0
    EVENTS = "events"  # quantity counts events, unit_amount is the fixed amount of each
    FREE_EVENTS = "free_events"  # total 0
    CLAMPED_EVENTS = "clamped_events"  # quantity counts events, total is the sum of their clamped amounts
    PERCENT_DISCOUNT = "percent_discount"  # quantity is the amount discounted, unit_amount the factor (−0.1 for 10 %)
    MAXIMUM = "maximum"  # what the maximum spend takes off; quantity 0


@dataclass(frozen=True, slots=True)
class Band:
    """
    One band of a price, from just above the previous band's `up_to` to its own, inclusive; None is open.

    `unit_amount` is currency units per unit; in a graduated percentage it is the rate in percent (`rate` in documents).
    `flat_amount` is billed once, when the band is entered.
    """

    up_to: Decimal | None
    unit_amount: Decimal
    flat_amount: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Transform:
    """A conversion of the quantity before it is priced: tokens to started thousands is divide by 1000, round up."""

    operation: Operation
    by: Decimal
    rounding: Rounding = Rounding.NONE

    def __post_init__(self) -> None:
        if not self.by > 0:
            raise ValueError(f"a transform is by a number above 0, not {self.by}")


REQUIRED_FIELDS: Mapping[PriceModel, tuple[str, ...]] = {
    PriceModel.FLAT: ("amount",),
    PriceModel.PER_UNIT: ("unit_amount",),
    PriceModel.PACKAGE: ("size", "amount"),
    PriceModel.GRADUATED: ("bands",),
    PriceModel.VOLUME: ("bands",),
    PriceModel.PERCENTAGE: ("rate",),
    PriceModel.GRADUATED_PERCENTAGE: ("bands",),
    PriceModel.DYNAMIC: ("multiplier",),
}
_SPEND = ("percent_discount", "amount_max", "amount_min")
_UNITS = ("transform", "free_units", *_SPEND)
_PER_EVENT = ("fixed_amount", "free_value", "free_events", "minimum_per_event", "maximum_per_event")
OPTIONAL_FIELDS: Mapping[PriceModel, tuple[str, ...]] = {
    PriceModel.FLAT: _SPEND,
    PriceModel.PER_UNIT: _UNITS,
    PriceModel.PACKAGE: _UNITS,
    PriceModel.GRADUATED: ("zero_usage", *_UNITS),
    PriceModel.VOLUME: ("zero_usage", *_UNITS),
    PriceModel.PERCENTAGE: (*_PER_EVENT, "transform", *_SPEND),
    PriceModel.GRADUATED_PERCENTAGE: ("zero_usage", "transform", *_SPEND),
    PriceModel.DYNAMIC: ("transform", *_SPEND),
}


@dataclass(frozen=True, slots=True)
class Price:
    """
    One immutable price. Amounts are in major currency units, percentages in percent, quantities in the meter's units.

    The options apply in this order, whatever the model: transform, free units, the model itself, percent discount, maximum spend,
    minimum spend. `free_units`, band limits and `size` count units *after* the transform.

    Raises ValueError when a field that the model needs is missing, a field of another model is set, or the bands do not ascend to an
    open last one, because such a price would bill nothing, or something else, in silence. Signs, digits and everything that a
    person can mistype are judged by `price_documents.parse_price`, which names each fault.

    >>> Price(PriceModel.PACKAGE, size=Decimal(1000), amount=Decimal("0.20")).model
    <PriceModel.PACKAGE: 'package'>
    """

    model: PriceModel
    _: KW_ONLY
    bands: tuple[Band, ...] = ()
    unit_amount: Decimal | None = None  # per_unit
    amount: Decimal | None = None  # flat: of the period; package: of one package
    size: Decimal | None = None  # units per package
    rate: Decimal | None = None  # percentage, in percent of the value
    multiplier: Decimal | None = None  # dynamic, a factor on the caller's amounts
    fixed_amount: Decimal = Decimal(0)  # percentage, per event
    free_value: Decimal = Decimal(0)  # percentage, off the value
    free_events: int = 0  # percentage, events without the fixed amount
    minimum_per_event: Decimal | None = None  # percentage, floor of one event's amount, its fixed amount included
    maximum_per_event: Decimal | None = None  # percentage, its ceiling
    zero_usage: ZeroUsage = ZeroUsage.ZERO
    transform: Transform | None = None
    free_units: Decimal = Decimal(0)
    percent_discount: Decimal = Decimal(0)
    amount_max: Decimal | None = None  # at most this much per period, after the discount
    amount_min: Decimal | None = None  # at least this much per period: see Rated.top_up

    def __post_init__(self) -> None:
        set_fields = {field.name for field in fields(self) if getattr(self, field.name) != field.default} - {"model"}
        required = set(REQUIRED_FIELDS[self.model])
        if missing := required - set_fields:
            raise ValueError(f"a {self.model} price needs {', '.join(sorted(missing))}")
        if foreign := set_fields - required - set(OPTIONAL_FIELDS[self.model]):
            raise ValueError(f"a {self.model} price has no {', '.join(sorted(foreign))}")
        if self.size is not None and not self.size > 0:
            raise ValueError(f"a package holds more than {self.size} units")
        if self.clamps_events and (self.transform or self.free_value or self.free_events):
            raise ValueError("bounds per event do not combine with a transform, free value or free events")
        if self.bands:
            self._check_bands()

    def _check_bands(self) -> None:
        """Raise ValueError unless the limits ascend from above 0 and the last band alone is open."""
        lower = Decimal(0)
        for band in self.bands[:-1]:
            if band.up_to is None or band.up_to <= lower:
                raise ValueError("the limits of bands ascend strictly from above 0, and only the last band is open")
            lower = band.up_to
        if self.bands[-1].up_to is not None:
            raise ValueError("the last band is open: its up_to is None")

    @property
    def clamps_events(self) -> bool:
        """Whether each event's amount has a floor or a ceiling, so that amounts must be summed event by event."""
        return self.minimum_per_event is not None or self.maximum_per_event is not None


@dataclass(frozen=True, slots=True)
class Component:
    """
    One summand of a rated amount. The totals of all components of a result sum to its amount, exactly.

    `total` is quantity × unit_amount + flat_amount wherever `unit_amount` is given. `band` counts from 1. In a part of an axis
    `flat_amount` is 0 when an earlier part entered the band.
    """

    kind: ComponentKind
    band: int | None
    quantity: Fraction
    unit_amount: Decimal | None
    flat_amount: Decimal | None
    total: Fraction

    def document(self) -> dict[str, str | int | None]:
        """Return the JSON form: numbers as plain strings, absent ones as null; endless fractions as `money.precise` has them."""
        return {
            "kind": self.kind.value,
            "band": self.band,
            "quantity": plain(precise(self.quantity)),
            "unit_amount": None if self.unit_amount is None else plain(self.unit_amount),
            "flat_amount": None if self.flat_amount is None else plain(self.flat_amount),
            "total": plain(precise(self.total)),
        }


@dataclass(frozen=True, slots=True)
class Rated:
    """
    A rated amount, unrounded, with what it is made of.

    `top_up` is what a minimum spend would add to `amount`; `amount` does not contain it, because it is billed once, on the last bill
    of the period.
    """

    amount: Fraction
    components: tuple[Component, ...]
    top_up: Fraction
