"""The lines that an invoice drafted now would have: unbilled sources turned into lines by the core."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from invoices.core.lines import (
    LINE_ORDER,
    LineKind,
    LineValues,
    fee_line,
    share_words,
    span_words,
    usage_line,
    usage_words,
)
from invoices.selectors.sources import UnbilledCharge, UnbilledFee, unbilled_charges, unbilled_fee_items
from metering.selectors.terms import pools_of_version
from subscriptions.core.money import exact
from subscriptions.core.pricing import Price, PriceModel
from subscriptions.core.proration import Share
from subscriptions.models import Charge, FeeItem, TierVersion
from subscriptions.selectors.catalog import terms_of


@dataclass(frozen=True, slots=True)
class BillableLine:
    """
    A line with the rows that it names and the sources that it will hold: a fee item (in arrears with what was given back of it before), or
    bookings of one charge.
    """

    values: LineValues
    period_id: int
    version_id: int
    charge_id: int | None = None
    fee_item_ids: Sequence[int] = ()
    booking_ids: Sequence[int] = ()


def billable_lines(*, until: Mapping[int, datetime | None], zones: Mapping[int, str]) -> dict[int, list[BillableLine]]:
    """
    Return the lines of everything unbilled, by subscription id: fees, proration, overage, minimums, each in the order of time.

    `until` names the subscriptions: fee items count when billable at that instant or before (None: all), usage when its period has closed.
    What comes to nothing (usage recorded and taken back) has no line. `zones` are the tenants', in which days are written. The number of
    queries does not grow with that of the subscriptions.
    """
    items, charges = unbilled_fee_items(until=until), unbilled_charges(subscription_ids=until)
    tiers = _tier_names({item.version_id for of_one in items.values() for item in of_one})
    alike: dict[tuple[int, str, str, int], _UsageWords] = {}
    found = {}
    for subscription_id in until:
        zone = zones[subscription_id]
        lines = [
            _line_of_item(item, tiers[item.version_id], zone, given_back)
            for item, given_back in _with_credits(items.get(subscription_id, []))
        ]
        for charge in charges.get(subscription_id, []):
            key = (charge.charge.pk, charge.pool, charge.kind, charge.terms_id)
            if key not in alike:
                alike[key] = _usage_words(charge)
            if line := _line_of_charge(charge, alike[key], zone):
                lines.append(line)
        found[subscription_id] = sorted(lines, key=lambda line: LINE_ORDER[line.values.kind])
    return found


def included_in_pool(pool: str, meter_id: int, terms_id: int) -> Decimal | None:
    """Return the allowance of a meter's pool on the terms of this id; None where they have no such pool."""
    pools = pools_of_version(terms_id).get(meter_id)
    found = pools.by_key.get(pool) if pools else None
    return found.included if found else None


def price_of_charge(charge: Charge) -> Price:
    """Return the price of a published charge, from the terms that each process reads once."""
    return next(terms.price for terms in terms_of(charge.version_id).charges if terms.id == charge.pk)


def whole_amount(version_id: int, *, credited: Decimal | None) -> Decimal:
    """Return the amount of which a fee item is a share: the version's fee, or, negative, that of the item that a credit gives back."""
    return terms_of(version_id).fee if credited is None else -credited


def _tier_names(version_ids: Iterable[int]) -> dict[int, str]:
    return dict(TierVersion.objects.filter(pk__in=version_ids).values_list("pk", "tier__name"))


_FEE_WORDS = {
    FeeItem.Kind.FEE.value: "{tier}",
    FeeItem.Kind.CREDIT.value: "{tier}, credit for unused time",
    FeeItem.Kind.CHARGE.value: "{tier}, remaining time",
}


def line_of_item(item: UnbilledFee, zone: str) -> BillableLine:
    """Return the line of one fee item, billed or not, by itself."""
    return _line_of_item(item, _tier_names([item.version_id])[item.version_id], zone, ())


