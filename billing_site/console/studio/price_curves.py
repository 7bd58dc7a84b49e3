"""Drawings of how a price runs over usage: in all, per unit, and of each further unit."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from django.utils.safestring import SafeString

from billing_site.console.studio.charts import Point, Series, line_chart, money_axis, units_axis
from invoices.selectors.calculating import CurvePoint, Dial, curves
from subscriptions.core import words
from subscriptions.core.describing import usage_name
from subscriptions.selectors.catalog import VersionTerms

# Near 0 what is paid once makes the price per unit endless: what lies left of this share of the drawing does not stretch it.
_LEFT_OUT = Fraction(1, 20)
_ROWS_LISTED = 9
_Named = Sequence[tuple[str, Sequence[CurvePoint]]]


def dial_name(dial: Dial) -> str:
    """Return what a dial enters the usage of."""
    name = usage_name(dial.meter.name, dict(dial.charge.dimensions))
    return f"{name}, all other" if dial.is_rest else name


def dial_unit(dial: Dial, currency: str) -> str:
    """Return what a dial counts, in the plural."""
    return currency if dial.is_value else words.many(dial.meter.unit)


def price_curves(dial: Dial, terms: VersionTerms, other: VersionTerms | None, other_name: str) -> list[SafeString]:
    """Draw the price of a dial's usage under both terms; under the first alone where the currencies differ."""
    drawn_for = [("This version", terms)]
    if other is not None and other.currency == terms.currency:
        drawn_for.append((other_name, other))
    found = curves(dial, [each for _, each in drawn_for])
    named = [(name, curve) for (name, _), curve in zip(drawn_for, found, strict=True) if curve]
    unit, single = dial_unit(dial, terms.currency), words.one(dial.meter.unit)
    x = units_axis(f"{unit.capitalize()} in a period", unit)
    if dial.is_value:
        single = f"{terms.currency} of value"
        x = money_axis("Value in a period", terms.currency)
    listed = _listed(found[0])
    mark = (dial.quantity, "the usage above") if dial.quantity else None

    def draw(title: str, label: str, series: list[Series], bounds: tuple[Fraction, Fraction] | None) -> SafeString:
        y = money_axis(label, terms.currency)
        return line_chart(series, title=title, x=x, y=y, bounds=bounds, mark=mark, listed=listed)

    return [
        draw(f"{dial_name(dial)}: price in all, beside the fee", "In all", _totals(named), None),
        draw(f"Average price per {single}", f"Per {single}", _averages(named), _bounds(named)),
        draw(f"Price of one more {single}", f"One more {single}", _steps(named), None),
    ]


def _totals(named: _Named) -> list[Series]:
    return [Series(name, [(point.units, point.total) for point in curve]) for name, curve in named]


def _averages(named: _Named) -> list[Series]:
    return [
        Series(name, [None if point.per_unit is None else (point.units, point.per_unit) for point in curve])
        for name, curve in named
    ]


def _bounds(named: _Named) -> tuple[Fraction, Fraction]:
    """Return between which prices per unit most of the drawing lies."""
    end = Fraction(named[0][1][-1].units)
    shown = [
        point.per_unit
        for _, curve in named
        for point in curve
        if point.per_unit is not None and point.units >= end * _LEFT_OUT
    ]
    return min(shown), max(shown)


def _steps(named: _Named) -> list[Series]:
    """Draw each stretch between two points at its own height; where the amount jumps is a gap."""
    series = []
    for name, curve in named:
        points: list[Point] = []
        for point, after in pairwise(curve):
            if point.marginal is None:
                points.append(None)
            else:
                points += [(point.units, point.marginal), (after.units, point.marginal)]
        series.append(Series(name, points))
    return series


def _listed(curve: Sequence[CurvePoint]) -> list[Decimal]:
    """Return a curve's turns, its end, and points between them that are well apart."""
    gap = Fraction(curve[-1].units) / _ROWS_LISTED
    listed: list[Decimal] = []
    for point in curve:
        if not listed or point.marginal is None or Fraction(point.units - listed[-1]) >= gap:
            listed.append(point.units)
    return listed
