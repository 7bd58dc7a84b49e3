"""
Which thresholds a position has reached.

Owns the line at which a threshold lies. Does not own what has been told before: a threshold is reached for as long as the position is on
its line or beyond, and the caller's rows say whether that is news. Quantities are in the meter's units, amounts in the tenant's currency,
exact. Source: docs/thresholds.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any

from subscriptions.core.money import as_fraction, exact


class Measure(StrEnum):
    """What a threshold looks at."""

    PERCENT = "percent"  # how much of what is included has been used
    QUANTITY = "quantity"  # what has been used
    AMOUNT = "amount"  # what the overage costs


class Once(StrEnum):
    """How often a threshold is told of, and over which stretch quantities and amounts are added up."""

    PERIOD = "period"
    LIFE = "life"


@dataclass(frozen=True, slots=True)
class Threshold:
    """One threshold of a pool or a tenant. `key` names it among the thresholds of its owner, in every version that states it."""

    key: str
    measure: Measure
    value: Decimal
    once: Once

    @property
    def adds_up_periods(self) -> bool:
        """Whether it looks at the sum over all periods. A percentage is always of one period."""
        return self.once == Once.LIFE and self.measure != Measure.PERCENT


@dataclass(frozen=True, slots=True)
class Position:
    """
    Where a pool or a tenant stands, over the stretch that the thresholds look at.

    `used` and `included` are of the period. Included is what grants have covered, and what is left of those in force: so 100 percent is
    where overage begins (the limit of the gate under `deny`), and credit that expires unused takes nothing from what was used before. Of one
    grant that lasts for the whole period it is the grant's quantity. None where a percentage means nothing (a closed period). Of a tenant both are
    money: what overage costs, and the spend cap, None without one.
    """

    used: Decimal | Fraction = Decimal(0)
    included: Decimal | None = None
    quantity: Decimal = Decimal(0)
    amount: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Reached:
    """A threshold that a position has reached: what had come to `value` when the line lay at `line`."""

    threshold: Threshold
    value: Fraction
    line: Fraction


def threshold_of(document: Mapping[str, Any]) -> Threshold:
    """
    Return a threshold as it stands in a charge or tenant.

    >>> threshold_of({"amount": "50", "once": "life"}).key
    'amount:50:life'
    """
    [measure] = [measure for measure in Measure if measure in document]
    once = Once(document.get("once", Once.PERIOD))
    key = f"{measure}:{document[measure]}:{once}"
    return Threshold(key, measure, Decimal(document[measure]), once)


def included_in(covered: Decimal, remaining_in_force: Iterable[Decimal]) -> Decimal:
    """Return what is included in a period: what grants have covered, and what is left of those in force."""
    with exact():
        return sum(remaining_in_force, covered)


def line_of(percentage: Threshold, included: Decimal) -> Fraction:
    """Return what must have been used to reach a percentage of what is included."""
    return as_fraction(included) * as_fraction(percentage.value) / 100


def reached(thresholds: Sequence[Threshold], position: Position) -> list[Reached]:
    """
    Return those of the thresholds that the position has reached: it is on the line, or beyond.

    Nothing is reached at 0. With nothing included, the first unit of usage reaches every percentage.

    >>> eighty, hundred = threshold_of({"percent": 80}), threshold_of({"percent": 100})
    >>> position = Position(used=Decimal(8000), included=Decimal(10000))
    >>> [(one.threshold.key, str(one.line)) for one in reached([eighty, hundred], position)]
    [('percent:80:period', '8000')]
    """
    found = [_measured(threshold, position) for threshold in thresholds]
    return [one for one in found if one is not None and one.value > 0 and one.value >= one.line]


def _measured(threshold: Threshold, position: Position) -> Reached | None:
    if threshold.measure == Measure.AMOUNT:
        return Reached(threshold, position.amount, as_fraction(threshold.value))
    if threshold.measure == Measure.QUANTITY:
        return Reached(threshold, as_fraction(position.quantity), as_fraction(threshold.value))
    if position.included is None:
        return None
    return Reached(threshold, as_fraction(position.used), line_of(threshold, position.included))
