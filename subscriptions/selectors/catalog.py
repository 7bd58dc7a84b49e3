"""The catalogue as others read it: rows by their codes, a version as a document, a version as terms to calculate with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery

from billing_site.http.problems import DomainError
from subscriptions.core.money import minor_units, plain
from subscriptions.core.periods import Alignment, Cadence, Interval
from subscriptions.core.price_documents import parse_price, price_document
from subscriptions.core.pricing import Price, PriceModel
from subscriptions.models import Charge, Meter, Publication, ScheduledChange, Tier, TierVersion

# The members of `version_document` that are ours to say; the others are the document that `save_draft` takes.
ANSWERED_MEMBERS = ("number", "status", "revision", "published_at", "effective_at", "publications")

# A longer list is nothing to choose from on a page.
CHOICES_MAX = 1000


class CatalogItemNotFound(DomainError):
    """No meter, tier or version stands at this address."""

    status = 404
    code = "not_found"
    title = "There is no such item in the catalogue"


@dataclass(frozen=True, slots=True)
class UsageCharge:
    """How a version charges the usage of one meter, or the part of it that matches `dimensions` (sorted by name)."""

    id: int
    position: int
    meter_id: int
    meter_code: str
    dimensions: tuple[tuple[str, str], ...]
    # Quantity per period. None: shares the pool of the meter's default charge.
    included: Decimal | None
    # The same of a trial. None: as without one.
    trial_included: Decimal | None
    at_limit: str
    overage_quantity_max: Decimal | None
    # As they were read: {"percent": 80}, {"amount": "50", "once": "life"}.
    thresholds: tuple[Mapping[str, Any], ...]
    # Rolling windows: (ISO 8601 length, quantity).
    limits: tuple[tuple[str, Decimal], ...]
    # How much of what is left of the allowance moves into the next period, and for how many it stays.
    rollover_max: Decimal
    rollover_periods: int
    price: Price


@dataclass(frozen=True, slots=True)
class VersionTerms:
    """A published version as values to calculate with."""

    id: int
    tier_code: str
    tier_name: str
    number: int
    currency: str
    cadence: Cadence
    fee: Decimal
    fee_timing: str
    fee_every: int
    grace_hours: int
    trial_days: int
    # What becomes of a subscription when its trial ends, and whether what it uses beyond the trial's allowance is billed.
    trial_end: str
    trial_overage: str
    charges: tuple[UsageCharge, ...]
    change_terms: Mapping[str, str]


def get_meter(code: str) -> Meter:
    """Return the meter. Raises CatalogItemNotFound (404)."""
    meter = Meter.objects.filter(code=code).first()
    if meter is None:
        raise CatalogItemNotFound(f"There is no meter {code}.")
    return meter


def get_tier(code: str) -> Tier:
    """Return the tier. Raises CatalogItemNotFound (404)."""
    tier = Tier.objects.filter(code=code).first()
    if tier is None:
        raise CatalogItemNotFound(f"There is no tier {code}.")
    return tier


def meters_by_code() -> list[Meter]:
    """Return the meters, up to CHOICES_MAX, by their codes."""
    return list(Meter.objects.order_by("code")[:CHOICES_MAX])


def tiers_by_code() -> list[Tier]:
    """Return the tiers, up to CHOICES_MAX, by their codes."""
    return list(Tier.objects.order_by("code")[:CHOICES_MAX])


def tier_by_id(tier_id: int) -> Tier | None:
    """Return the tier, or None."""
    return Tier.objects.filter(pk=tier_id).first()


def get_version(tier: Tier, number: int) -> TierVersion:
    """Return the tier's version of that number, with its parts loaded. Raises CatalogItemNotFound (404)."""
    version = with_parts(tier.versions.filter(number=number)).first()
    if version is None:
        raise CatalogItemNotFound(f"The tier {tier.code} has no version {number}.")
    return version


def get_version_by_id(version_id: int) -> TierVersion:
    """Return a version with its parts loaded. Raises CatalogItemNotFound (404)."""
    version = with_parts(TierVersion.objects.filter(pk=version_id)).first()
    if version is None:
        raise CatalogItemNotFound("There is no such version.")
    return version


