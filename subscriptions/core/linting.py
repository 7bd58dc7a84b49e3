"""
The linter: what of a version is most likely not what its author means.

Each rule is a function of values that a version document holds, and its answer is a sentence for who sets prices. What is a warning may be
meant; what blocks cannot be, and is not published. Rules that need usage are metering's (`metering.selectors.linting`). Ranges count units
as the price sees them: beyond the allowance.

That per-event bounds do not go with free events, and that no amount is negative, is no finding: `price_documents` refuses to save either.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

from subscriptions.core.cliffs import band_edges, cliffs, counts_whole
from subscriptions.core.money import minor_units, plain, precise, round_half_up
from subscriptions.core.price_models import hundredth
from subscriptions.core.prices import RATES_WHOLE_VALUE, Operation, Price, PriceModel, ZeroUsage
from subscriptions.core.pricing import rate

PLAUSIBLE_UNITS = 1_000_000
"""Usage of a period that a customer may well have: what it costs should not round to nothing."""
_SHOWN_PLACES = 6


class Severity(StrEnum):
    """What a finding does to publishing."""

    WARNING = "warning"
    BLOCKING = "blocking"


class Rule(StrEnum):
    """What is looked for."""

    VOLUME_CLIFF = "volume_cliff"
    NEGATIVE_MARGINAL_PRICE = "negative_marginal_price"
    OVERAGE_CHEAPER_THAN_INCLUDED = "overage_cheaper_than_included"
    UNREACHABLE_BAND = "unreachable_band"
    BAND_BEYOND_CAP = "band_beyond_cap"
    ROUNDS_TO_NOTHING = "rounds_to_nothing"
    CHARGES_NOTHING = "charges_nothing"
    FREE_EVENTS_WITHOUT_AMOUNT = "free_events_without_amount"
    MARGIN_BELOW_ZERO = "margin_below_zero"
    UNPRICED_USAGE = "unpriced_usage"


BLOCKING = frozenset({Rule.NEGATIVE_MARGINAL_PRICE, Rule.UNREACHABLE_BAND})


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing found, at the place that the version document names ("charges.0.price.bands.1").

    `from_units` and `to_units` bound the usage in which it shows; None as the upper bound is no bound, and none at all where it shows
    whatever is used.
    """

    rule: Rule
    path: str
    message: str
    from_units: Decimal | None = None
    to_units: Decimal | None = None

    @property
    def severity(self) -> Severity:
        """Whether it keeps the version from being published."""
        return Severity.BLOCKING if self.rule in BLOCKING else Severity.WARNING


@dataclass(frozen=True, slots=True)
class LintedCharge:
    """What the rules read of one usage charge. `path` is its place in the document."""

    path: str
    price: Price
    included: Decimal = Decimal(0)
    # Whether the gate ends usage with the allowance, and the overage at which it does otherwise.
    ends_at_allowance: bool = False
    overage_quantity_max: Decimal | None = None

    @property
    def price_path(self) -> str:
        """Where its price stands."""
        return f"{self.path}.price"


def lint(*, currency: str, fee: Fraction, charges: Sequence[LintedCharge]) -> list[Finding]:
    """
    Return what the rules find in a version: its blocking findings first, then in the order of its charges.

    `fee` is that of one billing period, in major units of `currency`.
    """
    found = [finding for charge in charges for rule in _RULES for finding in rule(charge, currency)]
    found += _cheaper_than_included(currency, fee, charges)
    return sorted(found, key=lambda finding: finding.severity != Severity.BLOCKING)


def _falls(charge: LintedCharge, currency: str) -> Iterator[Finding]:
    """
    A volume price whose next band makes all units cheaper. Where the amount is reached again it is a cliff, common and perhaps meant;
    where it never is, the price of more usage is negative for good.
    """
    for cliff in cliffs(charge.price):
        starts_at = precise(cliff.starts_at)
        before = f"{_number(cliff.starts_at)} units cost {_money(cliff.amount, currency)}"
        path = f"{charge.price_path}.bands.{cliff.band}"
        if cliff.ends_at is None:
            message = f"{before}, and any more cost less than that, however many they are."
            yield Finding(Rule.NEGATIVE_MARGINAL_PRICE, path, message, starts_at)
        else:
            message = f"{before}; using more costs less than that, up to {_number(cliff.ends_at)} units."
            yield Finding(Rule.VOLUME_CLIFF, path, message, starts_at, precise(cliff.ends_at))


