"""
Changing the version in the middle of a period: the choices, and what they make of the period's allowance.

Owns no fees: their credits and charges are shares of a span (`proration`). Source: semantics, "Changing tier in mid-period".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from subscriptions.core.periods import Period
from subscriptions.core.proration import Grain, Share, prorated_allowance, remaining_share


class ChangeFee(StrEnum):
    """What a change does with fees."""

    PRORATE = "prorate"
    FULL = "full"  # the new one whole, and nothing given back
    NONE = "none"


class ChangeAllowance(StrEnum):
    """What a change does with the period's allowance."""

    PRORATED = "prorated"
    FULL_NEW = "full_new"  # it becomes the new figure: that replaces, and never adds
    RESET = "reset"  # the period ends at that instant, and another begins


class ChangeBill(StrEnum):
    """When a change is billed: on the next invoice, or by one of its own."""

    NEXT = "next"
    NOW = "now"


@dataclass(frozen=True, slots=True)
class Choices:
    """How a version is changed; stored codes ("prorate", "day") are taken as well. Raises ValueError for an unknown one."""

    fee: ChangeFee = ChangeFee.PRORATE
    grain: Grain = Grain.DAY
    allowance: ChangeAllowance = ChangeAllowance.PRORATED
    bill: ChangeBill = ChangeBill.NEXT

    def __post_init__(self) -> None:
        object.__setattr__(self, "fee", ChangeFee(self.fee))
        object.__setattr__(self, "grain", Grain(self.grain))
        object.__setattr__(self, "allowance", ChangeAllowance(self.allowance))
        object.__setattr__(self, "bill", ChangeBill(self.bill))


@dataclass(frozen=True, slots=True)
class AllowanceStep:
    """That a version with this allowance came into force at an instant of a period; prorated, or replacing the whole."""

    at: datetime
    allowance: Decimal
    replaces: bool
    grain: Grain


def period_allowance(
    first: Decimal, steps: Sequence[AllowanceStep], period: Period, *, zone: str, precision: int
) -> Decimal:
    """
    Return the allowance of a period that began with `first` and in which versions changed, in the order of time.

    Σ allowance × share of the period, rounded once on the total, half up to the meter's precision. A step that replaces counts as if its
    version had been in force from the period's start, so that a change between equal allowances alters nothing after it either, and no
    cycle of changes comes to more than the largest of them. Each share is taken by the grain of its step, and none begins before an earlier
    one.

    >>> from datetime import UTC
    >>> june = Period(datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 7, 1, tzinfo=UTC))
    >>> step = AllowanceStep(datetime(2024, 6, 14, 10, tzinfo=UTC), Decimal("100000"), replaces=False, grain=Grain.SECOND)
    >>> period_allowance(Decimal("10000"), [step], june, zone="UTC", precision=0)
    Decimal('59750')
    """
    parts = [(first, Fraction(1))]
    for step in steps:
        if step.replaces:
            parts = [(step.allowance, Fraction(1))]
            continue
        allowance, left = parts[-1]
        remaining = min(left, remaining_share(period, step.at, grain=step.grain, zone=zone).fraction)
        parts[-1:] = [(allowance, left - remaining), (step.allowance, remaining)]
    in_force = {allowance for allowance, share in parts if share}
    if len(in_force) == 1:
        return in_force.pop()
    shares = [(allowance, Share(share.numerator, share.denominator)) for allowance, share in parts]
    return prorated_allowance(shares, precision=precision)
