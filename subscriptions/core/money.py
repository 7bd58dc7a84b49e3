"""
Amounts of money and exact numbers: rounding, minor units, splitting, and the canonical text of a number.

Owns the one rule by which money is rounded, and the context in which the cores calculate. Does not own prices (`pricing`), shares of
a period (`proration`), or how an amount is shown to a reader in their language.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from decimal import (
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    localcontext,
)
from fractions import Fraction
from functools import lru_cache

_EXACT = Context(prec=80, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow, FloatOperation])

# CLDR's digits, which for some currencies (RSD, LBP, MMK …) are fewer than ISO 4217 lists, because the coins are gone. Codes for
# which ISO names no minor unit are no money that can be charged, and are left out: metals (XAU …), units of account (XDR, XBA …),
# the test code XTS and "no currency" XXX.
_CODES_BY_DIGITS = {
    0: """
        AFN ALL BIF CLP DJF GNF IQD IRR ISK JPY KMF KPW KRW LAK LBP MGA MMK PYG RSD RWF SOS SYP UGX UYI VND VUV XAF XOF XPF YER
    """,
    2: """
        AED AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC
        CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR JMD KES KGS KHR
        KYD KZT LKR LRD LSL MAD MDL MKD MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN
        QAR RON RUB SAR SBD SCR SDG SEK SGD SHP SLE SRD SSP STN SVC SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED
        VES WST XCD XCG ZAR ZMW ZWG
    """,
    3: "BHD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
MINOR_UNITS: dict[str, int] = {code: digits for digits, codes in _CODES_BY_DIGITS.items() for code in codes.split()}

_PRECISE_PLACES_MAX = 40
_ROUNDED_PLACES = 18
# A number of three characters such as 1E+999999999 would otherwise be written out, digit by digit, until memory ends.
_MAGNITUDE_MAX = 100


class UnknownCurrency(ValueError):
    """The code is not an active ISO 4217 currency with a minor unit, in upper case."""


def exact() -> AbstractContextManager[Context]:
    """
    Return a context in which decimal arithmetic is exact or raises: 80 digits, and `Inexact` is trapped.

    Division that does not terminate raises; divide with `divmod` or `Fraction` instead. Floats raise as well.

    >>> with exact():
    ...     Decimal("1234567") * Decimal("0.0002")
    Decimal('246.9134')
    """
    return localcontext(_EXACT)


def minor_units(currency: str) -> int:
    """
    Return the number of decimals of the currency's smallest unit.

    Raises UnknownCurrency for anything but an active ISO 4217 code in upper case. Source: CLDR.

    >>> minor_units("USD"), minor_units("JPY"), minor_units("KWD")
    (2, 0, 3)
    """
    try:
        return MINOR_UNITS[currency]
    except KeyError:
        raise UnknownCurrency(f"{currency!r} is not an active ISO 4217 currency code") from None


def quantize(amount: Decimal | Fraction, currency: str) -> Decimal:
    """
    Round to the smallest unit of the currency, halves away from zero.

    This is the only place where money is rounded. Call it once per invoice line, never on intermediate results. The result carries
    the currency's decimals and is never a negative zero. Raises UnknownCurrency, ValueError for a number that is not finite.

    >>> quantize(Decimal("0.125"), "USD"), quantize(Decimal("0.5"), "JPY"), quantize(Fraction(-1, 8), "USD")
    (Decimal('0.13'), Decimal('1'), Decimal('-0.13'))
    """
    return round_half_up(amount, places=minor_units(currency))


def round_half_up(number: Decimal | Fraction, *, places: int) -> Decimal:
    """
    Round a quantity to `places` decimals, halves away from zero.

    For quantities (allowances, transforms); money goes through `quantize`, which knows the places of its currency.

    >>> round_half_up(Fraction(175001, 3), places=0), round_half_up(Decimal("0.0005"), places=3)
    (Decimal('58334'), Decimal('0.001'))
    """
    return _from_units(_nearest_units(*_ratio(number), places), places)


def as_fraction(number: Decimal | Fraction | int) -> Fraction:
    """
    Return the exact value of a number, to calculate with.

    Raises TypeError for a float, ValueError for a decimal that is not finite or lies beyond 10^100.

    >>> as_fraction(Decimal("0.0002"))
    Fraction(1, 5000)
    """
    if isinstance(number, Decimal):
        _check_magnitude(number)
        return Fraction(number)
    if isinstance(number, Fraction):
        return number
    if isinstance(number, int):
        return Fraction(number)
    raise TypeError(f"amounts and quantities are Decimal or Fraction, not {type(number).__name__}")


def is_representable(amount: Decimal, currency: str) -> bool:
    """
    Return whether the amount is a whole number of the currency's smallest units, so that rounding would not change it.

    False for what is no amount at all (not finite, or beyond 10^100). Raises UnknownCurrency.

    >>> is_representable(Decimal("1.10"), "USD"), is_representable(Decimal("1.10"), "JPY"), is_representable(Decimal("1.00"), "JPY")
    (True, False, True)
    """
    places = minor_units(currency)
    try:
        numerator, denominator = _ratio(amount)
    except ValueError:
        return False
    return numerator * 10**places % denominator == 0


def allocate(total: Decimal, weights: Sequence[Fraction | Decimal | int], *, currency: str) -> list[Decimal]:
    """
    Split an amount in proportion to the weights, so that the parts sum to it exactly.

    By largest remainders: each part is its exact share cut to the smallest unit, and the units left over go one each to the largest
    remainders, the earlier part first among equals. A negative total gives the same parts, negated. When all weights are zero, the parts
    are equal. Raises ValueError for a total finer than the currency, a negative weight, or nothing to split among.

    >>> allocate(Decimal("100.00"), [1, 1, 1], currency="USD")
    [Decimal('33.34'), Decimal('33.33'), Decimal('33.33')]
    """
    if not is_representable(total, currency):
        raise ValueError(f"{total} is finer than the smallest unit of {currency}")
    shares = [as_fraction(weight) for weight in weights]
    if not shares:
        raise ValueError("there is nothing to allocate the total to")
    if min(shares) < 0:
        raise ValueError("a weight is negative")
    if not any(shares):
        shares = [Fraction(1)] * len(shares)

    places = minor_units(currency)
    total_units = int(as_fraction(total) * 10**places)
    parts = _largest_remainders(abs(total_units), shares)
    return [_from_units(part if total_units >= 0 else -part, places) for part in parts]


def precise(amount: Fraction | Decimal) -> Decimal:
    """
    Return an unrounded amount as a decimal that can be stored and shown.

    Exact when it ends within 40 decimals; otherwise (a third, say) rounded half to even at 18. Never calculate with the result where the
    fraction is at hand, and never round it a second time to money.

    >>> precise(Fraction(1, 8)), precise(Fraction(2, 3))
    (Decimal('0.125'), Decimal('0.666666666666666667'))
    """
    numerator, denominator = _ratio(amount)
    places = _places_to_end(denominator)
    if places is None or places > _PRECISE_PLACES_MAX:
        return _from_units(round(Fraction(numerator, denominator) * 10**_ROUNDED_PLACES), _ROUNDED_PLACES)
    return _from_units(numerator * (10**places // denominator), places)


def _check_magnitude(number: Decimal) -> None:
    if not number.is_finite() or (number and abs(number.adjusted()) > _MAGNITUDE_MAX):
        raise ValueError(f"{number} is not a number to calculate with")


def plain(number: Decimal) -> str:
    """
    Return the canonical text of a number: no exponent, no trailing zeros, no negative zero.

    Equal numbers have equal texts. Raises ValueError for a number that is not finite.

    >>> plain(Decimal("3659.1740")), plain(Decimal("-0.00")), plain(Decimal("1E+2"))
    ('3659.174', '0', '100')
    """
    text = str(number)
    # Most are short and have decimals: asking these whether they are finite and how large costs more than trimming them.
    if "." not in text or "E" in text or len(text) > _MAGNITUDE_MAX:
        _check_magnitude(number)
        if not number:
            return "0"
        text = format(number, "f")
        if "." not in text:
            return text
    text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _ratio(number: Decimal | Fraction | int) -> tuple[int, int]:
    """Return numerator and denominator in lowest terms, as `as_fraction` has them: making a Fraction costs more than rounding it."""
    if isinstance(number, Decimal):
        _check_magnitude(number)
        return number.as_integer_ratio()
    exact = as_fraction(number)
    return exact.numerator, exact.denominator


def _nearest_units(numerator: int, denominator: int, places: int) -> int:
    """Integers only, so that no decimal context of a caller can change how money is rounded."""
    units = (2 * abs(numerator) * 10**places + denominator) // (2 * denominator)
    return units if numerator >= 0 else -units


def _from_units(units: int, places: int) -> Decimal:
    """Through text, because the constructor alone is exact whatever the context."""
    return Decimal(f"{units}E-{places}")


def _largest_remainders(total_units: int, shares: Sequence[Fraction]) -> list[int]:
    whole = sum(shares, Fraction(0))
    cuts = [divmod(total_units * share, whole) for share in shares]
    parts = [part for part, _ in cuts]
    by_remainder = sorted(range(len(cuts)), key=lambda index: cuts[index][1], reverse=True)
    for index in by_remainder[: total_units - sum(parts)]:
        parts[index] += 1
    return parts


@lru_cache(maxsize=1000)
def _places_to_end(denominator: int) -> int | None:
    """Return how many decimals a fraction in lowest terms has; None when they never end."""
    counts = []
    for factor in (2, 5):
        count = 0
        while denominator % factor == 0:
            denominator //= factor
            count += 1
        counts.append(count)
    return max(counts) if denominator == 1 else None
