"""
The words of a change statement: what was given back and charged, what became of allowances, and where it is billed.

Owns sentences alone; the figures are given.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from invoices.core.lines import grouped


@dataclass(frozen=True, slots=True)
class FeeWords:
    """A fee item of a change: an amount in words (with its currency), positive, and the part of the fee that it is."""

    tier: str
    is_credit: bool
    amount: str
    numerator: int
    divisor: int
    grain: str
    # The printed number of its invoice and its line there; None where it is not billed yet.
    invoice: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class AllowanceWords:
    """What a change did with the allowance of a pool, in the meter's units."""

    meter: str
    before: Decimal
    after: Decimal
    used: Decimal


def sentences(
    *, from_name: str, to_name: str, at: str, fees: Sequence[FeeWords], allowances: Iterable[AllowanceWords]
) -> list[str]:
    """
    Say in plain words what a change does; `at` is its instant as people write it.

    >>> fee = FeeWords("Growth", True, "$52.80", 16, 30, "day")
    >>> for sentence in sentences(from_name="Growth (version 1)", to_name="Scale (version 1)", at="15 June 2026", fees=[fee], allowances=[]):
    ...     print(sentence)
    From 15 June 2026 on: Scale (version 1) instead of Growth (version 1).
    Of the fee of Growth $52.80 is given back, for 16 of 30 days.
    This is billed on the next invoice.
    """
    move = f"{to_name} instead of {from_name}" if to_name != from_name else f"{to_name}, begun anew"
    said = [f"From {at} on: {move}."]
    said += [_fee_sentence(fee) for fee in fees]
    said += [_allowance_sentence(one) for one in allowances]
    if not fees:
        return [*said, "No fee is given back or charged for it."]
    billed = [fee for fee in fees if fee.invoice is not None]
    for invoice in dict.fromkeys(fee.invoice for fee in billed):
        lines = [str(fee.line) for fee in billed if fee.invoice == invoice]
        said.append(
            f"This is billed on the invoice {invoice}, line{'s' if len(lines) > 1 else ''} {' and '.join(lines)}."
        )
    if len(billed) < len(fees):
        said.append("This is billed on the next invoice." if not billed else "The rest is billed on the next invoice.")
    return said


def _fee_sentence(fee: FeeWords) -> str:
    deed = "is given back" if fee.is_credit else "is charged"
    if fee.numerator == fee.divisor:
        return f"Of the fee of {fee.tier} {fee.amount} {deed}, in full."
    unit = "days" if fee.grain == "day" else "seconds"
    if fee.grain != "day" and fee.divisor > 10**9:
        unit = "microseconds"
    return f"Of the fee of {fee.tier} {fee.amount} {deed}, for {fee.numerator:,} of {fee.divisor:,} {unit}."


def _allowance_sentence(one: AllowanceWords) -> str:
    used = f"{grouped(one.used)} had been used"
    if one.before == one.after:
        return f"The allowance of {one.meter} stays at {grouped(one.after)}; {used}."
    return f"The allowance of {one.meter} goes from {grouped(one.before)} to {grouped(one.after)}; {used}."