def _with_credits(items: Sequence[UnbilledFee]) -> list[tuple[UnbilledFee, list[UnbilledFee]]]:
    """
    Put the credits beside the fee in arrears that they give back a part of: what was never billed is not given back, but billed for less.

    A fee in advance stands by itself, and so does a credit of something that was billed before.
    """
    in_arrears = {item.pk: item for item in items if item.kind != FeeItem.Kind.CREDIT and _is_in_arrears(item)}
    credits: dict[int, list[UnbilledFee]] = {}
    for item in items:
        if item.credits_id in in_arrears:
            credits.setdefault(item.credits_id, []).append(item)
    return [(item, credits.get(item.pk, [])) for item in items if item.credits_id not in in_arrears]


def _is_in_arrears(item: UnbilledFee) -> bool:
    return terms_of(item.version_id).fee_timing == TierVersion.FeeTiming.ARREARS


def _line_of_item(item: UnbilledFee, tier: str, zone: str, given_back: Sequence[UnbilledFee]) -> BillableLine:
    share, ends_at, amount = Share(item.share_numerator, item.share_divisor), item.span_ends_at, item.amount
    grain = item.share_grain
    for credit in given_back:
        share = _less(share, Share(credit.share_numerator, credit.share_divisor))
        ends_at, grain = min(ends_at, credit.span_starts_at), credit.share_grain
        with exact():
            amount += credit.amount
    words = _FEE_WORDS[item.kind].format(tier=tier)
    span = span_words(item.span_starts_at, ends_at, zone)
    values = fee_line(
        kind=LineKind.FEE if item.kind == FeeItem.Kind.FEE else LineKind.PRORATION,
        description=f"{words}, {span}{share_words(share, grain)}",
        amount=amount,
        whole=whole_amount(item.version_id, credited=item.credits__amount),
        share=share,
        grain=grain,
        currency=item.currency,
    )
    ids = [item.pk, *(credit.pk for credit in given_back)]
    return BillableLine(values, item.period_id, item.version_id, fee_item_ids=ids)


def _less(share: Share, unused: Share) -> Share:
    """Return what is left of a share of a fee, of which a share is unused; in the days of the whole where both are."""
    used = unused.divisor - unused.numerator
    if share.numerator == unused.divisor:
        return Share(used, share.divisor)
    if share.numerator == share.divisor:
        return Share(used, unused.divisor)
    left = share.fraction * Fraction(used, unused.divisor)
    return Share(left.numerator, left.denominator)


@dataclass(frozen=True, slots=True)
class _UsageWords:
    """What the lines of a charge say alike, whoever's they are."""

    words: str
    unit_amount: Decimal | None


def _usage_words(unbilled: UnbilledCharge) -> _UsageWords:
    charge, kind = unbilled.charge, LineKind(unbilled.kind)
    assert charge.meter is not None  # a constraint: usage has its meter
    words = usage_words(
        meter=charge.meter.name,
        dimensions=sorted(charge.dimensions.items()),
        included=included_in_pool(unbilled.pool, charge.meter.pk, unbilled.terms_id),
        minimum=kind is LineKind.MINIMUM,
    )
    return _UsageWords(words, _one_price(price_of_charge(charge)) if kind is LineKind.OVERAGE else None)


def _line_of_charge(unbilled: UnbilledCharge, alike: _UsageWords, zone: str) -> BillableLine | None:
    latest, charge, period = unbilled.latest, unbilled.charge, unbilled.period
    values = usage_line(
        kind=LineKind(unbilled.kind),
        description=f"{alike.words}, {span_words(period.starts_at, period.ends_at, zone)}",
        quantity=unbilled.quantity,
        cumulative=unbilled.cumulative,
        before=unbilled.before,
        unit_amount=alike.unit_amount,
        components=latest.components,
        currency=latest.currency,
    )
    if values is None:
        return None
    return BillableLine(values, unbilled.period_id, charge.version_id, charge.pk, booking_ids=unbilled.booking_ids)


def _one_price(price: Price) -> Decimal | None:
    """Return the price of one unit where that alone explains the amount; None where bands, rates or conversions decide."""
    is_plain = price.model == PriceModel.PER_UNIT and price.transform is None and not price.percent_discount
    return price.unit_amount if is_plain else None
