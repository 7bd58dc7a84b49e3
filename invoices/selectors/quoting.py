"""Quotes: prices a quantity or a whole month of usage by the functions that bill it. Writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from billing_site.http.problems import FieldError, Invalid
from invoices.core.lines import LineKind, usage_words
from metering.core.burndown import split
from metering.core.measuring import DimensionSet
from metering.core.overage import ChargeId, PricedPart, SegmentUsage, match, price_pool
from metering.core.pools import MeterPools, Pool
from metering.selectors.terms import pools_of_terms
from subscriptions.core.money import exact, precise, quantize
from subscriptions.core.pricing import RATES_WHOLE_VALUE, Price, clamp_event, rate
from subscriptions.models import Meter, TierVersion
from subscriptions.selectors.catalog import VersionTerms, terms_of

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class QuotedUsage:
    """Usage to be priced: so much of a meter, with these dimension values, in so many events."""

    meter: str
    dimensions: Mapping[str, str]
    quantity: Decimal
    events: int = 1


@dataclass(frozen=True, slots=True)
class QuotedLine:
    """A line as an invoice would have it."""

    kind: str
    description: str
    quantity: Decimal
    amount: Decimal
    amount_precise: Decimal
    components: tuple[dict[str, Any], ...]
    # The charge's place in the version's document; None for what is no charge's.
    charge: int | None = None


@dataclass(frozen=True, slots=True)
class Quote:
    """The sum of its rounded lines, the sum of what they were rounded from, and how each was reached."""

    amount: Decimal
    amount_precise: Decimal
    currency: str
    components: tuple[dict[str, Any], ...]
    lines: tuple[QuotedLine, ...]


def quote_price(
    *, price: Price, quantity: Decimal, included: Decimal = _ZERO, events: int = 0, currency: str = "USD"
) -> Quote:
    """
    Price what of a quantity lies beyond `included`; for models that rate a whole value, all of it.

    Raises Invalid (422) where the price has bounds per event: single events are not known here.
    """
    whole = price.model in RATES_WHOLE_VALUE
    if price.clamps_events and events > 1:
        message = "has bounds per event, so several events cannot be priced by their sum; quote one event"
        raise Invalid("The price cannot be quoted.", errors=[FieldError("price", "not_allowed", message)])
    _, overage = (None, quantity) if whole else split(quantity, [("included", included)])
    clamped = clamp_event(price, quantity) if price.clamps_events else None
    rated = rate(price, overage, events=events, clamped=clamped)
    components = tuple(component.document() for component in rated.components)
    lines = [_line(LineKind.OVERAGE, "Usage beyond what is included", overage, rated.amount, components, currency)]
    if rated.top_up:
        lines.append(_line(LineKind.MINIMUM, "Minimum spend", _ZERO, rated.top_up, (), currency))
    return _quote(lines, currency)


def quote_usage(*, version: TierVersion, usage: Sequence[QuotedUsage]) -> Quote:
    """
    Price a billing period of a published version with this usage: its fee, and the overage of each charge.

    Raises Invalid (422) for a meter that the version does not charge.
    """
    return quote_terms(terms=terms_of(version.pk), usage=usage)


def quote_terms(*, terms: VersionTerms, usage: Sequence[QuotedUsage]) -> Quote:
    """
    Price a billing period on terms that may be a draft's: the fee, and what each charge comes to, with usage or without.

    Several events of one entry are taken to be alike, where a price has bounds per event. Usage that no charge matches costs nothing
    here; ask `pools_of_terms`. Raises Invalid (422) for a meter that the terms do not charge.
    """
    lines = []
    if terms.fee:
        lines.append(_line(LineKind.FEE, terms.tier_name, Decimal(1), Fraction(terms.fee), (), terms.currency))
    meters = Meter.objects.in_bulk({charge.meter_id for charge in terms.charges})
    positions: dict[ChargeId, int] = {charge.id: charge.position for charge in terms.charges}
    by_meter = pools_of_terms(terms, terms.id)
    used = _by_pool(terms, {meter.code: meter for meter in meters.values()}, by_meter, usage)
    for meter_id, pools in by_meter.items():
        for pool in pools.by_key.values():
            lines += _pool_lines(terms, pool, used.get((meter_id, pool.key), ()), meters[meter_id].name, positions)
    return _quote(lines, terms.currency)


def clamped_events(price: Price, quantity: Decimal, events: int) -> Decimal:
    """Return what so many events that are alike come to under bounds per event; nothing where there was none."""
    if not events or not price.clamps_events:
        return _ZERO
    each = clamp_event(price, precise(Fraction(quantity) / events))
    with exact():
        return each * events


def _by_pool(
    terms: VersionTerms,
    meters: Mapping[str, Meter],
    by_meter: Mapping[int, MeterPools],
    usage: Sequence[QuotedUsage],
) -> dict[tuple[int, str], list[tuple[DimensionSet, QuotedUsage]]]:
    used: dict[tuple[int, str], list[tuple[DimensionSet, QuotedUsage]]] = {}
    for index, one in enumerate(usage):
        meter = meters.get(one.meter)
        if meter is None:
            message = f"is not charged by version {terms.number} of {terms.tier_code}"
            raise Invalid(
                "The usage cannot be priced.", errors=[FieldError(f"usage.{index}.meter", "unknown", message)]
            )
        pools = by_meter[meter.pk]
        names = dimension_names(meter, one.dimensions)
        used.setdefault((meter.pk, pools.key_for(names)), []).append((names, one))
    return used


def dimension_names(meter: Meter, dimensions: Mapping[str, str]) -> DimensionSet:
    """Return the values by which usage is folded: one for each dimension that the meter declares, empty where it is not named."""
    return tuple((name, dimensions.get(name, "")) for name in sorted(meter.dimensions))


def _pool_lines(
    terms: VersionTerms,
    pool: Pool,
    parts: Sequence[tuple[DimensionSet, QuotedUsage]],
    meter: str,
    positions: Mapping[ChargeId, int],
) -> list[QuotedLine]:
    quantities: dict[DimensionSet, Decimal] = {}
    events: dict[DimensionSet, int] = {}
    clamped: dict[DimensionSet, Decimal] = {}
    for names, one in parts:
        charge = match(pool.charges, names)
        amount = clamped_events(charge.price, one.quantity, one.events) if charge else _ZERO
        with exact():
            quantities[names] = quantities.get(names, _ZERO) + one.quantity
            clamped[names] = clamped.get(names, _ZERO) + amount
        events[names] = events.get(names, 0) + one.events
    with exact():
        total = sum(quantities.values(), _ZERO)
    _, overage = split(total, [("included", pool.included)])
    priced = price_pool([SegmentUsage(terms.id, quantities, overage, events, clamped)], pool.charges)
    return [line for part in priced.parts for line in _part_lines(part, pool, meter, terms.currency, positions)]


def _part_lines(
    part: PricedPart, pool: Pool, meter: str, currency: str, positions: Mapping[ChargeId, int]
) -> list[QuotedLine]:
    charge = next(one for one in pool.charges if one.charge_id == part.charge_id)
    position = positions[part.charge_id]
    dimensions = sorted(charge.dimensions.items())
    lines = []
    if part.quantity or part.amount:
        words = usage_words(meter=meter, dimensions=dimensions, included=pool.included)
        components = tuple(component.document() for component in part.components)
        quantity = precise(part.quantity)
        lines.append(_line(LineKind.OVERAGE, words, quantity, part.amount, components, currency, position))
    if part.top_up:
        words = usage_words(meter=meter, dimensions=dimensions, included=None, minimum=True)
        lines.append(_line(LineKind.MINIMUM, words, _ZERO, part.top_up, (), currency, position))
    return lines


def _line(
    kind: LineKind,
    description: str,
    quantity: Decimal,
    amount: Fraction,
    components: tuple[dict[str, Any], ...],
    currency: str,
    charge: int | None = None,
) -> QuotedLine:
    return QuotedLine(
        kind.value, description, quantity, quantize(amount, currency), precise(amount), components, charge
    )


def _quote(lines: Sequence[QuotedLine], currency: str) -> Quote:
    with exact():
        amount = sum((line.amount for line in lines), _ZERO)
        amount_precise = sum((line.amount_precise for line in lines), _ZERO)
    components = tuple(component for line in lines for component in line.components)
    return Quote(amount, amount_precise, currency, components, tuple(lines))
