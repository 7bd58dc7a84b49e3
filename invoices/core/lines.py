"""
Invoice lines as values: what they say, how much of it, the one rounded amount, and the components that explain it.

Owns the rounding of a line and its words. Does not know what was billed before (it is told), nor where a line's sources are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from subscriptions.core.money import plain, precise, quantize
from subscriptions.core.proration import Share

ComponentDocument = Mapping[str, Any]

_ONE = Fraction(1)


class LineKind(StrEnum):
    """What a line bills, in the order in which an invoice lists them."""

    FEE = "fee"
    PRORATION = "proration"
    OVERAGE = "overage"
    MINIMUM = "minimum"


LINE_ORDER: Mapping[LineKind, int] = {kind: place for place, kind in enumerate(LineKind)}


@dataclass(frozen=True, slots=True)
class LineValues:
    """
    The content of a line. `amount` is in whole minor units; `amount_precise` is what it was rounded from.

    The totals of `components` sum to `amount_precise`, up to the rounding of endless decimals when they are written.
    """

    kind: LineKind
    description: str
    quantity: Fraction
    unit_amount: Decimal | None
    amount: Decimal
    amount_precise: Fraction
    components: tuple[ComponentDocument, ...]


@dataclass(frozen=True, slots=True)
class InvoicedBefore:
    """
    What other lines, not void, bill of the same charge and period: Σ of their rounded amounts, and of their units.

    `bookings` is how many bookings the cumulative amount was taken over, so that a verification counts up to the same point.
    """

    amount: Decimal
    quantity: Fraction
    bookings: int

    def component(self) -> ComponentDocument:
        """Return the component that takes it off the cumulative amount."""
        return {
            "kind": "invoiced_before",
            "band": None,
            "quantity": plain(precise(-self.quantity)),
            "unit_amount": None,
            "flat_amount": None,
            "total": plain(-self.amount),
            "bookings": self.bookings,
        }


def fee_line(
    *,
    kind: LineKind,
    description: str,
    amount: Decimal,
    whole: Decimal,
    share: Share,
    grain: str,
    currency: str,
) -> LineValues:
    """
    Return the line of a fee item, whose `amount` was rounded when the item was made.

    `whole` is the amount of which the share was taken: the version's fee, or, negative, the fee that a credit gives a part of back.
    A credit that was cut to what was left of its fee is no share any more: it is precise as it stands.
    """
    amount_precise, component = _explained_fee(amount, whole, share, grain, currency)
    return LineValues(kind, description, _ONE, amount, amount, amount_precise, (component,))


# Thousands of tenants pay the fee of a few versions.
@lru_cache(maxsize=1024)
def _explained_fee(
    amount: Decimal, whole: Decimal, share: Share, grain: str, currency: str
) -> tuple[Fraction, ComponentDocument]:
    """Return what the amount was rounded from, and the component that explains it. Do not change the answer: it is shared."""
    share_precise = Fraction(whole) * share.fraction
    amount_precise = share_precise if quantize(share_precise, currency) == amount else Fraction(amount)
    component: dict[str, Any] = {
        "kind": "fee" if share.fraction == 1 else "share",
        "band": None,
        "quantity": plain(precise(share.fraction)),
        "unit_amount": plain(whole),
        "flat_amount": None,
        "total": plain(precise(amount_precise)),
    }
    if share.fraction != 1:
        component |= {"numerator": share.numerator, "divisor": share.divisor, "grain": grain}
    return amount_precise, component


def usage_line(
    *,
    kind: LineKind,
    description: str,
    quantity: Fraction | Decimal,
    cumulative: Fraction,
    before: InvoicedBefore | None,
    unit_amount: Decimal | None,
    components: Sequence[ComponentDocument],
    currency: str,
) -> LineValues | None:
    """
    Return the line that brings a charge's rounded total for a period up to `cumulative`; None when there is nothing to say.

    The amount is quantize(cumulative) − what other lines billed, so that however often a period is billed in parts, the parts sum to the
    cumulative amount rounded once. `quantity` is the units of this line; negative, like the amount, when usage was taken back.
    Source: semantics, "Overage".

    >>> before = InvoicedBefore(Decimal("0.01"), Fraction(40), bookings=2)
    >>> usage_line(kind=LineKind.OVERAGE, description="Tokens", quantity=Fraction(40), cumulative=Fraction("0.016"), before=before,
    ...     unit_amount=Decimal("0.0002"), components=(), currency="USD").amount
    Decimal('0.01')
    """
    amount = quantize(cumulative, currency)
    if before:
        amount = quantize(amount - before.amount, currency)
    if not amount and not quantity:
        return None
    explained = (*components, before.component()) if before else tuple(components)
    return LineValues(
        kind,
        description,
        Fraction(quantity),
        unit_amount,
        amount,
        cumulative - Fraction(before.amount) if before else cumulative,
        explained,
    )


# The lines of an invoice share it, and so do tenants whose periods are the calendar's.
@lru_cache(maxsize=4096)
def span_words(starts_at: datetime, ends_at: datetime, zone: str) -> str:
    """
    Write a half-open span as a reader says it: by its first and last local day, or to the minute where it does not keep to days.

    >>> from datetime import UTC
    >>> june, july = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
    >>> span_words(june, july, "UTC")
    '1 June 2026 – 30 June 2026'
    >>> span_words(june, july, "Asia/Tokyo")
    '1 June 2026 09:00 – 1 July 2026 09:00'
    """
    local_start, local_end = starts_at.astimezone(ZoneInfo(zone)), ends_at.astimezone(ZoneInfo(zone))
    if local_start.time() == local_end.time() == time(0):
        last_day = local_end.date() - timedelta(days=1)
        if last_day <= local_start.date():
            return _day_words(local_start)
        return f"{_day_words(local_start)} – {_day_words(local_end - timedelta(days=1))}"
    return f"{_day_words(local_start)} {local_start:%H:%M} – {_day_words(local_end)} {local_end:%H:%M}"


def instant_words(instant: datetime, zone: str) -> str:
    """
    Write an instant as a reader of the zone says it: by its day, and to the minute where it is not that day's beginning.

    >>> from datetime import UTC
    >>> instant_words(datetime(2026, 6, 15, tzinfo=UTC), "UTC"), instant_words(datetime(2026, 6, 15, tzinfo=UTC), "Asia/Tokyo")
    ('15 June 2026', '15 June 2026 09:00')
    """
    local = instant.astimezone(ZoneInfo(zone))
    return _day_words(local) if local.time() == time(0) else f"{_day_words(local)} {local:%H:%M}"


def share_words(share: Share, grain: str) -> str:
    """
    Write what part of a fee a line is for, where days say it; nothing for a whole fee or a share of seconds, which components show.

    >>> share_words(Share(16, 30), "day"), share_words(Share(30, 30), "day")
    (' (16 of 30 days)', '')
    """
    if grain != "day" or share.numerator == share.divisor:
        return ""
    return f" ({share.numerator} of {share.divisor} days)"


def usage_words(
    *, meter: str, dimensions: Sequence[tuple[str, str]], included: Decimal | None, minimum: bool = False
) -> str:
    """
    Write what a usage line is for, without its period.

    >>> usage_words(meter="Tokens", dimensions=[("model", "opus")], included=Decimal("10000"))
    'Tokens (model: opus) beyond the 10,000 included'
    >>> usage_words(meter="Tokens", dimensions=[], included=Decimal(0), minimum=True)
    'Tokens, up to the agreed minimum'
    """
    named = meter
    if dimensions:
        named += " (" + ", ".join(f"{name}: {value or 'none'}" for name, value in dimensions) + ")"
    if minimum:
        return f"{named}, up to the agreed minimum"
    return f"{named} beyond the {grouped(included)} included" if included else named


def grouped(quantity: Decimal) -> str:
    """
    Write a quantity with its thousands grouped and nothing superfluous behind the point.

    >>> grouped(Decimal("18295870.500"))
    '18,295,870.5'
    """
    return f"{Decimal(plain(quantity)):,f}"


def _day_words(day: datetime) -> str:
    return f"{day.day} {day:%B %Y}"
