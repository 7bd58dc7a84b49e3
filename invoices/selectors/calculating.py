"""
The pricing studio's calculator: what usage would cost on terms that may be a draft's, and how a price runs over usage.

Owns which usage is asked for and drawn. Every figure is `quoting`'s or the rater's own. Writes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil

from invoices.selectors.quoting import Quote, QuotedUsage, clamped_events, dimension_names, quote_terms
from metering.core.burndown import split
from metering.core.overage import ChargeTerms, SegmentUsage, price_pool
from metering.core.pools import MeterPools, Pool
from metering.selectors.terms import pools_of_terms
from subscriptions.core.curves import plausible_end, points_to_draw, rounded_up, turning_points
from subscriptions.core.money import precise, round_half_up
from subscriptions.core.prices import RATES_WHOLE_VALUE
from subscriptions.models import Meter
from subscriptions.selectors.catalog import UsageCharge, VersionTerms

CURVE_STEPS = 40
SLIDER_STEPS = 1000
_PLACES = 12
_ZERO = Decimal(0)

UsageKey = tuple[str, tuple[tuple[str, str], ...]]
"""A meter's code and sorted dimension values: what a charge prices."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Usage that can be entered: that of one charge. `end` is a round number beyond everything that the charge's price does."""

    charge: UsageCharge
    meter: Meter
    quantity: Decimal
    events: int
    end: Decimal
    # Whether other charges take some of the meter's usage away from it.
    is_rest: bool

    @property
    def key(self) -> UsageKey:
        """What it is usage of."""
        return key_of(self.charge)

    @property
    def is_value(self) -> bool:
        """Whether the quantity is money."""
        return self.charge.price.model in RATES_WHOLE_VALUE

    @property
    def counts_events(self) -> bool:
        """Whether it matters in how many events the quantity came."""
        return bool(self.charge.price.fixed_amount) or self.charge.price.clamps_events

    @property
    def step(self) -> Decimal:
        """How far one step of a slider goes."""
        return precise(Fraction(self.end) / SLIDER_STEPS)

    @property
    def usage(self) -> QuotedUsage:
        """The usage as a quote takes it."""
        return QuotedUsage(self.charge.meter_code, dict(self.charge.dimensions), self.quantity, self.events)


@dataclass(frozen=True, slots=True)
class Calculation:
    """A billing period's invoice, and which of the usage these terms do not price."""

    terms: VersionTerms
    quote: Quote
    unpriced: tuple[QuotedUsage, ...]
    # Of the terms' charges, by id.
    meters: Mapping[int, Meter]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """
    What so much usage costs in a period, beside the fee, in major units: in all, per unit, and each further unit up to the next point.

    No usage has no price per unit; the last point, and one at which the amount jumps, none of a further unit.
    """

    units: Decimal
    total: Fraction
    per_unit: Fraction | None
    marginal: Fraction | None


def key_of(charge: UsageCharge) -> UsageKey:
    """Return what a charge is found by in another version."""
    return charge.meter_code, charge.dimensions


def dials(terms: VersionTerms, usage: Mapping[UsageKey, tuple[Decimal, int]]) -> list[Dial]:
    """
    Return what can be entered for the terms, with the usage that was; where none was, for each meter's first charge half of its dial, else nothing.

    One query.
    """
    meters = Meter.objects.in_bulk({charge.meter_id for charge in terms.charges})
    charges_of = Counter(charge.meter_id for charge in terms.charges)
    made = []
    begun: set[int] = set()
    for charge in terms.charges:
        end = rounded_up(Fraction(charge.included or 0) + plausible_end(charge.price))
        guess = (_ZERO if charge.meter_id in begun else precise(end / 2), 1)
        begun.add(charge.meter_id)
        quantity, events = usage.get(key_of(charge), guess)
        is_rest = not charge.dimensions and charges_of[charge.meter_id] > 1
        made.append(Dial(charge, meters[charge.meter_id], quantity, events, precise(end), is_rest))
    return made


