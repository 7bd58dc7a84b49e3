"""
The charges of a version document: usage of meters, and licences.

Owns what one charge may say, and what charges of one meter may say together. Called by `version_documents` alone.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import combinations
from typing import Any

from subscriptions.core.documents import ANY_NUMBER, Reading, join
from subscriptions.core.money import plain
from subscriptions.core.price_documents import PriceError, parse_price
from subscriptions.core.pricing import RATES_WHOLE_VALUE, Price, PriceModel
from subscriptions.models import Meter
from subscriptions.services.reading import code, is_code, listed, shortened, whole
from subscriptions.services.threshold_documents import OF_CHARGE, read_thresholds

CHARGES_MAX = 200
LIMITS_MAX = 10
DIMENSION_VALUE_MAX = 200
# ISO 8601, days to minutes, each part at most four digits and at least one of them not zero: "PT5H", "P1DT12H".
_WINDOW = re.compile(r"P(?=[0-9T])(?=.*[1-9])(?:[0-9]{1,4}D)?(?:T(?=[0-9])(?:[0-9]{1,4}H)?(?:[0-9]{1,4}M)?)?", re.ASCII)

_USAGE_FIELDS = (
    "kind",
    "meter",
    "included",
    "trial_included",
    "rollover_max",
    "rollover_periods",
    "dimensions",
    "at_limit",
    "overage_quantity_max",
    "limits",
    "thresholds",
    "price",
)
_LICENSED_FIELDS = ("kind", "code", "unit_amount", "included")


class ChargeKind(StrEnum):
    """What a charge prices: what was used, or what was licensed."""

    USAGE = "usage"
    LICENSED = "licensed"


class AtLimit(StrEnum):
    """What the gate answers when nothing included is left."""

    ALLOW = "allow"
    DENY = "deny"
    DEGRADE = "degrade"


@dataclass(frozen=True, slots=True)
class ChargeDraft:
    """A charge that was read. A licence has a code and no meter; usage has a meter and no code."""

    kind: str
    price: Price
    included: Decimal | None
    code: str = ""
    meter: Meter | None = None
    trial_included: Decimal | None = None
    rollover_max: Decimal = Decimal(0)
    rollover_periods: int = 1
    dimensions: dict[str, str] = field(default_factory=dict)
    at_limit: str = AtLimit.ALLOW.value
    overage_quantity_max: Decimal | None = None
    limits: list[dict[str, Any]] = field(default_factory=list)
    thresholds: list[dict[str, Any]] = field(default_factory=list)


def read_charges(value: object, reading: Reading) -> tuple[ChargeDraft, ...]:
    """Read the list of charges; those with faults are left out of the answer and named in `reading`."""
    documents = listed(value, "charges", reading, at_most=CHARGES_MAX)
    meters = _meters_named_in(documents)
    drafts: dict[str, ChargeDraft] = {}
    for index, document in enumerate(documents):
        path = f"charges.{index}"
        kind = document.get("kind") if isinstance(document, Mapping) else None
        match reading.choice(ChargeKind.USAGE if kind is None else kind, f"{path}.kind", ChargeKind):
            case ChargeKind.USAGE:
                draft = _usage(document, path, meters, reading)
            case ChargeKind.LICENSED:
                draft = _licensed(document, path, reading)
            case _:
                draft = None
        if draft is not None:
            drafts[path] = draft
    _check_licences(drafts, reading)
    _check_matching(drafts, reading)
    return tuple(drafts.values())


def _meters_named_in(documents: Sequence[object]) -> dict[str, Meter]:
    named = {each["meter"] for each in documents if isinstance(each, Mapping) and is_code(each.get("meter"))}
    return {meter.code: meter for meter in Meter.objects.filter(code__in=named)}


def _usage(document: object, path: str, meters: Mapping[str, Meter], reading: Reading) -> ChargeDraft | None:
    given = reading.members(document, path=path, known=_USAGE_FIELDS)
    if given is None:
        return None
    meter = _meter(given.get("meter"), f"{path}.meter", meters, reading)
    price = _price(given.get("price"), f"{path}.price", reading)
    at_limit = reading.choice(given.get("at_limit", AtLimit.ALLOW), f"{path}.at_limit", AtLimit)
    rollover_max = reading.number(given.get("rollover_max", 0), f"{path}.rollover_max", ANY_NUMBER)
    dimensions = _dimensions(given.get("dimensions", {}), f"{path}.dimensions", meter, reading)
    draft = ChargeDraft(
        kind=ChargeKind.USAGE.value,
        price=price or _NO_PRICE,
        included=_optional(given, "included", path, reading),
        meter=meter,
        trial_included=_optional(given, "trial_included", path, reading),
        rollover_max=rollover_max or Decimal(0),
        rollover_periods=whole(
            given.get("rollover_periods", 1), f"{path}.rollover_periods", reading, at_least=1, at_most=120
        ),
        dimensions=dimensions,
        at_limit=str(at_limit),
        overage_quantity_max=_optional(given, "overage_quantity_max", path, reading),
        limits=_limits(given.get("limits", []), f"{path}.limits", reading),
        thresholds=read_thresholds(given.get("thresholds", []), f"{path}.thresholds", reading, measures=OF_CHARGE),
    )
    _check_whole_value(draft, path, reading)
    _check_value(draft, path, reading)
    return draft if meter and price else None


# Stands in for a price with faults, so that the rest of its charge is still looked at.
_NO_PRICE = Price(PriceModel.PER_UNIT, unit_amount=Decimal(0))


def _licensed(document: object, path: str, reading: Reading) -> ChargeDraft | None:
    given = reading.members(document, path=path, known=_LICENSED_FIELDS)
    if given is None:
        return None
    name = code(given.get("code"), f"{path}.code", reading)
    unit_amount = reading.number(given.get("unit_amount"), f"{path}.unit_amount", ANY_NUMBER)
    included = reading.number(given.get("included", 0), f"{path}.included", ANY_NUMBER)
    if unit_amount is None or included is None or not name:
        return None
    price = Price(PriceModel.PER_UNIT, unit_amount=unit_amount)
    return ChargeDraft(kind=ChargeKind.LICENSED.value, price=price, included=included, code=name)


def _meter(value: object, path: str, meters: Mapping[str, Meter], reading: Reading) -> Meter | None:
    if value is None:
        reading.fault(path, "required", "is required: the code of a meter")
        return None
    meter = meters.get(value) if isinstance(value, str) else None
    if meter is None:
        reading.fault(path, "does_not_exist", f"there is no meter {shortened(value)}")
    return meter


def _price(value: object, path: str, reading: Reading) -> Price | None:
    if value is None:
        reading.fault(path, "required", 'is required: an object such as {"model": "per_unit", "unit_amount": "0.0002"}')
        return None
    try:
        return parse_price(value)
    except PriceError as error:
        for fault in error.errors:
            reading.fault(join(path, fault.path) if fault.path else path, fault.code, fault.message)
        return None


def _optional(given: Mapping[str, Any], name: str, path: str, reading: Reading) -> Decimal | None:
    return reading.number(given[name], f"{path}.{name}", ANY_NUMBER) if name in given else None


def _dimensions(value: object, path: str, meter: Meter | None, reading: Reading) -> dict[str, str]:
    """Read what the charge is limited to. Values are texts, as usage is folded by the text of a property's value."""
    if not isinstance(value, Mapping):
        reading.fault(path, "not_an_object", 'must be an object such as {"model": "opus"}')
        return {}
    for name, text in value.items():
        where = join(path, shortened(name))
        if meter is not None and name not in meter.dimensions:
            reading.fault(where, "not_a_dimension", f"is not among the dimensions that the meter {meter.code} declares")
        if not isinstance(text, str):
            reading.fault(where, "not_text", 'must be a text; write numbers and truth values as "4" and "true"')
        elif len(text) > DIMENSION_VALUE_MAX:
            reading.fault(where, "too_long", f"must have at most {DIMENSION_VALUE_MAX} characters")
    return dict(value)


