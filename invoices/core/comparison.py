"""
What a backtest says of all tenants together: sums, ranks, shares in hundredths, and how many tenants' bills move by how much.

Takes each tenant's bill before and after, in units of one currency. Owns nothing of how these came about (`backtest`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import ceil, floor

from subscriptions.core.money import as_fraction, exact, minor_units

_ZERO = Decimal(0)
INFINITE = Decimal("Infinity")
_ALL_OF_IT = Decimal(-100)

# Bins on each side of "no change", and the bills of how many of a hundred tenants that change they reach over; the rest is beyond.
BINS = 6
_REACHED_PERCENT = 95
# Decimals of a percentage.
_PLACES = 4


class Direction(StrEnum):
    """Which way a bill goes."""

    FALL = "fall"
    SAME = "same"
    RISE = "rise"


@dataclass(frozen=True, slots=True)
class Bill:
    """What a tenant's periods were billed together, and would have been."""

    before: Decimal
    after: Decimal

    @property
    def difference(self) -> Decimal:
        """By how much it rises."""
        with exact():
            return self.after - self.before


@dataclass(frozen=True, slots=True)
class Bin:
    """How many bills fall, or rise, by more than `over` and not more than `up_to` (None: without end)."""

    direction: Direction
    over: Decimal
    up_to: Decimal | None
    tenants: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    All tenants' bills together. p50, p95 and worst are of their differences, by nearest rank; None where there is no bill.

    `largest_rise_percent` is the largest of a tenant's bill, rounded up, and `change_percent` that of their sum, rounded down, so that neither looks
    better than it is. Both may be infinite: what was nothing before has no share by which it rose.
    """

    before: Decimal
    after: Decimal
    difference: Decimal
    tenants: int
    rises: int
    falls: int
    p50: Decimal | None
    p95: Decimal | None
    worst: Decimal | None
    largest_rise_percent: Decimal | None
    change_percent: Decimal | None
    bins: tuple[Bin, ...]


def compare(bills: Sequence[Bill], currency: str) -> Comparison:
    """Return what becomes of all these bills, in a currency."""
    differences = sorted(bill.difference for bill in bills)
    with exact():
        before = sum((bill.before for bill in bills), _ZERO)
        after = sum((bill.after for bill in bills), _ZERO)
        difference = after - before
    return Comparison(
        before=before,
        after=after,
        difference=difference,
        tenants=len(bills),
        rises=sum(one > 0 for one in differences),
        falls=sum(one < 0 for one in differences),
        p50=_rank(differences, 50),
        p95=_rank(differences, 95),
        worst=_rank(differences, 100),
        largest_rise_percent=max(
            (change_percent(bill.before, bill.after, rounded=ceil) for bill in bills), default=None
        ),
        change_percent=change_percent(before, after, rounded=floor) if bills else None,
        bins=_bins(differences, currency),
    )


def change_percent(before: Decimal, after: Decimal, *, rounded: Callable[[Fraction], int]) -> Decimal:
    """
    Return by how many hundredths of itself an amount rises, below 0 where it falls, `rounded` (`ceil`, `floor`) to four decimals.

    What was nothing, or less, and becomes more rises without end; what becomes less still falls by all of it.

    >>> change_percent(Decimal(30), Decimal(36), rounded=ceil), change_percent(Decimal(3), Decimal(4), rounded=ceil)
    (Decimal('20.0000'), Decimal('33.3334'))
    >>> change_percent(Decimal(3), Decimal(2), rounded=floor), change_percent(Decimal(0), Decimal(1), rounded=floor)
    (Decimal('-33.3334'), Decimal('Infinity'))
    """
    if before == after:
        return _ZERO
    if before <= 0:
        return INFINITE if after > before else _ALL_OF_IT
    share = (as_fraction(after) - as_fraction(before)) / as_fraction(before)
    return Decimal(f"{rounded(share * 100 * 10**_PLACES)}E-{_PLACES}")


def _rank(ordered: Sequence[Decimal], percent: int) -> Decimal | None:
    """Return a percentile by nearest rank."""
    return ordered[max(ceil(percent * len(ordered) / 100), 1) - 1] if ordered else None


def _bins(differences: Sequence[Decimal], currency: str) -> tuple[Bin, ...]:
    """Deal differences to bins of one width, largest fall first; on either side as many as there are bills to show, up to BINS and one beyond."""
    sizes = sorted(one.copy_abs() for one in differences if one)
    if not sizes:
        return (Bin(Direction.SAME, _ZERO, _ZERO, len(differences)),) if differences else ()
    reach = _rank(sizes, _REACHED_PERCENT)
    assert reach is not None
    width = _width(as_fraction(reach) / BINS, currency)
    counts = Counter(_place(one, width) for one in differences)
    lowest, highest = min(min(counts), 0), max(max(counts), 0)
    return tuple(_bin(place, width, counts[place]) for place in range(lowest, highest + 1))


def _width(least: Fraction, currency: str) -> Decimal:
    """Return the smallest of 1, 2, 5, 10, 20, … of the currency's smallest unit that is not less than this."""
    width = Fraction(1, 10 ** minor_units(currency))
    factors = (2, Fraction(5, 2), 2)
    number = 0
    while width < least:
        width *= factors[number % 3]
        number += 1
    units = int(width * 10 ** minor_units(currency))
    return Decimal(f"{units}E-{minor_units(currency)}")


def _place(difference: Decimal, width: Decimal) -> int:
    """Return how many bins away from "no change" a difference lies: -1 for a fall of up to the width."""
    steps = min(ceil(as_fraction(difference.copy_abs()) / as_fraction(width)), BINS + 1)
    return steps if difference > 0 else -steps


def _bin(place: int, width: Decimal, tenants: int) -> Bin:
    if place == 0:
        return Bin(Direction.SAME, _ZERO, _ZERO, tenants)
    steps = abs(place)
    with exact():
        over, up_to = (steps - 1) * width, steps * width
    return Bin(Direction.RISE if place > 0 else Direction.FALL, over, None if steps > BINS else up_to, tenants)
