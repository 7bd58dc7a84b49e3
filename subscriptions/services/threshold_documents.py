"""
A list of thresholds: a charge's, or whosever.

Owns what one threshold may say. What it means, when it has been reached, and who else has some is metering's (`metering.core.thresholds`).
"""

from collections.abc import Sequence
from typing import Any

from subscriptions.core.documents import POSITIVE, Reading
from subscriptions.core.money import plain
from subscriptions.services.reading import listed, whole

THRESHOLDS_MAX = 20
PERCENT_MAX = 1000

OF_CHARGE = ("percent", "quantity", "amount")
_ONCE = ("period", "life")


def read_thresholds(value: object, path: str, reading: Reading, *, measures: Sequence[str]) -> list[dict[str, Any]]:
    """
    Read thresholds such as {"percent": 80} or {"amount": "50", "once": "life"}, each with one of `measures`.

    They are kept in one form, so that equal ones are found: `once` only where it is "life", numbers as canonical texts. Beside the codes of
    numbers there are the faults: not_an_object, unknown_field, required, exclusive, unknown_choice, duplicate.
    """
    thresholds: list[dict[str, Any]] = []
    for index, document in enumerate(listed(value, path, reading, at_most=THRESHOLDS_MAX)):
        where = f"{path}.{index}"
        threshold = _threshold(document, where, reading, measures)
        if threshold is not None and threshold in thresholds:
            reading.fault(where, "duplicate", "says the same as an earlier one")
        elif threshold is not None:
            thresholds.append(threshold)
    return thresholds


def _threshold(document: object, path: str, reading: Reading, measures: Sequence[str]) -> dict[str, Any] | None:
    given = reading.members(document, path=path, known=(*measures, "once"))
    if given is None:
        return None
    named = [name for name in measures if name in given]
    once = given.get("once", "period")
    if once not in _ONCE:
        reading.fault(f"{path}.once", "unknown_choice", f"must be one of {', '.join(_ONCE)}")
        return None
    if len(named) != 1:
        code, message = ("exclusive", "says more than one of") if named else ("required", "must have one of")
        reading.fault(path, code, f"{message} {', '.join(measures)}")
        return None
    [name] = named
    where = f"{path}.{name}"
    if name == "percent":
        read: object = whole(given[name], where, reading, at_least=1, at_most=PERCENT_MAX)
    else:
        number = reading.number(given[name], where, POSITIVE)
        read = None if number is None else plain(number)
    if read is None:
        return None
    return {name: read, "once": "life"} if once == "life" else {name: read}
