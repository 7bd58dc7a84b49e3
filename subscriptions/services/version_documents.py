"""
The version document: one validator for API, admin form and file.

Owns what a draft may say, and which of it can be published already. Its fields are those of the HTTP contract ("Catalogue"). Does not
own prices (`core.price_documents`) nor rows (`catalog`).

A fault is named by its path ("charges.0.price.bands.1.up_to"), a code and a message. Beside the codes of prices there are: unknown_currency,
too_fine, exclusive, not_text, too_long, invalid_code, does_not_exist, not_a_dimension, duplicate, ambiguous, included_not_zero, not_a_value, read_only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing_site.http.problems import Invalid
from subscriptions.core.changes import ChangeAllowance, ChangeBill, ChangeFee
from subscriptions.core.documents import ANY_NUMBER, Reading
from subscriptions.core.money import UnknownCurrency, is_representable, minor_units
from subscriptions.core.periods import Alignment, Interval
from subscriptions.core.proration import Grain
from subscriptions.services.charge_documents import ChargeDraft, read_charges
from subscriptions.services.reading import INTEGER_LIMIT, is_code, shortened, whole

FEATURES_MAX = 200
TRIAL_DAYS_MAX = 730
FEATURE_TEXT_MAX = 200

VERSION_FIELDS = (
    "currency",
    "interval",
    "interval_count",
    "alignment",
    "fee",
    "fee_timing",
    "fee_every",
    "grace_hours",
    "trial_days",
    "trial_end",
    "trial_overage",
    "change",
    "charges",
    "features",
)


class FeeTiming(StrEnum):
    """When a fee is due: with its span's start, or its end."""

    ADVANCE = "advance"
    ARREARS = "arrears"


class TrialEnd(StrEnum):
    """What becomes of a subscription when its trial ends."""

    CONVERT = "convert"
    PAUSE = "pause"
    CANCEL = "cancel"


class TrialOverage(StrEnum):
    """Whether usage beyond a trial's allowance is billed."""

    NONE = "none"
    BILL = "bill"


_CHANGE: Mapping[str, type[StrEnum]] = {
    "fee": ChangeFee,
    "grain": Grain,
    "allowance": ChangeAllowance,
    "bill": ChangeBill,
}


class InvalidVersion(Invalid):
    """The document is no version; `errors` names every fault."""


class TermsNotAvailable(Invalid):
    """The draft may say it, and this release cannot carry it out: publishing it would promise what is not kept."""

    code = "terms_not_available"
    title = "Some terms are not available yet"


@dataclass(frozen=True, slots=True)
class VersionDraft:
    """A version document that was read: every value checked and in its canonical form."""

    currency: str
    interval: str
    interval_count: int
    alignment: str
    fee: Decimal
    fee_timing: str
    fee_every: int
    grace_hours: int
    trial_days: int
    trial_end: str
    trial_overage: str
    change_terms: dict[str, str]
    charges: tuple[ChargeDraft, ...]
    features: dict[str, Any]


def read_version(document: object, *, answered: Mapping[str, Any] | None = None) -> VersionDraft:
    """
    Read a version document, or name all that is wrong with it.

    Only `currency` is required; what is absent or null has the default that the contract shows first: a month from the anniversary, no
    fee, no trial. Numbers may be strings or JSON numbers that were decoded as int or Decimal; a float is refused. `answered` has the
    members that we set ourselves: a document that was read, edited and sent back has them too, and they must be as they are there. Raises
    InvalidVersion (422), with up to 500 faults.
    """
    reading = Reading()
    answered = answered or {}
    given = reading.members(document, path="", known=(*VERSION_FIELDS, *answered))
    values: dict[str, Any] = {}
    if given is not None:
        _check_unchanged(given, answered, reading)
        values = {
            "currency": _currency(given.get("currency"), reading),
            "interval": reading.choice(given.get("interval", Interval.MONTH), "interval", Interval),
            "interval_count": whole(given.get("interval_count", 1), "interval_count", reading, at_least=1, at_most=366),
            "alignment": reading.choice(given.get("alignment", Alignment.ANNIVERSARY), "alignment", Alignment),
            "fee": reading.number(given.get("fee", 0), "fee", ANY_NUMBER),
            "fee_timing": reading.choice(given.get("fee_timing", FeeTiming.ADVANCE), "fee_timing", FeeTiming),
            "fee_every": whole(given.get("fee_every", 1), "fee_every", reading, at_least=1, at_most=120),
            "grace_hours": whole(given.get("grace_hours", 1), "grace_hours", reading, at_most=720),
            "trial_days": whole(given.get("trial_days", 0), "trial_days", reading, at_most=TRIAL_DAYS_MAX),
            "trial_end": reading.choice(given.get("trial_end", TrialEnd.CONVERT), "trial_end", TrialEnd),
            "trial_overage": reading.choice(
                given.get("trial_overage", TrialOverage.NONE), "trial_overage", TrialOverage
            ),
            "change_terms": _change_terms(given.get("change", {}), reading),
            "charges": read_charges(given.get("charges", []), reading),
            "features": _features(given.get("features", {}), reading),
        }
        _check_fee(values["fee"], values["currency"], reading)
    if reading.faults:
        raise InvalidVersion(_summary(len(reading.faults)), errors=reading.faults)
    written: dict[str, Any] = {name: str(each) if isinstance(each, StrEnum) else each for name, each in values.items()}
    return VersionDraft(**written)


