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
from metering.core.overage import PricedPart, PricedPool, SegmentUsage, price_pool
from metering.core.pools import Pool
from metering.selectors.terms import pools_of_version
from subscriptions.core.money import exact, precise, quantize
from subscriptions.core.pricing import RATES_WHOLE_VALUE, Price, clamp_event, rate
from subscriptions.models import Meter, TierVersion
from subscriptions.selectors.catalog import terms_of

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
    terms = terms_of(version.pk)
    lines = []
    if terms.fee:
        lines.append(_line(LineKind.FEE, terms.tier_name, Decimal(1), Fraction(terms.fee), (), terms.currency))
    meters = {meter.code: meter for meter in Meter.objects.filter(code__in={one.meter for one in usage})}
    used: dict[tuple[int, str], list[tuple[DimensionSet, QuotedUsage]]] = {}
    for index, one in enumerate(usage):
        meter = meters.get(one.meter)
        pools = pools_of_version(version.pk).get(meter.pk) if meter else None
        if meter is None or pools is None:
            message = f"is not charged by version {terms.number} of {terms.tier_code}"
            raise Invalid(
                "The usage cannot be priced.", errors=[FieldError(f"usage.{index}.meter", "unknown", message)]
            )
        names = tuple((name, one.dimensions.get(name, "")) for name in sorted(meter.dimensions))
        used.setdefault((meter.pk, pools.key_for(names)), []).append((names, one))
    for (meter_id, key), parts in used.items():
        pool = pools_of_version(version.pk)[meter_id].by_key[key]
        lines += _pool_lines(version, pool, parts, terms.currency)
    return _quote(lines, terms.currency)


def _pool_lines(
    version: TierVersion, pool: Pool, parts: Sequence[tuple[DimensionSet, QuotedUsage]], currency: str
) -> list[QuotedLine]:
    quantities: dict[DimensionSet, Decimal] = {}
    events: dict[DimensionSet, int] = {}
    clamped: dict[DimensionSet, Decimal] = {}
    for names, one in parts:
        with exact():
            quantities[names] = quantities.get(names, _ZERO) + one.quantity
        events[names] = events.get(names, 0) + one.events
        for charge in pool.charges:
            if charge.price.clamps_events:
                with exact():
                    clamped[names] = clamped.get(names, _ZERO) + clamp_event(charge.price, one.quantity)
    with exact():
        total = sum(quantities.values(), _ZERO)
    _, overage = split(total, [("included", pool.included)])
    priced = price_pool([SegmentUsage(version.pk, quantities, overage, events, clamped)], pool.charges)
    meter = parts[0][1].meter
    return [line for part in priced.parts for line in _part_lines(part, priced, pool, meter, currency)]


def _part_lines(part: PricedPart, priced: PricedPool, pool: Pool, meter: str, currency: str) -> list[QuotedLine]:
    charge = next(one for one in pool.charges if one.charge_id == part.charge_id)
    words = usage_words(
        meter=meter, dimensions=sorted(charge.dimensions.items()), included=pool.included, minimum=False
    )
    components = tuple(component.document() for component in part.components)
    lines = []
    if part.quantity or part.amount:
        quantity = precise(part.quantity)
        lines.append(_line(LineKind.OVERAGE, words, quantity, part.amount, components, currency))
    if part.top_up:
        lines.append(_line(LineKind.MINIMUM, f"{words}, minimum spend", _ZERO, part.top_up, (), currency))
    return lines


def _line(
    kind: LineKind,
    description: str,
    quantity: Decimal,
    amount: Fraction,
    components: tuple[dict[str, Any], ...],
    currency: str,
) -> QuotedLine:
    return QuotedLine(kind.value, description, quantity, quantize(amount, currency), precise(amount), components)


def _quote(lines: Sequence[QuotedLine], currency: str) -> Quote:
    with exact():
        amount = sum((line.amount for line in lines), _ZERO)
        amount_precise = sum((line.amount_precise for line in lines), _ZERO)
    components = tuple(component for line in lines for component in line.components)
    return Quote(amount, amount_precise, currency, components, tuple(lines))