def calculate(terms: VersionTerms, usage: Sequence[QuotedUsage]) -> Calculation:
    """Return the invoice of a billing period with this usage; what the terms do not price is set apart."""
    meters = Meter.objects.in_bulk({charge.meter_id for charge in terms.charges})
    by_code = {meter.code: meter for meter in meters.values()}
    pools = pools_of_terms(terms, terms.id)
    priced: list[QuotedUsage] = []
    unpriced: list[QuotedUsage] = []
    for one in usage:
        is_priced = one.meter in by_code and _charge_for(pools, by_code[one.meter], one.dimensions)
        (priced if is_priced else unpriced).append(one)
    missed = tuple(one for one in unpriced if one.quantity)
    return Calculation(terms, quote_terms(terms=terms, usage=priced), missed, meters)


def curves(dial: Dial, versions: Iterable[VersionTerms]) -> list[list[CurvePoint]]:
    """
    Return how the price of a dial's usage runs under each version, at the same points; without a point where the version does not price it.

    The usage is taken to be the only one, so that all of a shared allowance covers it, and its events to be of one size. The points go from
    nothing to beyond the usage that was entered and every turn of either price.
    """
    dimensions = dict(dial.charge.dimensions)
    priced = [_charge_for(pools_of_terms(terms, terms.id), dial.meter, dimensions) for terms in versions]
    turns = sorted({turn for found in priced if found for turn in _turns(*found)})
    beyond = [Fraction(dial.quantity) * 11 / 10, *(turn * 5 / 4 for turn in turns)]
    end = max(Fraction(dial.end), rounded_up(max(beyond)))
    points = [round_half_up(point, places=_PLACES) for point in points_to_draw(turns, end, steps=CURVE_STEPS)]
    jumps = {round_half_up(turn, places=_PLACES) for turn in turns}
    return [_curve(dial, *found, points, jumps) if found else [] for found in priced]


def _charge_for(
    by_meter: Mapping[int, MeterPools], meter: Meter, dimensions: Mapping[str, str]
) -> tuple[Pool, ChargeTerms] | None:
    """Return what prices usage with these values, and its pool; None where nothing does."""
    pools = by_meter.get(meter.pk)
    names = dimension_names(meter, dimensions)
    charge = pools.charge_for(names) if pools else None
    return (pools.by_key[pools.key_for(names)], charge) if pools and charge else None


def _turns(pool: Pool, charge: ChargeTerms) -> list[Fraction]:
    included = Fraction(pool.included)
    return [*([included] if included else []), *(included + turn for turn in turning_points(charge.price))]


def _curve(
    dial: Dial, pool: Pool, charge: ChargeTerms, points: Sequence[Decimal], jumps: set[Decimal]
) -> list[CurvePoint]:
    totals = [_total(dial, pool, charge, point) for point in points]
    drawn = []
    for number, (point, total) in enumerate(zip(points, totals, strict=True)):
        is_last = number == len(points) - 1
        marginal = None
        if not is_last and point not in jumps:
            marginal = (totals[number + 1] - total) / Fraction(points[number + 1] - point)
        drawn.append(CurvePoint(point, total, total / Fraction(point) if point else None, marginal))
    return drawn


def _total(dial: Dial, pool: Pool, charge: ChargeTerms, quantity: Decimal) -> Fraction:
    """Return what a quantity comes to, a minimum spend included."""
    names = dimension_names(dial.meter, dict(dial.charge.dimensions))
    events = _events(dial, quantity)
    clamped = {names: clamped_events(charge.price, quantity, events)}
    _, overage = split(quantity, [("included", pool.included)])
    segment = SegmentUsage(charge.version_id, {names: quantity}, overage, {names: events}, clamped)
    [part] = price_pool([segment], [charge]).parts
    return part.amount + part.top_up


def _events(dial: Dial, quantity: Decimal) -> int:
    """Return in how many events a quantity comes if each is as large as those that were entered."""
    if not quantity:
        return 0
    return ceil(Fraction(quantity) * dial.events / Fraction(dial.quantity)) if dial.quantity and dial.events else 1
