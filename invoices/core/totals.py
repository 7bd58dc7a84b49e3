"""
From rounded lines to the amount due.

Owns the order of the steps: lines, tax, nothing below zero, tenant credit. Does not round (a line was rounded when it was written),
and knows no rates of tax: there are none yet, and tax is 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from subscriptions.core import money


@dataclass(frozen=True, slots=True)
class Totals:
    """
    The figures under an invoice's lines, in its currency. `amount_due = total − credit_applied`, always.

    `subtotal` may be negative; `surplus` is then what goes to the tenant's credit instead of below zero.
    """

    subtotal: Decimal
    tax: Decimal
    total: Decimal
    surplus: Decimal
    credit_applied: Decimal
    amount_due: Decimal


def total_up(amounts: Iterable[Decimal], *, currency: str, credit_available: Decimal = Decimal(0)) -> Totals:
    """
    Sum rounded lines, and use the tenant's credit as far as it goes.

    A sum below zero is a total of 0, and the rest a surplus. Credit is used after tax, never more than the total, and a negative
    balance of credit (which the books do not allow) counts as none. Raises ValueError for a line finer than the currency: a sum of
    unrounded lines would differ from what the lines show.

    >>> total_up([Decimal("99.00"), Decimal("3659.17")], currency="USD", credit_available=Decimal("58.17")).amount_due
    Decimal('3700.00')
    >>> total_up([Decimal("-52.80"), Decimal("20.00")], currency="USD").surplus
    Decimal('32.80')
    """
    lines = list(amounts)
    if unrounded := [amount for amount in lines if not money.is_representable(amount, currency)]:
        raise ValueError(f"a line is finer than the smallest unit of {currency}: {unrounded[0]}")
    zero = _zero(currency)
    with money.exact():
        subtotal = sum(lines, zero)
        tax = zero
        total = max(zero, subtotal + tax)
        surplus = max(zero, -(subtotal + tax))
        credit_applied = min(total, max(zero, credit_available))
        return Totals(subtotal, tax, total, surplus, credit_applied, total - credit_applied)


@cache
def _zero(currency: str) -> Decimal:
    return money.quantize(Decimal(0), currency)
