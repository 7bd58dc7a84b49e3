"""A tier's guards: what a new price may do to its customers at most, and what of that a backtest found broken."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil

from subscriptions.core.money import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """By how many percent a tenant's bill may rise, and the revenue of all may fall; None: without limit. False where there is none."""

    rise_percent_max: Decimal | None = None
    revenue_fall_percent_max: Decimal | None = None

    def __bool__(self) -> bool:
        return self.rise_percent_max is not None or self.revenue_fall_percent_max is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    What a price does, in percent of what is paid now: to the tenant whose bill rises most, and to the revenue of all (negative: a fall).

    The rise is infinite where a tenant who pays nothing now would pay something. None: nobody pays anything now, or would.
    """

    largest_rise_percent: Decimal | None
    revenue_change_percent: Decimal | None


@dataclass(frozen=True, slots=True)
class Breach:
    """That a guard does not hold: which one, and a sentence for who sets the price."""

    guard: str
    message: str


def worst(found: Iterable[Figures]) -> Figures:
    """Return the largest rise and the largest fall of several backtests: one that looks elsewhere hides nothing."""
    every = list(found)
    rises = [one.largest_rise_percent for one in every if one.largest_rise_percent is not None]
    changes = [one.revenue_change_percent for one in every if one.revenue_change_percent is not None]
    return Figures(largest_rise_percent=max(rises, default=None), revenue_change_percent=min(changes, default=None))


def breaches(limits: Limits, figures: Figures) -> list[Breach]:
    """
    Return the guards that do not hold; what reaches a limit exactly is within it.

    >>> limits = Limits(rise_percent_max=Decimal(20))
    >>> [one.message for one in breaches(limits, Figures(largest_rise_percent=Decimal("20.001"), revenue_change_percent=None))]
    ['A customer would pay 20.01 % more; more than 20 % is not meant to be.']
    """
    found = []
    rise, fall = figures.largest_rise_percent, figures.revenue_change_percent
    if limits.rise_percent_max is not None and rise is not None and rise > limits.rise_percent_max:
        much = f"{percent(rise)} % more" if rise.is_finite() else "something who pays nothing now"
        most = plain(limits.rise_percent_max)
        found.append(Breach("rise_percent_max", f"A customer would pay {much}; more than {most} % is not meant to be."))
    if limits.revenue_fall_percent_max is not None and fall is not None and fall < -limits.revenue_fall_percent_max:
        most = plain(limits.revenue_fall_percent_max)
        message = f"Revenue would fall by {percent(-fall)} %; more than {most} % is not meant to be."
        found.append(Breach("revenue_fall_percent_max", message))
    return found


def percent(number: Decimal) -> str:
    """
    Write a percentage with at most two decimals, cut away from zero, so that what is beyond a limit looks so.

    >>> percent(Decimal("20.001")), percent(Decimal("-2.5")), percent(Decimal(3))
    ('20.01', '-2.5', '3')
    """
    hundredths = ceil(abs(Fraction(number)) * 100)
    return plain(Decimal(f"{'-' if number < 0 else ''}{hundredths}E-2"))