def _limits(value: object, path: str, reading: Reading) -> list[dict[str, Any]]:
    limits = []
    for index, document in enumerate(listed(value, path, reading, at_most=LIMITS_MAX)):
        where = f"{path}.{index}"
        given = reading.members(document, path=where, known=("quantity", "window"))
        if given is None:
            continue
        quantity = reading.number(given.get("quantity"), f"{where}.quantity", ANY_NUMBER)
        window = given.get("window")
        if not isinstance(window, str) or _WINDOW.fullmatch(window) is None:
            reading.fault(f"{where}.window", "not_a_window", "must be a duration such as PT5H, P1D or P1DT12H")
        limits.append({"quantity": plain(quantity or Decimal(0)), "window": window})
    return limits


def _check_whole_value(draft: ChargeDraft, path: str, reading: Reading) -> None:
    """A price of the whole value has nothing included and shares no pool that has (semantics, "Rating")."""
    if draft.price.model not in RATES_WHOLE_VALUE:
        return
    if draft.included:
        message = f"must be 0: a {draft.price.model} price rates the whole value"
        reading.fault(f"{path}.included", "included_not_zero", message)
    elif draft.dimensions and draft.included is None and draft.overage_quantity_max is None and not draft.limits:
        message = (
            f'must be stated as "0": a {draft.price.model} price rates the whole value, and needs a pool of its own'
        )
        reading.fault(f"{path}.included", "included_not_zero", message)


