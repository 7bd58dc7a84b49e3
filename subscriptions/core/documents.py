"""
Reading a JSON document that a person wrote: objects, choices and decimals, with every fault named by its path.

Owns the limits of a decimal that is stored (18 + 12 digits). Does not know what any document means: see `price_documents`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

INTEGER_DIGITS_MAX = 18
DECIMALS_MAX = 12
FAULTS_MAX = 500  # a hostile document does not get an answer far larger than itself

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,8})?", re.ASCII)
_NAME_SHOWN = 100  # characters of an unknown field's name that a path repeats
_NOT_A_DECIMAL = (
    'must be a decimal number, as a string like "0.0002" or a JSON number; no binary float, NaN or infinity'
)
_Choice = TypeVar("_Choice", bound=StrEnum)


class Fault(NamedTuple):
    """One fault of a document: where, which, and what to do about it. The path of the document itself is empty."""

    path: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class NumberRule:
    """What a number must fulfil beside being a decimal of at most 18 + 12 digits, not negative."""

    positive: bool = False
    whole: bool = False
    at_most: Decimal | None = None


ANY_NUMBER = NumberRule()
POSITIVE = NumberRule(positive=True)


class Reading:
    """One pass over a document, collecting its faults. Each method returns None for what it could not read."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fault(self, path: str, code: str, message: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(path, code, message))

    def members(self, value: object, *, path: str, known: tuple[str, ...]) -> dict[str, Any] | None:
        """Return the members that are not null, and report those that are not known, null or not."""
        if not isinstance(value, Mapping):
            self.fault(path, "not_an_object", f"must be an object with fields among {', '.join(known)}")
            return None
        for name in value:
            if name not in known:
                shown = name[:_NAME_SHOWN] if isinstance(name, str) else type(name).__name__
                self.fault(join(path, shown), "unknown_field", f"is no field here; there are {', '.join(known)}")
        return {name: value[name] for name in known if value.get(name) is not None}

    def choice(self, value: object, path: str, choices: type[_Choice]) -> _Choice | None:
        if value is None:
            self.fault(path, "required", f"is required: one of {', '.join(choices)}")
            return None
        for choice in choices:
            if isinstance(value, str) and choice == value:
                return choice
        self.fault(path, "unknown_choice", f"must be one of {', '.join(choices)}")
        return None

    def number(self, value: object, path: str, rule: NumberRule) -> Decimal | None:
        """Return the number in its canonical form; None itself is reported as required."""
        if value is None:
            self.fault(path, "required", "is required: a decimal number")
            return None
        number = _decimal(value)
        if number is None:
            self.fault(path, "not_a_decimal", _NOT_A_DECIMAL)
            return None
        fault = _number_fault(number, rule)
        if fault is not None:
            self.fault(path, *fault)
            return None
        return Decimal(_written(number))


def _decimal(value: object) -> Decimal | None:
    """Return the finite number that a value is, whatever its size, in time linear in its length; None for anything else."""
    if isinstance(value, str):
        return Decimal(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        bound = 10**INTEGER_DIGITS_MAX  # is too large already; converting a longer integer is slow
        return Decimal(max(-bound, min(bound, value)))
    return value if isinstance(value, Decimal) and value.is_finite() else None


def _number_fault(number: Decimal, rule: NumberRule) -> tuple[str, str] | None:
    """Return the code and message of the first rule that a number breaks. Its exponent is judged before it is written out."""
    if not number:
        return ("not_positive", "must be greater than 0") if rule.positive else None
    if number.is_signed():
        return "negative", "must not be negative"
    if number.adjusted() >= INTEGER_DIGITS_MAX:
        return "too_large", f"must have at most {INTEGER_DIGITS_MAX} digits before the decimal point"
    decimals = DECIMALS_MAX + 1 if number.adjusted() < -DECIMALS_MAX else len(_written(number).partition(".")[2])
    if decimals > DECIMALS_MAX:
        return "too_precise", f"must have at most {DECIMALS_MAX} decimals"
    if rule.whole and decimals:
        return "not_whole", "must be a whole number"
    if rule.at_most is not None and number > rule.at_most:
        return "too_large", f"must be at most {rule.at_most}"
    return None


def _written(number: Decimal) -> str:
    """Return a number's digits without exponent and trailing zeros, in time linear in its length, whatever a zero's exponent."""
    if not number:
        return "0"
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def join(path: str, name: str) -> str:
    """Return the path of a member of the object at `path`."""
    return f"{path}.{name}" if path else name