def check_publishable(document: Mapping[str, Any]) -> None:
    """
    Refuse to publish terms whose behaviour is not built yet, so that nobody subscribes to a promise that is not kept.

    Takes the document of a saved draft. Raises TermsNotAvailable (422) with the path of each such term.
    """
    reading = Reading()
    message = "is kept in the draft, and cannot be published with this release"
    for index, charge in enumerate(document["charges"]):
        path = f"charges.{index}"
        if charge["kind"] == "licensed":
            reading.fault(f"{path}.kind", TermsNotAvailable.code, message)
    if reading.faults:
        raise TermsNotAvailable("The draft has terms that this release cannot carry out.", errors=reading.faults)


def _check_unchanged(given: Mapping[str, Any], answered: Mapping[str, Any], reading: Reading) -> None:
    for name, value in answered.items():
        # Of one type, too: true is no 1.
        if name in given and (type(given[name]), given[name]) != (type(value), value):
            reading.fault(name, "read_only", "is set by us: leave it out, or as it was answered")


def _currency(value: object, reading: Reading) -> str | None:
    if value is None:
        reading.fault("currency", "required", "is required: an ISO 4217 code such as USD")
        return None
    try:
        minor_units(value if isinstance(value, str) else "")
    except UnknownCurrency:
        reading.fault("currency", "unknown_currency", "must be an active ISO 4217 code such as USD")
        return None
    return str(value)


def _check_fee(fee: Decimal | None, currency: str | None, reading: Reading) -> None:
    if fee is not None and currency is not None and not is_representable(fee, currency):
        reading.fault("fee", "too_fine", f"has more decimals than the {minor_units(currency)} of {currency}")


def _change_terms(value: object, reading: Reading) -> dict[str, str]:
    given = reading.members(value, path="change", known=tuple(_CHANGE)) or {}
    terms = {}
    for name, choices in _CHANGE.items():
        default = next(iter(choices))
        choice = reading.choice(given.get(name, default), f"change.{name}", choices)
        terms[name] = str(choice or default)
    return terms


def _features(value: object, reading: Reading) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        reading.fault("features", "not_an_object", 'must be an object such as {"sso": true, "max_projects": 10}')
        return {}
    if len(value) > FEATURES_MAX:
        reading.fault("features", "too_many", f"must hold at most {FEATURES_MAX} features")
        return {}
    for code, entitlement in value.items():
        path = f"features.{shortened(code)}"
        if not is_code(code):
            reading.fault(path, "invalid_code", "must be named by 1 to 100 of the characters A-Z a-z 0-9 . _ : @ -")
        if not _is_entitlement(entitlement):
            message = f"must be true, false, a whole number or a text of at most {FEATURE_TEXT_MAX} characters"
            reading.fault(path, "not_a_value", message)
    return dict(value)


def _is_entitlement(value: object) -> bool:
    match value:
        case bool():
            return True
        case int():
            return abs(value) < INTEGER_LIMIT
        case str():
            return len(value) <= FEATURE_TEXT_MAX
    return False


def _summary(count: int) -> str:
    return "The version has one fault." if count == 1 else f"The version has {count} faults."