def _check_value(draft: ChargeDraft, path: str, reading: Reading) -> None:
    """A meter that does not add up has a value, of which nothing is left over, and no event or window has a part."""
    if draft.meter is None or draft.meter.is_additive:
        return
    message = f"does not go with a meter of aggregation {draft.meter.aggregation}, which does not add up"
    for name in ("rollover_max", "limits"):
        if getattr(draft, name):
            reading.fault(f"{path}.{name}", "not_additive", message)
    if draft.price.clamps_events:
        reading.fault(f"{path}.price", "not_additive", f"clamps each event, which {message}")


def _check_licences(drafts: Mapping[str, ChargeDraft], reading: Reading) -> None:
    codes: set[str] = set()
    for path, draft in drafts.items():
        if draft.kind == ChargeKind.LICENSED and draft.code in codes:
            reading.fault(f"{path}.code", "duplicate", "is the code of an earlier charge")
        codes.add(draft.code)


def _check_matching(drafts: Mapping[str, ChargeDraft], reading: Reading) -> None:
    """
    Report charges of a meter that would tie for some usage: the most specific charge prices it, so there must be one.

    Two charges tie when they name equally many dimensions and contradict each other in none, unless a third names more of the same values
    and so comes before both wherever they meet.
    """
    by_meter: dict[str, dict[str, frozenset[tuple[str, str]]]] = {}
    for path, draft in drafts.items():
        if draft.meter is not None and all(isinstance(text, str) for text in draft.dimensions.values()):
            by_meter.setdefault(draft.meter.code, {})[path] = frozenset(draft.dimensions.items())
    for sets in by_meter.values():
        for (first, one), (second, other) in combinations(sets.items(), 2):
            if one == other:
                reading.fault(f"{second}.dimensions", "duplicate", f"prices the same usage as {first}")
            elif _tie(one, other) and not _settled(one | other, len(one), sets.values()):
                reading.fault(f"{second}.dimensions", "ambiguous", f"ties with {first} for usage that both match")


def _tie(one: frozenset[tuple[str, str]], other: frozenset[tuple[str, str]]) -> bool:
    names = [name for name, _ in one | other]
    return len(one) == len(other) and len(names) == len(set(names))


def _settled(both: frozenset[tuple[str, str]], named: int, sets: Iterable[frozenset[tuple[str, str]]]) -> bool:
    return any(len(each) > named and each <= both for each in sets)
