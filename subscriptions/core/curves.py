"""
Where to look at a price that is drawn over usage: the points at which it turns, how far to look, and the points between.

Owns the choice of points alone. What usage costs there is asked of the rating.
"""

from collections.abc import Iterable
from fractions import Fraction

from subscriptions.core.cliffs import band_edges, usage_before
from subscriptions.core.prices import Price
from subscriptions.core.pricing import rate

# What a price without bands is drawn up to: usage that costs about this much, in major units.
PLAUSIBLE_AMOUNT = 100
_PROBE = 1_000_000
_STEPS = (Fraction(1), Fraction(2), Fraction(5, 2), Fraction(5), Fraction(10))


def turning_points(price: Price) -> list[Fraction]:
    """
    Return the usage beyond the allowance, above 0 and ascending, at which the price per unit changes.

    >>> from decimal import Decimal
    >>> from subscriptions.core.prices import Band, PriceModel
    >>> bands = (Band(Decimal(10), Decimal(3)), Band(None, Decimal(2)))
    >>> [int(point) for point in turning_points(Price(PriceModel.VOLUME, bands=bands, free_units=Decimal(5)))]
    [5, 15]
    """
    edges = band_edges(price) if price.bands else [Fraction(price.free_units)]
    found = {usage_before(price.transform, edge) for edge in edges} | {Fraction(price.free_value)}
    return sorted(point for point in found if point > 0)


def plausible_end(price: Price) -> Fraction:
    """
    Return a round number of units that shows what a price is like: half as much again as where it last turns, or about PLAUSIBLE_AMOUNT's worth.

    >>> from decimal import Decimal
    >>> from subscriptions.core.prices import PriceModel
    >>> int(plausible_end(Price(PriceModel.PER_UNIT, unit_amount=Decimal("0.0002"))))
    500000
    """
    if turns := turning_points(price):
        return rounded_up(turns[-1] * Fraction(3, 2))
    if price.clamps_events:
        return Fraction(PLAUSIBLE_AMOUNT)
    amount = rate(price, _PROBE).amount
    return rounded_up(Fraction(_PROBE * PLAUSIBLE_AMOUNT) / amount) if amount else Fraction(_PROBE)


def rounded_up(number: Fraction) -> Fraction:
    """
    Return the next number that is easy to read: 1, 2, 2.5 or 5 with zeros.

    >>> [str(rounded_up(Fraction(number))) for number in ("3", "11000000", "0.03")]
    ['5', '20000000', '1/20']
    """
    if number <= 0:
        return Fraction(1)
    power = Fraction(1)
    while power * 10 < number:
        power *= 10
    while power >= number:
        power /= 10
    return next(power * step for step in _STEPS if power * step >= number)


def points_to_draw(turns: Iterable[Fraction], end: Fraction, *, steps: int) -> list[Fraction]:
    """
    Return `steps` equal steps from 0 to `end`, and with them each turning point on the way and the unit after it.

    >>> [int(point) for point in points_to_draw([Fraction(10)], Fraction(400), steps=2)]
    [0, 10, 11, 200, 400]
    """
    near = unit_after(end)
    turning = [point for turn in turns for point in (turn, turn + near) if point < end]
    return sorted({end * step / steps for step in range(steps + 1)} | set(turning))


def unit_after(end: Fraction) -> Fraction:
    """Return how far behind a turning point to look for a jump: a unit, or a hundredth of a drawing that shows only a few."""
    return min(Fraction(1), end / 100)