def with_parts(versions: QuerySet[TierVersion]) -> QuerySet[TierVersion]:
    """Load all that `version_document` reads, in a fixed number of queries."""
    return versions.select_related("tier").prefetch_related(
        "charges__bands", "charges__meter", "features", "publications"
    )


def live_version(tier: Tier, *, at: datetime) -> TierVersion | None:
    """Return the version that who subscribes at the instant gets: the latest to take effect by then, by number where two tie."""
    newest = _live(at).filter(version__tier=tier).select_related("version__tier").first()
    return newest.version if newest else None


def tiers_with_live_number(*, at: datetime) -> QuerySet[Tier]:
    """Return all tiers, each with `live_number`: the number of its `live_version`, or None."""
    newest = _live(at).filter(version__tier=OuterRef("pk")).values("version__number")[:1]
    return Tier.objects.annotate(live_number=Subquery(newest, output_field=IntegerField()))


def live_versions(*, at: datetime) -> QuerySet[TierVersion]:
    """Return each tier's `live_version`, where it has one."""
    newest = _live(at).filter(version__tier=OuterRef("tier")).values("version")[:1]
    return TierVersion.objects.filter(pk=Subquery(newest))


def _live(at: datetime) -> QuerySet[Publication]:
    taken_effect = Publication.objects.filter(undone_at__isnull=True, effective_at__lte=at)
    return taken_effect.order_by("-effective_at", "-version__number")


def price_of(charge: Charge) -> Price:
    """Return a charge's price as the core reads it, from its terms and bands."""
    document: dict[str, Any] = {"model": charge.price_model, **charge.price_terms}
    rate = "rate" if charge.price_model == PriceModel.GRADUATED_PERCENTAGE else "unit_amount"
    bands = [
        {"up_to": band.up_to, rate: band.unit_amount, "flat_amount": band.flat_amount} for band in charge.bands.all()
    ]
    return parse_price(document | {"bands": bands} if bands else document)


def terms_of(version_id: int) -> VersionTerms:
    """
    Return a version as values to calculate with.

    A published version never changes, so that each process reads it once; a draft is read anew each time.
    Raises CatalogItemNotFound (404).
    """
    try:
        return _published_terms(version_id)
    except _NotFinal as draft:
        return version_terms(draft.version)


class _NotFinal(Exception):
    """Carries a draft past the cache: what raises is not remembered."""

    def __init__(self, version: TierVersion) -> None:
        super().__init__(str(version))
        self.version = version


@lru_cache(maxsize=4096)
def _published_terms(version_id: int) -> VersionTerms:
    version = get_version_by_id(version_id)
    if not version.is_published:
        raise _NotFinal(version)
    return version_terms(version)


def version_terms(version: TierVersion) -> VersionTerms:
    """Return a version that was loaded `with_parts` as values to calculate with."""
    return VersionTerms(
        id=version.pk,
        tier_code=version.tier.code,
        tier_name=version.tier.name,
        number=version.number,
        currency=version.currency,
        cadence=Cadence(Interval(version.interval), version.interval_count, Alignment(version.alignment)),
        fee=version.fee,
        fee_timing=version.fee_timing,
        fee_every=version.fee_every,
        grace_hours=version.grace_hours,
        trial_days=version.trial_days,
        trial_end=version.trial_end,
        trial_overage=version.trial_overage,
        charges=tuple(_usage_charge(charge) for charge in version.charges.all() if charge.kind == "usage"),
        change_terms=version.change_terms,
    )


def _usage_charge(charge: Charge) -> UsageCharge:
    assert charge.meter is not None  # a constraint: usage has its meter
    return UsageCharge(
        id=charge.pk,
        position=charge.position,
        meter_id=charge.meter.pk,
        meter_code=charge.meter.code,
        dimensions=tuple(sorted(charge.dimensions.items())),
        included=charge.included,
        trial_included=charge.trial_included,
        at_limit=charge.at_limit,
        overage_quantity_max=charge.overage_quantity_max,
        thresholds=tuple(charge.thresholds),
        limits=tuple((limit["window"], Decimal(limit["quantity"])) for limit in charge.limits),
        rollover_max=charge.rollover_max,
        rollover_periods=charge.rollover_periods,
        price=price_of(charge),
    )


