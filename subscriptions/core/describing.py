"""
A version's document in words, term by term, and what differs between two.

Owns how a term is called and said to people who set prices. It takes documents as `selectors.catalog.version_document` writes them; what
one leaves out is as `services.version_documents` reads it. Prices are `price_words`'.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from subscriptions.core import words
from subscriptions.core.price_documents import PriceError, parse_price
from subscriptions.core.price_words import price_terms

_WINDOW = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?)?", re.ASCII)
# What two values may have in common behind these is said once: "$0.0002 → $0.00018 per token".
_SAID_ONCE = (" per ", " every ")
_INTERVALS = {"semiannual": "half-year"}
_TRIAL_ENDS = {
    "convert": "then the first paid period begins",
    "pause": "then it pauses",
    "cancel": "then it ends",
}
_AT_LIMIT = {
    "allow": "goes on, billed as overage",
    "deny": "stops",
    "degrade": "goes on, degraded, billed as overage",
}
_CHANGES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "fee": (
        "Fee on a change to this version",
        {"prorate": "in proportion to the time left", "full": "in full, nothing given back", "none": "none"},
    ),
    "grain": ("Time left on a change is counted by", {"day": "days", "second": "seconds"}),
    "allowance": (
        "Allowance on a change to this version",
        {
            "prorated": "in proportion to the time in each version",
            "full_new": "becomes the new one",
            "reset": "starts anew, with a new period",
        },
    ),
    "bill": ("A change is billed", {"next": "on the next invoice", "now": "at once"}),
}


@dataclass(frozen=True, slots=True)
class MeterWords:
    """How a meter and its unit are called."""

    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class Term:
    """One term in words. Terms of two versions that have one label say the same thing of each."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class ComparedTerm:
    """A term of two versions; None where a version does not have it."""

    label: str
    left: str | None
    right: str | None

    @property
    def is_changed(self) -> bool:
        """Whether the versions say different things."""
        return self.left != self.right

    @property
    def in_words(self) -> str:
        """
        What changes, in one line.

        >>> ComparedTerm("Overage of tokens", "$0.0002 per token", "$0.00018 per token").in_words
        'Overage of tokens: $0.0002 → $0.00018 per token'
        >>> ComparedTerm("Trial", "none", None).in_words
        'Trial: gone, was none'
        """
        if self.left is None:
            return f"{self.label}: new, {self.right}"
        if self.right is None:
            return f"{self.label}: gone, was {self.left}"
        return f"{self.label}: {_without_what_follows(self.left, self.right)} → {self.right}"


def described(document: Mapping[str, Any], meters: Mapping[str, MeterWords]) -> list[Term]:
    """Return a version's terms in the order of its document. A meter that is not among `meters` is called by its code."""
    currency = str(document.get("currency") or "")
    return [
        *_of_version(document, currency),
        *(term for charge in document.get("charges") or () for term in _of_charge(charge, meters, currency)),
        *(Term(f"Feature {code}", _feature(value)) for code, value in sorted((document.get("features") or {}).items())),
    ]


def compared(left: Sequence[Term], right: Sequence[Term]) -> list[ComparedTerm]:
    """Return the terms of both, those of the right in their order, each gone one behind what it followed."""
    before, after = ({term.label: term.value for term in terms} for terms in (left, right))
    labels = list(after)
    place = 0
    for label in before:
        if label in after:
            place = labels.index(label) + 1
        else:
            labels.insert(place, label)
            place += 1
    return [ComparedTerm(label, before.get(label), after.get(label)) for label in labels]


def dimension_words(dimensions: Mapping[str, str]) -> str:
    """
    Write the values that usage must have.

    >>> dimension_words({"model": "opus", "direction": ""})
    'model opus, no direction'
    """
    return ", ".join(f"{name} {value}" if value else f"no {name}" for name, value in dimensions.items())


def usage_name(meter: str, dimensions: Mapping[str, str]) -> str:
    """
    Name the usage that a charge prices.

    >>> usage_name("Tokens", {"model": "opus"}), usage_name("Tokens", {})
    ('Tokens (model opus)', 'Tokens')
    """
    return f"{meter} ({dimension_words(dimensions)})" if dimensions else meter


def every(interval: str, count: int) -> str:
    """
    Write a rhythm.

    >>> every("month", 1), every("month", 12), every("semiannual", 2)
    ('every month', 'every 12 months', 'every 2 half-years')
    """
    name = _INTERVALS.get(interval, interval)
    return f"every {name}" if count == 1 else f"every {count} {name}s"


