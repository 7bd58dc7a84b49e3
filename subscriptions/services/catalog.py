"""
The catalogue's writers: meters, tiers, and their versions from draft to publication.

A draft is one document, saved whole (`version_documents` judges it). A published version never changes: a trigger keeps it.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Max

from billing_site.http.problems import DomainError
from subscriptions.core.price_documents import price_document
from subscriptions.models import Charge, Feature, Meter, PriceBand, Publication, Tier, TierVersion
from subscriptions.selectors.catalog import ANSWERED_MEMBERS, CatalogItemNotFound, version_document, with_parts
from subscriptions.services import audit, guards, publications, uniqueness
from subscriptions.services.charge_documents import ChargeDraft
from subscriptions.services.linting import check_lint
from subscriptions.services.meter_documents import read_counting
from subscriptions.services.version_documents import VersionDraft, check_publishable, read_version

# What of a meter may change later; all else decides its count.
METER_CHANGEABLE = ("name", "unit", "precision", "late_policy", "window_days")
TIER_CHANGEABLE = ("name", "description")
_EMPTY_PAGE = {"currency": "USD"}
_VERSION_COLUMNS = (
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
    "change_terms",
)


class VersionPublished(DomainError):
    """The version is final, or published to that cohort already; make a new one."""

    code = "version_published"
    title = "The version is published"


class StaleRevision(DomainError):
    """The draft was saved by somebody else since it was read."""

    status = 412
    code = "stale"
    title = "The draft has changed meanwhile"


@transaction.atomic
def create_meter(
    *,
    code: str,
    name: str,
    event_type: str,
    aggregation: str,
    actor: str,
    value_property: object = None,
    filters: object = None,
    dimensions: object = None,
    unit: str = "",
    precision: int = 0,
    late_policy: str = Meter.LatePolicy.NEXT_INVOICE.value,
    window_days: int = 35,
) -> Meter:
    """
    Make a meter. How it counts is fixed from here on: a trigger keeps it.

    Raises AlreadyExists (409) for a code that is taken, InvalidMeter (422) for what cannot be counted.
    """
    counting = read_counting(
        aggregation=aggregation, value_property=value_property, filters=filters, dimensions=dimensions
    )
    described = {
        "name": name,
        "unit": unit,
        "precision": precision,
        "late_policy": late_policy,
        "window_days": window_days,
    }
    meter = Meter(code=code, event_type=event_type, **counting, **described)
    uniqueness.insert(meter, code=code)
    after = {"code": code, "event_type": event_type, **counting, **described}
    audit.record(actor=actor, action="create", instance=meter, after=after)
    return meter


@transaction.atomic
def update_meter(*, meter_id: int, changes: Mapping[str, Any], actor: str) -> Meter:
    """Change the members of METER_CHANGEABLE that `changes` names; without a difference nothing is written."""
    assert set(changes) <= set(METER_CHANGEABLE), f"fixed members of a meter: {set(changes) - set(METER_CHANGEABLE)}"
    meter = Meter.objects.select_for_update(no_key=True, of=("self",)).get(pk=meter_id)
    _update(meter, changes, METER_CHANGEABLE, actor)
    return meter


@transaction.atomic
def create_tier(*, code: str, name: str, actor: str, description: str = "") -> Tier:
    """Make a tier, which has no version yet. Raises AlreadyExists (409) for a code that is taken."""
    tier = Tier(code=code, name=name, description=description)
    uniqueness.insert(tier, code=code)
    after = {"code": code, "name": name, "description": description}
    audit.record(actor=actor, action="create", instance=tier, after=after)
    return tier


@transaction.atomic
def update_tier(
    *, tier_id: int, changes: Mapping[str, Any], actor: str, limits: Mapping[str, Decimal | None] | None = None
) -> Tier:
    """
    Change the members of TIER_CHANGEABLE that `changes` names, and the guards that `limits` names; without a difference nothing is written.

    Raises Invalid (422) for what is no limit: see `guards.set_guards`.
    """
    assert set(changes) <= set(TIER_CHANGEABLE), f"fixed members of a tier: {set(changes) - set(TIER_CHANGEABLE)}"
    tier = Tier.objects.select_for_update(no_key=True, of=("self",)).get(pk=tier_id)
    _update(tier, changes, TIER_CHANGEABLE, actor)
    if limits:
        guards.set_guards(tier_id=tier_id, limits=limits, actor=actor)
    return tier


@transaction.atomic
def create_version(*, tier: Tier, actor: str, document: object = None) -> TierVersion:
    """
    Make the tier's next draft, numbered one above its newest version.

    Without a document it starts as a copy of that version, so that a new price is an edit; of a tier without versions, as an empty page in
    USD. Raises InvalidVersion (422).
    """
    locked = Tier.objects.select_for_update(no_key=True, of=("self",)).get(pk=tier.pk)
    newest = locked.versions.aggregate(number=Max("number"))["number"] or 0
    draft = read_version(_document_of(locked, newest) if document is None else document)
    version = TierVersion(tier=locked, number=newest + 1, revision=0)
    _write(version, draft, actor)
    saved = _loaded(version.pk)
    audit.record(actor=actor, action="draft", instance=saved, after=_recorded(saved))
    return saved


@transaction.atomic
def save_draft(*, version_id: int, document: object, expected_revision: int, actor: str) -> TierVersion:
    """
    Replace a draft whole, and return it with its revision raised.

    The document may have ANSWERED_MEMBERS, too, as they are: it can be read, edited and sent back. `expected_revision` is the one that the
    editor has read: two editors at once cannot overwrite each other. Raises VersionPublished (409),
    StaleRevision (412), InvalidVersion (422) with every fault by its path.
    """
    version = _locked_draft(version_id, expected_revision)
    shown = version_document(version)
    before = _recorded(version)
    _write(version, read_version(document, answered={name: shown[name] for name in ANSWERED_MEMBERS}), actor)
    saved = _loaded(version.pk)
    changed = audit.changes(before, _recorded(saved))
    audit.record(actor=actor, action="save_draft", instance=saved, before=changed[0], after=changed[1])
    return saved


@transaction.atomic
def publish(
    *,
    version_id: int,
    now: datetime,
    actor: str,
    effective_at: datetime | None = None,
    cohort: str = Publication.Cohort.NEW.value,
    expected_revision: int | None = None,
    reason: str = "",
) -> TierVersion:
    """
    Make a version live for a cohort from `effective_at` (default: `now`, wall time) on, and final if it is a draft.

    `new`: for who subscribes from then on. `renewal`: also for the subscriptions that the tier has, with their first period that begins then or
    later. `now`: also for those, at that instant, by the version's terms of change. Each has its change scheduled shortly (`publications`). For
    `new`, an `effective_at` in the past concerns test clocks and back-dated starts only. With `expected_revision` exactly what was read is
    published; `reason` is kept with the publication. Raises VersionPublished (409) where it is published to that cohort, StaleRevision (412),
    TermsNotAvailable (422) for terms that this release cannot carry out, BlockedByLinter (422) for prices that nobody can mean,
    BacktestNeeded, GuardBroken and ApprovalNeeded (409) while `guards` keep it back, and ValueError for an unknown cohort.
    """
    version = locked_version(version_id, expected_revision)
    if version.publications.filter(cohort=cohort, undone_at__isnull=True).exists():
        raise VersionPublished(f"Version {version.number} of {version.tier.code} is published to the cohort {cohort}.")
    # Against who comes to the tier meanwhile: see `publications.join`.
    Tier.objects.select_for_update(no_key=True, of=("self",)).get(pk=version.tier_id)
    if not version.is_published:
        check_publishable(version_document(version))
        check_lint(version)
    guards.check_publishable_by(version, actor=actor)
    if not version.is_published:
        version.published_at = now
        version.save(update_fields=["published_at"])
    effective_at = effective_at or now
    Publication.objects.create(
        version=version,
        cohort=Publication.Cohort(cohort),
        effective_at=effective_at,
        published_by=actor[:200],
        reason=reason,
        planned_at=now if cohort == Publication.Cohort.NEW else None,
    )
    if cohort != Publication.Cohort.NEW:
        publications.ring()
    after = {"revision": version.revision, "cohort": cohort, "effective_at": effective_at}
    audit.record(actor=actor, action="publish", instance=version, after=after, reason=reason)
    return _loaded(version.pk)


def _update(instance: Meter | Tier, changes: Mapping[str, Any], changeable: tuple[str, ...], actor: str) -> None:
    before, after = audit.changes({name: getattr(instance, name) for name in changeable}, changes)
    if not after:
        return
    for name, value in after.items():
        setattr(instance, name, value)
    instance.save(update_fields=list(after))
    audit.record(actor=actor, action="update", instance=instance, before=before, after=after)


def _locked_draft(version_id: int, expected_revision: int) -> TierVersion:
    version = locked_version(version_id, None)
    if version.is_published:
        raise VersionPublished(
            f"Version {version.number} of {version.tier.code} is published and final; make a new one."
        )
    _check_revision(version, expected_revision)
    return version


def locked_version(version_id: int, expected_revision: int | None) -> TierVersion:
    """Return a version with its parts, locked until the transaction ends. Raises CatalogItemNotFound (404), StaleRevision (412)."""
    if TierVersion.objects.select_for_update(no_key=True, of=("self",)).filter(pk=version_id).first() is None:
        raise CatalogItemNotFound("There is no such version.")
    version = _loaded(version_id)
    _check_revision(version, expected_revision)
    return version


def _check_revision(version: TierVersion, expected: int | None) -> None:
    if expected is not None and version.revision != expected:
        raise StaleRevision(
            f"The draft has been saved meanwhile: it is at revision {version.revision}, not {expected}."
        )


def _loaded(version_id: int) -> TierVersion:
    return with_parts(TierVersion.objects.filter(pk=version_id)).get()


def _document_of(tier: Tier, number: int) -> Mapping[str, Any]:
    version = with_parts(tier.versions.filter(number=number)).first()
    return _recorded(version) if version else _EMPTY_PAGE


def _recorded(version: TierVersion) -> dict[str, Any]:
    document = version_document(version)
    return {name: value for name, value in document.items() if name not in ANSWERED_MEMBERS}


def _write(version: TierVersion, draft: VersionDraft, actor: str) -> None:
    """Write the version's row, and all of its parts anew."""
    for name in _VERSION_COLUMNS:
        setattr(version, name, getattr(draft, name))
    version.revision += 1
    version.saved_by = actor[:200]
    version.save()
    version.charges.all().delete()
    version.features.all().delete()
    charges = Charge.objects.bulk_create(
        _charge_row(version, position, charge) for position, charge in enumerate(draft.charges)
    )
    PriceBand.objects.bulk_create(
        PriceBand(
            charge=row, position=position, up_to=band.up_to, unit_amount=band.unit_amount, flat_amount=band.flat_amount
        )
        for row, charge in zip(charges, draft.charges, strict=True)
        for position, band in enumerate(charge.price.bands)
    )
    Feature.objects.bulk_create(
        Feature(version=version, code=code, value=value) for code, value in draft.features.items()
    )


def _charge_row(version: TierVersion, position: int, charge: ChargeDraft) -> Charge:
    terms = price_document(charge.price)
    terms.pop("bands", None)
    return Charge(
        version=version,
        position=position,
        kind=charge.kind,
        code=charge.code,
        meter=charge.meter,
        included=charge.included,
        trial_included=charge.trial_included,
        rollover_max=charge.rollover_max,
        rollover_periods=charge.rollover_periods,
        dimensions=charge.dimensions,
        at_limit=charge.at_limit,
        overage_quantity_max=charge.overage_quantity_max,
        limits=charge.limits,
        thresholds=charge.thresholds,
        price_model=terms.pop("model"),
        price_terms=terms,
    )
