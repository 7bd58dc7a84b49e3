"""What the documents of the catalogue have in common, beyond objects, choices and decimals (`core.documents`)."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from billing_site.http.serializers import is_clean
from subscriptions.core.documents import NumberRule, Reading

CODE = re.compile(r"[A-Za-z0-9._:@-]{1,100}", re.ASCII)
INTEGER_LIMIT = 10**18  # beyond it, readers of JSON disagree on what an integer is
_NAME_SHOWN = 100


def whole(value: object, path: str, reading: Reading, *, at_least: int = 0, at_most: int) -> int:
    """Read a whole number from `at_least` (0 or 1) to `at_most`; what cannot be read is a fault, and answered with `at_least`."""
    rule = NumberRule(positive=at_least > 0, whole=True, at_most=Decimal(at_most))
    number = reading.number(value, path, rule)
    return at_least if number is None else int(number)


def code(value: object, path: str, reading: Reading) -> str:
    """Read an id that the operator chose; what is none is a fault, and answered with an empty text."""
    if is_code(value):
        return str(value)
    reading.fault(path, "invalid_code", "must be 1 to 100 of the characters A-Z a-z 0-9 . _ : @ -")
    return ""


def is_code(value: object) -> bool:
    """Say whether a value is such an id."""
    return isinstance(value, str) and CODE.fullmatch(value) is not None


def text_of(
    value: object, path: str, reading: Reading, *, at_least: int = 1, at_most: int = 200, multiline: bool = False
) -> str:
    """Read a text, kept as it is written; what is none, or has control characters, is a fault, and answered with an empty one."""
    if not isinstance(value, str) or not at_least <= len(value) <= at_most or not is_clean(value, multiline=multiline):
        message = f"must be a text of {at_least} to {at_most} characters without control characters"
        reading.fault(path, "not_text", message)
        return ""
    return value


def listed(value: object, path: str, reading: Reading, *, at_most: int) -> Sequence[Any]:
    """Read a list of at most so many entries; what is none, or too long, is a fault, and answered with an empty one."""
    if not isinstance(value, list | tuple):
        reading.fault(path, "not_a_list", "must be a list")
        return ()
    if len(value) > at_most:
        reading.fault(path, "too_many", f"must have at most {at_most} entries")
        return ()
    return value


def shortened(name: object) -> str:
    """Return a member's name as a path or a message repeats it."""
    return name[:_NAME_SHOWN] if isinstance(name, str) else type(name).__name__
