"""
How a quantity is written in JSON, and the digits that it holds: 18 before the decimal point and 12 after it.

Owns which numbers are refused, and why. Does not own where in an event they stand (`measuring`). Called for every
event: arithmetic uses contexts of this module, because entering one costs more than the arithmetic.
"""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from enum import StrEnum

QUANTITY_STRING = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,12})?", re.ASCII)
"""A plain decimal with the digits of a quantity; to be matched in full."""

_LONG_STRING = re.compile(r"-?(0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)
_INTEGER_DIGITS = 18
_LIMIT = 10**_INTEGER_DIGITS
_DECIMAL_LIMIT = Decimal(_LIMIT)
_STEP = Decimal("1E-12")
_MONEY_STEP = Decimal("1E-18")
_ZERO = Decimal(0)
_EXACT = Context(prec=80, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
_HALF_EVEN = Context(prec=80, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow])


class RefusalReason(StrEnum):
    """Why a value cannot be measured."""

    NOT_A_NUMBER = "not_a_number"
    NEGATIVE = "negative"
    TOO_LARGE = "too_large"
    TOO_FINE = "too_fine"
    NOT_SCALAR = "not_scalar"
    TOO_LONG = "too_long"


class RefusedValue(Exception):
    """A value cannot be measured, for `reason`."""

    def __init__(self, reason: RefusalReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def read_quantity(value: object) -> Decimal:
    """
    Return the quantity that a JSON value states, exactly.

    A string is a plain decimal; a number (int or Decimal) may have an exponent. The size is judged by the exponent
    before any digit is written out: 1E+1000000 costs nothing. Raises RefusedValue.

    >>> read_quantity("340"), read_quantity(Decimal("3.4e2")) == 340
    (Decimal('340'), True)
    """
    if type(value) is int and 0 <= value < _LIMIT:
        return Decimal(value)
    if isinstance(value, str):
        return _unsigned(_parsed(value, QUANTITY_STRING))
    number = _bounded(value)
    if number and number.adjusted() < _STEP.adjusted():
        raise RefusedValue(RefusalReason.TOO_FINE)
    return fit(number)


def read_money(value: object) -> Decimal:
    """
    Return the amount that a JSON value states, rounded half even to 18 decimals.

    Amounts are often computed from binary floats, and then have more decimals than anybody means. Raises RefusedValue.
    """
    number = _parsed(value, _LONG_STRING) if isinstance(value, str) else value
    return _HALF_EVEN.quantize(_bounded(number), _MONEY_STEP)


def add_weighted(total: Decimal, quantity: Decimal, weight: Decimal) -> Decimal:
    """Return total + quantity × weight, exactly."""
    return _EXACT.fma(quantity, weight, total)


def fit(number: Decimal, *, rounded: bool = False) -> Decimal:
    """
    Return the number with the digits of a quantity, rounded half even if `rounded`.

    Raises RefusedValue for a number of 10^18 or more, or a finer one that is not to be rounded.
    """
    try:
        fitted = (_HALF_EVEN if rounded else _EXACT).quantize(number, _STEP)
    except Inexact:
        raise RefusedValue(RefusalReason.TOO_FINE) from None
    if fitted >= _DECIMAL_LIMIT:
        raise RefusedValue(RefusalReason.TOO_LARGE)
    return fitted


def _parsed(text: str, pattern: re.Pattern[str]) -> Decimal:
    if pattern.fullmatch(text):
        return Decimal(text)
    if number := _LONG_STRING.fullmatch(text):
        too_large = len(number[1]) > _INTEGER_DIGITS
        raise RefusedValue(RefusalReason.TOO_LARGE if too_large else RefusalReason.TOO_FINE)
    raise RefusedValue(RefusalReason.NOT_A_NUMBER)


def _bounded(value: object) -> Decimal:
    """Return a number from 0 to below 10^18, with any decimals."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise RefusedValue(RefusalReason.NOT_A_NUMBER)
    number = Decimal(value)
    if not number.is_finite():
        raise RefusedValue(RefusalReason.NOT_A_NUMBER)
    number = _unsigned(number)
    if number.adjusted() >= _INTEGER_DIGITS:
        raise RefusedValue(RefusalReason.TOO_LARGE)
    return number


def _unsigned(number: Decimal) -> Decimal:
    """Return the number, with the one 0 for every zero."""
    if not number:
        return _ZERO
    if number.is_signed():
        raise RefusedValue(RefusalReason.NEGATIVE)
    return number