def _of_version(document: Mapping[str, Any], currency: str) -> Iterator[Term]:
    interval = str(document.get("interval") or "month")
    count, fee_every = int(document.get("interval_count") or 1), int(document.get("fee_every") or 1)
    fee = Decimal(str(document.get("fee") or 0))
    due = "at its end" if document.get("fee_timing") == "arrears" else "in advance"
    yield Term("Currency", currency)
    yield Term("Fee", f"{words.money(fee, currency)} {every(interval, count * fee_every)}, {due}" if fee else "none")
    from_when = "the calendar's" if document.get("alignment") == "calendar" else "counted from the start"
    yield Term("Billing period", f"{every(interval, count)}, {from_when}")
    grace = document.get("grace_hours")
    yield Term("Wait for late usage", words.units(Decimal(1 if grace is None else grace), "hour"))
    yield Term("Trial", _trial(document))
    for name, (label, choices) in _CHANGES.items():
        choice = (document.get("change") or {}).get(name) or next(iter(choices))
        yield Term(label, choices.get(choice, str(choice)))


def _trial(document: Mapping[str, Any]) -> str:
    days = int(document.get("trial_days") or 0)
    if not days:
        return "none"
    end = _TRIAL_ENDS.get(str(document.get("trial_end") or "convert"), "")
    overage = "is billed" if document.get("trial_overage") == "bill" else "is not possible"
    return f"{words.units(Decimal(days), 'day')}, {end}; usage beyond its allowance {overage}"


def _of_charge(charge: Mapping[str, Any], meters: Mapping[str, MeterWords], currency: str) -> Iterator[Term]:
    if charge.get("kind") == "licensed":
        amount, included = Decimal(str(charge["unit_amount"])), Decimal(str(charge.get("included") or 0))
        name = str(charge["code"])
        yield Term(f"Licence {name}", f"{words.money(amount, currency)} per {words.one(name)}")
        yield Term(f"Licence {name}, included", words.quantity(included))
        return
    code = str(charge.get("meter"))
    meter = meters.get(code, MeterWords(code, ""))
    dimensions = charge.get("dimensions") or {}
    name = usage_name(meter.name, dict(sorted(dimensions.items())))
    yield Term(f"Allowance of {name}", _allowance(charge, meter))
    if charge.get("trial_included") is not None:
        yield Term(f"Allowance of {name} in a trial", words.units(Decimal(str(charge["trial_included"])), meter.unit))
    try:
        price = parse_price(charge.get("price"))
    except PriceError:
        yield Term(f"Price of {name}", "not complete")
    else:
        yield from (Term(label, value) for label, value in price_terms(price, name, meter.unit, currency))
    yield from _limits(charge, name, meter, currency)


def _allowance(charge: Mapping[str, Any], meter: MeterWords) -> str:
    included = charge.get("included")
    if included is None and charge.get("dimensions"):
        return f"that of all {meter.name}"
    return words.units(Decimal(str(included)), meter.unit) if Decimal(str(included or 0)) else "none"


def _limits(charge: Mapping[str, Any], name: str, meter: MeterWords, currency: str) -> Iterator[Term]:
    yield Term(f"{name} beyond the allowance", _AT_LIMIT.get(str(charge.get("at_limit") or "allow"), ""))
    if charge.get("overage_quantity_max") is not None:
        yield Term(f"Most overage of {name}", words.units(Decimal(str(charge["overage_quantity_max"])), meter.unit))
    for limit in charge.get("limits") or ():
        most = words.units(Decimal(str(limit["quantity"])), meter.unit)
        yield Term(f"Most of {name} in {_window(str(limit['window']))}", most)
    if rollover := Decimal(str(charge.get("rollover_max") or 0)):
        periods = words.units(Decimal(charge.get("rollover_periods") or 1), "period")
        yield Term(f"Rollover of {name}", f"up to {words.units(rollover, meter.unit)}, for {periods}")
    if thresholds := charge.get("thresholds") or ():
        yield Term(f"Notices on {name}", ", ".join(_threshold(each, meter, currency) for each in thresholds))


def _threshold(threshold: Mapping[str, Any], meter: MeterWords, currency: str) -> str:
    often = ", once in a lifetime" if threshold.get("once") == "life" else ""
    if "percent" in threshold:
        return f"at {words.percent(Decimal(threshold['percent']))} of the allowance{often}"
    if "quantity" in threshold:
        return f"at {words.units(Decimal(str(threshold['quantity'])), meter.unit)}{often}"
    return f"at {words.money(Decimal(str(threshold['amount'])), currency)} of overage{often}"


def _window(text: str) -> str:
    """
    Write the length of a rolling window.

    >>> _window("P1DT12H"), _window("PT5H")
    ('any 1 day 12 hours', 'any 5 hours')
    """
    read = _WINDOW.fullmatch(text)
    parts = zip(read.groups(), ("day", "hour", "minute"), strict=True) if read else ()
    return "any " + (" ".join(words.units(Decimal(n), name) for n, name in parts if n) or text)


def _feature(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
    return f"“{value}”"


def _without_what_follows(left: str, right: str) -> str:
    for mark in _SAID_ONCE:
        head, found, rest = left.partition(mark)
        if found and right.partition(mark)[1:] == (found, rest):
            return head
    return left