def _unreachable(charge: LintedCharge, currency: str) -> Iterator[Finding]:
    """A band in which no usage ends, because the transform leaves whole units only and the band has none."""
    price = charge.price
    if not price.bands or not counts_whole(price):
        return
    edges = band_edges(price)
    for number, (lower, upper) in enumerate(pairwise(edges)):
        is_entered_at_zero = number == 0 and price.zero_usage == ZeroUsage.FIRST_TIER_FLAT
        if floor(lower) == floor(upper) and not is_entered_at_zero:
            message = "No usage ever falls into this band: units are rounded to whole ones first, and it holds none."
            yield Finding(Rule.UNREACHABLE_BAND, f"{charge.price_path}.bands.{number}", message)


def _beyond_cap(charge: LintedCharge, currency: str) -> Iterator[Finding]:
    """A band that begins where the gate has ended the overage, or where the maximum spend is reached already."""
    price, cap = charge.price, _cap(charge)
    untransformed = replace(price, transform=None)
    for number, lower in enumerate(band_edges(price)[1:] if price.bands else [], start=1):
        path = f"{charge.price_path}.bands.{number}"
        if cap is not None and lower >= cap:
            message = (
                f"Overage ends at {_number(Fraction(charge.overage_quantity_max or 0))} units, before this band begins."
            )
            yield Finding(Rule.BAND_BEYOND_CAP, path, message)
        elif (
            price.model != PriceModel.VOLUME
            and price.amount_max is not None
            and rate(untransformed, lower).amount >= price.amount_max
        ):
            reached = f"The maximum spend of {_money(Fraction(price.amount_max), currency)} is reached"
            yield Finding(Rule.BAND_BEYOND_CAP, path, f"{reached} before this band begins.")


def _cap(charge: LintedCharge) -> Fraction | None:
    """Return the overage at which the gate ends it, in transformed units."""
    if charge.overage_quantity_max is None:
        return None
    cap = Fraction(charge.overage_quantity_max) * _conversion(charge.price)
    return Fraction(ceil(cap)) if counts_whole(charge.price) else cap


def _rounds_to_nothing(charge: LintedCharge, currency: str) -> Iterator[Finding]:
    """An amount above 0 that, for PLAUSIBLE_UNITS in one period, is below half of the currency's smallest unit: a line of nothing."""
    if is_free(replace(charge.price, amount_min=None)) or charge.price.clamps_events:
        return
    for path, price in _priced_parts(charge):
        amount = rate(price, PLAUSIBLE_UNITS, events=PLAUSIBLE_UNITS).amount
        if amount * 2 * 10 ** minor_units(currency) < 1:
            message = f"{_number(Fraction(PLAUSIBLE_UNITS))} units come to {_money(amount, currency, exact=True)}, which an invoice rounds to nothing."
            yield Finding(Rule.ROUNDS_TO_NOTHING, path, message)


def _priced_parts(charge: LintedCharge) -> Iterator[tuple[str, Price]]:
    """Yield what has an amount per unit of its own, each as a price without free units: the bands, else the price itself."""
    price = charge.price
    if not price.bands:
        yield charge.price_path, replace(price, free_units=Decimal(0), free_value=Decimal(0), free_events=0)
    for number, band in enumerate(price.bands):
        if not band.unit_amount:
            continue
        if price.model == PriceModel.GRADUATED_PERCENTAGE:
            alone = Price(PriceModel.PERCENTAGE, rate=band.unit_amount)
        else:
            alone = Price(PriceModel.PER_UNIT, unit_amount=band.unit_amount)
        alone = replace(alone, transform=price.transform, percent_discount=price.percent_discount)
        yield f"{charge.price_path}.bands.{number}", alone


def _charges_nothing(charge: LintedCharge, currency: str) -> Iterator[Finding]:
    """A price of nothing, where usage may go on beyond the allowance."""
    if is_free(charge.price) and not charge.ends_at_allowance:
        message = "Usage beyond the allowance costs nothing, and nothing stops it."
        yield Finding(Rule.CHARGES_NOTHING, charge.price_path, message)