def version_document(version: TierVersion) -> dict[str, Any]:
    """
    Return a version as the document that `catalog.save_draft` takes, and what only we can say: see ANSWERED_MEMBERS.

    Saving the document of a version into a draft gives a version with the same document. Load many with `with_parts`.
    """
    published = sorted(version.publications.all(), key=lambda one: one.pk)
    lasting = [one.effective_at for one in published if one.undone_at is None]
    return {
        "currency": version.currency,
        "interval": version.interval,
        "interval_count": version.interval_count,
        "alignment": version.alignment,
        "fee": money_text(version.fee, version.currency),
        "fee_timing": version.fee_timing,
        "fee_every": version.fee_every,
        "grace_hours": version.grace_hours,
        "trial_days": version.trial_days,
        "trial_end": version.trial_end,
        "trial_overage": version.trial_overage,
        "change": version.change_terms,
        "charges": [_charge_document(charge, version.currency) for charge in version.charges.all()],
        "features": features_of(version),
        "number": version.number,
        "status": "published" if version.is_published else "draft",
        "revision": version.revision,
        "published_at": version.published_at,
        "effective_at": min(lasting, default=None),
        "publications": [_publication_document(one) for one in published],
    }


def editable_document(version: TierVersion) -> dict[str, Any]:
    """Return the members of a version's document that are the editor's to write."""
    return {name: value for name, value in version_document(version).items() if name not in ANSWERED_MEMBERS}


def version_document_with_progress(version: TierVersion) -> dict[str, Any]:
    """Return the same with how far each publication is: see `progress_of`."""
    document = version_document(version)
    for publication, shown in zip(
        sorted(version.publications.all(), key=lambda one: one.pk), document["publications"], strict=True
    ):
        shown["progress"] = progress_of(publication)
    return document


def progress_of(publication: Publication) -> dict[str, int]:
    """
    Count the changes that a publication has scheduled by what has become of them.

    `planned` is all of them: those `scheduled` still, `done`, `undone` and `dropped`. `parked` are those of the scheduled whose tries are used
    up: they wait for staff.
    """
    changes = publication.scheduled_changes
    counts = dict(changes.values_list("status").annotate(Count("pk")))
    progress = {status: counts.get(status, 0) for status in ScheduledChange.Status.values}
    return {"planned": sum(progress.values()), **progress, "parked": changes.filter(parked_at__isnull=False).count()}


def _publication_document(publication: Publication) -> dict[str, Any]:
    members = ("cohort", "effective_at", "published_by", "reason", "planned_at", "undone_at")
    return {name: getattr(publication, name) for name in members}


def features_of(version: TierVersion) -> dict[str, Any]:
    """Return what the version entitles to: {"sso": True, "max_projects": 10}."""
    return {feature.code: feature.value for feature in version.features.all()}


def _charge_document(charge: Charge, currency: str) -> dict[str, Any]:
    price = price_of(charge)
    if charge.kind == "licensed":
        assert price.unit_amount is not None  # a licence is priced per unit
        unit_amount = money_text(price.unit_amount, currency)
        return {"kind": "licensed", "code": charge.code, "unit_amount": unit_amount, "included": _text(charge.included)}
    assert charge.meter is not None  # a constraint: usage has its meter
    return {
        "kind": "usage",
        "meter": charge.meter.code,
        "included": _text(charge.included),
        "trial_included": _text(charge.trial_included),
        "rollover_max": _text(charge.rollover_max),
        "rollover_periods": charge.rollover_periods,
        "dimensions": charge.dimensions,
        "at_limit": charge.at_limit,
        "overage_quantity_max": _text(charge.overage_quantity_max),
        "limits": charge.limits,
        "thresholds": charge.thresholds,
        "price": price_document(price),
    }


def _text(quantity: Decimal | None) -> str | None:
    return None if quantity is None else plain(quantity)


def money_text(amount: Decimal, currency: str) -> str:
    """
    Write an amount with the decimals of its currency, and more only where it has more.

    >>> money_text(Decimal("99.000000"), "USD"), money_text(Decimal("0.0002"), "USD"), money_text(Decimal("499.00"), "JPY")
    ('99.00', '0.0002', '499')
    """
    whole, _, decimals = plain(amount).partition(".")
    decimals = decimals.ljust(minor_units(currency), "0")
    return f"{whole}.{decimals}" if decimals else whole
