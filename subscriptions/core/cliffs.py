"""
Where a volume price falls: the usage at which one unit more makes all units cheaper.

Owns the search for such falls, by the production rating. Says nothing of how bad one is: `linting` does.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor

from subscriptions.core.price_models import hundredth
from subscriptions.core.prices import Operation, Price, PriceModel, Rounding, Transform
from subscriptions.core.pricing import rate


@dataclass(frozen=True, slots=True)
class Cliff:
    """
    A stretch of usage, open at both ends, in which more usage costs less than `amount` does at its start.

    `starts_at` and `ends_at` are units before the price's transform, as the meter counts them. `ends_at` is None where no usage, however
    much, costs as much again. `band` is the band that it falls into, counted from 0.
    """

    band: int
    starts_at: Fraction
    ends_at: Fraction | None
    amount: Fraction


def cliffs(price: Price) -> list[Cliff]:
    """
    Return the falls of a volume price in the order of usage; of another model none, because no other price ever falls.

    Free units, discount, maximum spend and the transform's rounding count as they do on an invoice. A minimum spend does not: it is paid
    apart.

    >>> from decimal import Decimal
    >>> from subscriptions.core.prices import Band
    >>> bands = (Band(Decimal(10), Decimal(3)), Band(None, Decimal(2)))
    >>> cliffs(Price(PriceModel.VOLUME, bands=bands))
    [Cliff(band=1, starts_at=Fraction(10, 1), ends_at=Fraction(15, 1), amount=Fraction(30, 1))]
    """
    if price.model != PriceModel.VOLUME:
        return []
    found = (_fall(price, band) for band in range(1, len(price.bands)))
    return [cliff for cliff in found if cliff is not None]


def band_edges(price: Price) -> list[Fraction]:
    """
    Return where each band begins on the axis of transformed units, free units included; usage *beyond* an edge is in its band.

    >>> from decimal import Decimal
    >>> from subscriptions.core.prices import Band
    >>> bands = (Band(Decimal(10), Decimal(3)), Band(None, Decimal(2)))
    >>> [int(edge) for edge in band_edges(Price(PriceModel.GRADUATED, bands=bands, free_units=Decimal(5)))]
    [5, 15]
    """
    free = Fraction(price.free_units)
    return [free, *(free + Fraction(band.up_to) for band in price.bands if band.up_to is not None)]


def counts_whole(price: Price) -> bool:
    """Whether the transform leaves whole units only."""
    return price.transform is not None and price.transform.rounding != Rounding.NONE


def _fall(price: Price, band: int) -> Cliff | None:
    """Return the fall into a band from what comes before it; None where there is none, or no usage is in the band."""
    edges = band_edges(price)
    whole = counts_whole(price)
    top = Fraction(floor(edges[band])) if whole else edges[band]
    if whole and band + 1 < len(edges) and floor(edges[band + 1]) == top:
        return None  # no whole number lies in the band: the next one's fall is the same
    amount = rate(replace(price, transform=None), top).amount
    recovered = next(_recoveries(price, band, amount), None) if amount else top
    first = top + 1 if whole else top
    if recovered is not None and recovered <= first:
        return None
    ends_at = None if recovered is None else usage_before(price.transform, recovered - 1 if whole else recovered)
    return Cliff(band, usage_before(price.transform, top), ends_at, amount)


def _recoveries(price: Price, band: int, amount: Fraction) -> Iterator[Fraction]:
    """Yield, for each band from this one on that reaches the amount, the transformed units at which it does."""
    edges = [*band_edges(price), None]
    paid = 1 - Fraction(hundredth(price.percent_discount))
    for number in range(band, len(price.bands)):
        lower, upper = edges[number], edges[number + 1]
        assert lower is not None  # only the end of the last band is open
        missing = amount / paid - Fraction(price.bands[number].flat_amount)
        unit_amount = Fraction(price.bands[number].unit_amount)
        if missing > 0 and not unit_amount:
            continue
        reached = max(lower, Fraction(price.free_units) + missing / unit_amount) if missing > 0 else lower
        if counts_whole(price):
            reached = Fraction(max(floor(lower) + 1, ceil(reached)))
        if upper is None or reached <= upper:
            yield reached


def usage_before(transform: Transform | None, units: Fraction) -> Fraction:
    """Return the meter's units up to which there are at most so many transformed ones, whole where the transform rounds."""
    if transform is None:
        return units
    up_to = units + _BEYOND[transform.rounding]
    return (
        up_to / Fraction(transform.by) if transform.operation == Operation.MULTIPLY else up_to * Fraction(transform.by)
    )


# How far beyond a whole number the exact quotient may go before it is rounded to the next.
_BEYOND = {
    Rounding.NONE: Fraction(0),
    Rounding.UP: Fraction(0),
    Rounding.HALF_UP: Fraction(1, 2),
    Rounding.DOWN: Fraction(1),
}
