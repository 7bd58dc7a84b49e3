"""
Amounts and quantities as people write them: "$0.0002 per token", "1,000,000 tokens".

Owns how a number looks to a reader of English. Calculates nothing and rounds nothing, except where it says "about".
"""

from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from babel.numbers import get_currency_symbol

from subscriptions.core.money import minor_units, plain, precise, round_half_up

Number = Decimal | Fraction | int

ABOUT_DIGITS = 4
_THOUSANDS_FROM = 10_000


def money(amount: Number, currency: str) -> str:
    """
    Write an amount with its sign, the currency's symbol, thousands apart, and no fewer decimals than the currency has.

    >>> money(Decimal("0.000200"), "USD"), money(Decimal(-1234), "EUR"), money(Decimal(499), "JPY"), money(Decimal("1.5"), "CHF")
    ('$0.0002', '−€1,234.00', '¥499', 'CHF 1.50')
    """
    number = precise(Fraction(amount))
    whole, _, decimals = plain(number.copy_abs()).partition(".")
    decimals = decimals.ljust(minor_units(currency), "0")
    written = f"{int(whole):,}" + (f".{decimals}" if decimals else "")
    return f"{'−' if number < 0 else ''}{_symbol(currency)}{written}"


def about_money(amount: Number, currency: str) -> str:
    """
    Write an amount for comparing: to the currency's smallest unit, or to ABOUT_DIGITS digits where it is smaller than 1.

    >>> about_money(Fraction(200, 3), "USD"), about_money(Fraction(2, 3000), "USD")
    ('$66.67', '$0.0006667')
    """
    return money(rounded(amount, places=minor_units(currency)), currency)


def rounded(number: Number, *, places: int) -> Decimal:
    """
    Round a number for showing to so many decimals; one below 1 to ABOUT_DIGITS digits instead, where that is more.

    >>> rounded(Fraction(2, 3000), places=2), rounded(Fraction(200, 3), places=0)
    (Decimal('0.0006667'), Decimal('67'))
    """
    size, zeros = abs(Fraction(number)), 0
    while 0 < size < 1:
        size, zeros = size * 10, zeros + 1
    return round_half_up(Fraction(number), places=max(places, zeros + ABOUT_DIGITS - 1) if zeros else places)


def quantity(number: Number) -> str:
    """
    Write a quantity with its thousands apart and nothing superfluous behind the point.

    >>> quantity(Decimal("18295870.500")), quantity(Decimal("1E+6"))
    ('18,295,870.5', '1,000,000')
    """
    return f"{Decimal(plain(precise(Fraction(number)))):,f}"


def units(number: Number, unit: str) -> str:
    """
    Write a quantity with its unit, which may be given in either number, or be nothing.

    >>> units(Decimal(1_000_000), "token"), units(Decimal(1), "tokens"), units(Decimal(3), ""), units(Decimal("2.5"), "GB")
    ('1,000,000 tokens', '1 token', '3 units', '2.5 GB')
    """
    return f"{quantity(number)} {one(unit) if number == 1 else many(unit)}"


def one(unit: str) -> str:
    """
    Return a unit's singular, "unit" where it has no name.

    >>> one("tokens"), one("queries"), one("GB"), one("")
    ('token', 'query', 'GB', 'unit')
    """
    if not unit:
        return "unit"
    if not unit[-1].islower() or unit.endswith("ss") or not unit.endswith("s"):
        return unit
    return f"{unit[:-3]}y" if unit.endswith("ies") else unit[:-1]


def many(unit: str) -> str:
    """
    Return a unit's plural.

    >>> many("token"), many("tokens"), many("query"), many("GB"), many("")
    ('tokens', 'tokens', 'queries', 'GB', 'units')
    """
    single = one(unit)
    if not single[-1].islower():
        return single
    if single.endswith("y") and single[-2:-1] not in {*"aeiou", ""}:
        return f"{single[:-1]}ies"
    return f"{single}es" if single.endswith(("ss", "x", "ch", "sh")) else f"{single}s"


def percent(number: Number) -> str:
    """
    Write a number of hundredths.

    >>> percent(Decimal("2.90"))
    '2.9 %'
    """
    return f"{quantity(number)} %"


def short(number: Number) -> str:
    """
    Write a number for the axis of a drawing, where it is a round one.

    >>> short(Decimal(1_500_000)), short(Decimal(20_000)), short(Decimal("0.0002")), short(Decimal(2_500))
    ('1.5M', '20k', '0.0002', '2,500')
    """
    exact = Fraction(number)
    for size, letter in ((10**12, "T"), (10**9, "bn"), (10**6, "M")):
        if abs(exact) >= size:
            return f"{quantity(exact / size)}{letter}"
    return f"{quantity(exact / 1000)}k" if abs(exact) >= _THOUSANDS_FROM else quantity(exact)


def short_money(amount: Number, currency: str) -> str:
    """
    Write a round amount for the axis of a drawing.

    >>> short_money(Decimal(-20_000), "USD"), short_money(Decimal("0.0002"), "USD"), short_money(Decimal("7.5"), "USD")
    ('−$20k', '$0.0002', '$7.50')
    """
    exact = Fraction(amount)
    if exact.denominator != 1 and abs(exact) < _THOUSANDS_FROM:
        return money(exact, currency)
    return f"{'−' if exact < 0 else ''}{_symbol(currency)}{short(abs(exact))}"


@lru_cache(maxsize=256)
def _symbol(currency: str) -> str:
    symbol = str(get_currency_symbol(currency, locale="en_US"))
    return f"{symbol} " if symbol[-1].isalpha() else symbol
