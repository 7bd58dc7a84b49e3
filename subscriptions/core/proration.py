"""
Proration: what part of a fee or an allowance belongs to part of a period.

Owns shares of a period, by day or by the second, and what follows from them: amounts, credits, allowances. Does not own when a tier
changes or what was billed before (`services`), nor where periods end (`periods`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from subscriptions.core import money
from subscriptions.core.periods import Period, local_days

_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)


class Grain(StrEnum):
    """The unit in which a period is divided: whole local days, or exact elapsed time."""

    DAY = "day"
    SECOND = "second"


@dataclass(frozen=True, slots=True)
class Share:
    """
    The part `numerator / divisor` of a period, from nothing to the whole; in days, seconds or microseconds, not reduced.

    The divisor is always the whole period or fee span, so it reads as an invoice prints it: 16 of 30 days. Raises ValueError for less than
    nothing or more than the whole.
    """

    numerator: int
    divisor: int

    def __post_init__(self) -> None:
        if not 0 <= self.numerator <= self.divisor or self.divisor < 1:
            raise ValueError(f"{self.numerator}/{self.divisor} is not between nothing and the whole")

    @property
    def fraction(self) -> Fraction:
        return Fraction(self.numerator, self.divisor)


def share_of(used_from: datetime, used_until: datetime, period: Period, *, grain: Grain, zone: str) -> Share:
    """
    Return the part of the period that lies in [used_from, used_until).

    By `day`, the local day of `used_from` counts whole and that of `used_until` not at all. By `second`, elapsed time, in whole seconds
    where both figures are, else in microseconds; so is a period by `day` that starts and ends on the same local day. Time outside the
    period does not count. Shares of consecutive parts sum to the share of their union. Raises ValueError for an empty period, an unknown grain,
    or when `used_until` is before `used_from`.

    >>> from datetime import UTC
    >>> june = Period(datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 7, 1, tzinfo=UTC))
    >>> share_of(datetime(2024, 6, 14, 10, tzinfo=UTC), june.ends_at, june, grain=Grain.DAY, zone="UTC")
    Share(numerator=17, divisor=30)
    >>> share_of(datetime(2024, 6, 14, 10, tzinfo=UTC), june.ends_at, june, grain=Grain.SECOND, zone="UTC")
    Share(numerator=1432800, divisor=2592000)
    """
    used = Period(used_from, used_until)
    if not period.length:
        raise ValueError("an empty period has no parts")
    starts_at = min(max(used.starts_at, period.starts_at), period.ends_at)
    ends_at = min(max(used.ends_at, period.starts_at), period.ends_at)

    days = _divisor_in_days(period, grain=grain, zone=zone)
    if days:
        return Share(local_days(starts_at, ends_at, zone), days)
    return _elapsed_share(ends_at - starts_at, period.length)


def used_share(period: Period, change_at: datetime, *, grain: Grain, zone: str) -> Share:
    """Return the old tier's part of the period: up to the change, and by `day` without the day of the change."""
    return share_of(period.starts_at, max(change_at, period.starts_at), period, grain=grain, zone=zone)


def remaining_share(period: Period, change_at: datetime, *, grain: Grain, zone: str) -> Share:
    """Return the new tier's part of the period: from the change on, and by `day` with the whole day of the change."""
    return share_of(min(change_at, period.ends_at), period.ends_at, period, grain=grain, zone=zone)


def unused_share(period: Period, ended_at: datetime, *, grain: Grain, zone: str) -> Share:
    """
    Return the part of the period that cancelling or pausing at `ended_at` leaves unused.

    By `day`, the day of cancelling counts as used, unlike the day of a change, which somebody else uses: the new tier. By `second` the two are
    the same.

    >>> from datetime import UTC
    >>> february = Period(datetime(2025, 2, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC))
    >>> unused_share(february, datetime(2025, 2, 8, 12, tzinfo=UTC), grain=Grain.DAY, zone="UTC")
    Share(numerator=20, divisor=28)
    """
    remaining = remaining_share(period, ended_at, grain=grain, zone=zone)
    if _divisor_in_days(period, grain=grain, zone=zone):
        return Share(max(remaining.numerator - 1, 0), remaining.divisor)
    return remaining


def prorate(amount: Decimal, share: Share, *, currency: str) -> Decimal:
    """
    Return the share of an amount as a line of an invoice: rounded once, half up, to the currency.

    >>> prorate(Decimal("499"), Share(16, 30), currency="JPY"), prorate(Decimal("499"), Share(16, 30), currency="KWD")
    (Decimal('266'), Decimal('266.133'))
    """
    return money.quantize(prorate_precise(amount, share), currency)


def prorate_precise(amount: Decimal, share: Share) -> Fraction:
    """Return the share of an amount, unrounded."""
    return money.as_fraction(amount) * share.fraction


def credit_for(*, charged: Decimal, share: Share, already_credited: Decimal, currency: str) -> Decimal:
    """
    Return the credit, negative or zero, for the unused share of a fee that was charged.

    `charged` is what the customer owes or paid for the fee, after its discount; `already_credited` is how much of it earlier credits gave
    back, as a positive amount. Rounded once, half up; never more than what is left. Raises ValueError when either is negative.

    >>> credit_for(charged=Decimal("99.00"), share=Share(16, 30), already_credited=Decimal("0"), currency="USD")
    Decimal('-52.80')
    >>> credit_for(charged=Decimal("99.00"), share=Share(16, 30), already_credited=Decimal("90.00"), currency="USD")
    Decimal('-9.00')
    """
    if charged < 0 or already_credited < 0:
        raise ValueError("what was charged and what was credited are given as positive amounts")
    left = max(money.as_fraction(charged) - money.as_fraction(already_credited), Fraction(0))
    return money.quantize(-min(Fraction(prorate(charged, share, currency=currency)), left), currency)


def prorated_allowance(parts: Sequence[tuple[Decimal, Share]], *, precision: int) -> Decimal:
    """
    Return the allowance of a period over which several versions were in force: Σ allowance × share.

    Rounded once, on the total, half up to the meter's precision, so that equal versions give the whole allowance however often they change.

    >>> prorated_allowance([(Decimal("10000"), Share(14, 30)), (Decimal("100000"), Share(16, 30))], precision=0)
    Decimal('58000')
    """
    total = sum((money.as_fraction(allowance) * share.fraction for allowance, share in parts), Fraction(0))
    return money.round_half_up(total, places=precision)


def _divisor_in_days(period: Period, *, grain: Grain, zone: str) -> int:
    """Return the local days of the whole period; 0 where it is to be divided by elapsed time."""
    return local_days(period.starts_at, period.ends_at, zone) if Grain(grain) is Grain.DAY else 0


def _elapsed_share(used: timedelta, whole: timedelta) -> Share:
    unit = _MICROSECOND if used % _SECOND or whole % _SECOND else _SECOND
    return Share(used // unit, whole // unit)