def is_free(price: Price) -> bool:
    """
    Whether no usage ever costs anything.

    >>> is_free(Price(PriceModel.PER_UNIT, unit_amount=Decimal(1), percent_discount=Decimal(100)))
    True
    """
    amounts = [
        price.unit_amount,
        price.amount,
        price.rate,
        price.multiplier,
        price.fixed_amount,
        price.minimum_per_event,
    ]
    amounts += [amount for band in price.bands for amount in (band.unit_amount, band.flat_amount)]
    is_bounded_to_nothing = price.percent_discount == 100 or price.amount_max == 0 or price.maximum_per_event == 0
    return not price.amount_min and (is_bounded_to_nothing or not any(amounts))


def _idle_free_events(charge: LintedCharge, currency: str) -> Iterator[Finding]:
    """Free events, where no event has an amount of its own that it could be freed of."""
    price = charge.price
    if price.free_events and not price.fixed_amount:
        message = f"The {price.free_events:,} free events free nothing: there is no fixed amount per event."
        yield Finding(Rule.FREE_EVENTS_WITHOUT_AMOUNT, f"{charge.price_path}.free_events", message)


def _sold_at_a_loss(charge: LintedCharge, currency: str) -> Iterator[Finding]:
    """A dynamic price, which passes on the cost that events carry, at less than that cost."""
    price = charge.price
    if price.model != PriceModel.DYNAMIC or price.multiplier is None or is_free(price):
        return
    factor = Fraction(price.multiplier) * (1 - Fraction(hundredth(price.percent_discount))) * _conversion(price)
    if factor < 1:
        message = f"Each 1.00 of cost is sold for {_number(factor)}."
        yield Finding(Rule.MARGIN_BELOW_ZERO, charge.price_path, message)


def _cheaper_than_included(currency: str, fee: Fraction, charges: Sequence[LintedCharge]) -> Iterator[Finding]:
    """
    As many units again as are included, bought beyond the allowance, for less than the fee.

    Then a tier without allowance would be the better offer. Asked only where one charge alone has an allowance, because the fee of several
    belongs to none of them, and only of units that are sold one by one.
    """
    with_allowance = [charge for charge in charges if charge.included]
    if not fee or len(with_allowance) != 1:
        return
    [charge] = with_allowance
    price, included = charge.price, Fraction(charge.included)
    is_sold = price.model not in {*RATES_WHOLE_VALUE, PriceModel.FLAT} and not charge.ends_at_allowance
    if not is_sold or is_free(price):
        return
    amount = rate(price, included).amount
    if amount < fee:
        message = (
            f"The fee makes an included unit cost {_money(fee / included, currency)}; "
            f"as many again beyond the allowance cost {_money(amount / included, currency)} each."
        )
        yield Finding(Rule.OVERAGE_CHEAPER_THAN_INCLUDED, charge.price_path, message)


_RULES: Sequence[Callable[[LintedCharge, str], Iterator[Finding]]] = (
    _falls,
    _unreachable,
    _beyond_cap,
    _rounds_to_nothing,
    _charges_nothing,
    _idle_free_events,
    _sold_at_a_loss,
)


def _conversion(price: Price) -> Fraction:
    """Return the factor of the transform, without its rounding."""
    if price.transform is None:
        return Fraction(1)
    by = Fraction(price.transform.by)
    return by if price.transform.operation == Operation.MULTIPLY else 1 / by


def _money(amount: Fraction, currency: str, *, exact: bool = False) -> str:
    """Write an amount for reading: with the decimals of its currency, and up to _SHOWN_PLACES where it has them, all where `exact`."""
    number = precise(amount) if exact else round_half_up(amount, places=_SHOWN_PLACES)
    whole, _, decimals = f"{Decimal(plain(number)):,f}".partition(".")
    decimals = decimals.ljust(minor_units(currency), "0")
    return f"{whole}.{decimals} {currency}" if decimals else f"{whole} {currency}"


def _number(number: Fraction) -> str:
    return f"{Decimal(plain(round_half_up(number, places=_SHOWN_PLACES))):,f}"
