"""
The catalogue from text: meters, tiers and versions that are missing are made, drafts replaced, names brought up to date.

Owns what such a text may ask for. Nothing is ever deleted, what the text leaves out stays, and what is final is refused rather than changed.
All or nothing: one transaction, by the same writers as every other door.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from django.db import transaction

from billing_site.http.problems import DomainError, Invalid
from billing_site.http.wire import parse_timestamp
from subscriptions.core.differences import differences
from subscriptions.core.documents import Reading, join
from subscriptions.core.yaml_documents import NotReadable, read_yaml
from subscriptions.models import Meter, Publication, Tier, TierVersion
from subscriptions.selectors.catalog import with_parts
from subscriptions.selectors.catalog_text import METER_MEMBERS, catalog_document, meter_document, stored_version
from subscriptions.services import catalog
from subscriptions.services.guards import NotCleared
from subscriptions.services.meter_documents import PRECISION_MAX, WINDOW_DAYS_MAX, read_counting
from subscriptions.services.reading import code, listed, text_of, whole
from subscriptions.services.version_documents import read_version

ENTRIES_MAX = 10_000
NUMBER_MAX = 999_999_999
_COUNTING = ("event_type", "aggregation", "value_property", "filters", "dimensions")
_NEW_METER = {
    "filters": {},
    "dimensions": [],
    "unit": "",
    "precision": 0,
    "late_policy": "next_invoice",
    "window_days": 35,
}
_NEW_TIER = {"description": ""}
_BESIDE_TERMS = ("number", "publications")
PUBLICATIONS_MAX = len(Publication.Cohort)


class InvalidCatalog(Invalid):
    """The text is no catalogue, or asks for what cannot be; `errors` names every fault by its path."""

    code = "invalid_catalog"
    title = "The catalogue cannot be imported"


class ChangedSinceSeen(DomainError):
    """The text or the catalogue is not what it was when its changes were shown."""

    status = 412
    code = "stale"
    title = "The changes are not those that were shown"


@transaction.atomic
def import_catalog(
    *, text: str, now: datetime, actor: str, dry_run: bool = False, seen: str | None = None
) -> list[str]:
    """
    Bring the catalogue to what a text says, and return in words what that changes; nothing for the text of `catalog_text`.

    A version with publications that is missing or a draft here is published with them, as by any other door (`now` is wall time). With `dry_run` all is done and
    taken back. `seen` is the digest of what a dry run has told: anything else is not done. Raises InvalidCatalog (422), also for a change of
    what is final: how a meter counts, a published version; ChangedSinceSeen (412).
    """
    try:
        document = read_yaml(text)
    except NotReadable as error:
        raise InvalidCatalog(str(error), errors=[("", "not_readable", str(error))]) from error
    before = _by_name(catalog_document())
    importing = _Import(now, actor)
    importing.run(document)
    if faults := importing.reading.faults:
        message = " ".join(f"{fault.path}: {fault.message}." for fault in faults[:3])
        raise InvalidCatalog(message, errors=faults)
    after = _by_name(catalog_document())
    if dry_run:
        transaction.set_rollback(True)
    changes = _in_words(before, after)
    if seen is not None and seen != changes_digest(text, changes):
        raise ChangedSinceSeen(
            "The text, or the catalogue, has changed since its changes were shown; look at them again."
        )
    return changes


def changes_digest(text: str, changes: Sequence[str]) -> str:
    """Return what stands for a text and what it was said to change, for a form to send back."""
    # Browsers send a text's line breaks in another form than they got them.
    said = [*text.splitlines(), *changes]
    return sha256(json.dumps(said).encode()).hexdigest()


def _by_name(document: Mapping[str, Any]) -> dict[str, Any]:
    named = {f"meter {meter['code']}": meter for meter in document["meters"]}
    for tier in document["tiers"]:
        named[f"tier {tier['code']}"] = {name: value for name, value in tier.items() if name != "versions"}
        named |= {f"tier {tier['code']}, version {version['number']}": version for version in tier["versions"]}
    return named


def _in_words(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    words = []
    for name, document in after.items():
        if name not in before:
            live = (
                f", live for {one['cohort']} from {one['effective_at']}" for one in document.get("publications", ())
            )
            words.append(f"{name}: new{''.join(live)}")
        else:
            words += [f"{name}: {change}" for change in differences(before[name], document)]
    return words


class _Import:
    """One pass over a catalogue's document, writing what it can and collecting what it cannot."""

    def __init__(self, now: datetime, actor: str) -> None:
        self.now = now
        self.actor = actor
        self.reading = Reading()

    def run(self, document: object) -> None:
        given = self.reading.members(document, path="", known=("meters", "tiers")) or {}
        for name, take in (("meters", self._meter), ("tiers", self._tier)):
            for index, entry in enumerate(listed(given.get(name, []), name, self.reading, at_most=ENTRIES_MAX)):
                self._attempt(take, entry, f"{name}.{index}")

    def _attempt(self, take: Any, entry: Any, path: str, *further: Any) -> None:
        """Take one entry; the faults that a writer names are named by their place in the whole text."""
        try:
            take(entry, path, *further)
        except (Invalid, NotCleared) as refusal:
            for error in refusal.errors or [("", refusal.code, refusal.detail)]:
                self.reading.fault(join(path, error[0]) if error[0] else path, error[1], error[2])

    def _meter(self, entry: object, path: str) -> None:
        faults = len(self.reading.faults)
        given = self.reading.members(entry, path=path, known=METER_MEMBERS) or {}
        meter = Meter.objects.filter(code=code(given.get("code"), join(path, "code"), self.reading)).first()
        given = {**_left_out(entry, meter_document(meter) if meter else _NEW_METER), **given}
        described: dict[str, Any] = {
            "name": text_of(given.get("name"), join(path, "name"), self.reading),
            "unit": text_of(given.get("unit"), join(path, "unit"), self.reading, at_least=0, at_most=50),
            "precision": whole(given.get("precision"), join(path, "precision"), self.reading, at_most=PRECISION_MAX),
            "late_policy": self._choice(given.get("late_policy"), join(path, "late_policy"), Meter.LatePolicy.values),
            "window_days": whole(
                given.get("window_days"), join(path, "window_days"), self.reading, at_least=1, at_most=WINDOW_DAYS_MAX
            ),
        }
        event_type = text_of(given.get("event_type"), join(path, "event_type"), self.reading)
        named = {name: given.get(name) for name in _COUNTING if name != "event_type"}
        counting = {"event_type": event_type, **read_counting(**named)}
        if len(self.reading.faults) > faults:
            return
        if meter is None:
            catalog.create_meter(code=given["code"], actor=self.actor, **counting, **described)
            return
        for name in _COUNTING:
            if _json(counting[name]) != _json(getattr(meter, name)):
                message = f"decides how the meter {meter} counts, which is fixed since it was made; make another meter"
                self.reading.fault(join(path, name), "fixed", message)
        catalog.update_meter(meter_id=meter.pk, changes=described, actor=self.actor)

    def _tier(self, entry: object, path: str) -> None:
        faults = len(self.reading.faults)
        given = self.reading.members(entry, path=path, known=("code", "name", "description", "versions")) or {}
        named = code(given.get("code"), join(path, "code"), self.reading)
        tier = Tier.objects.filter(code=named).first()
        given = {
            **_left_out(entry, {"name": tier.name, "description": tier.description} if tier else _NEW_TIER),
            **given,
        }
        described = {
            "name": text_of(given.get("name"), join(path, "name"), self.reading),
            "description": text_of(
                given.get("description"),
                join(path, "description"),
                self.reading,
                at_least=0,
                at_most=5000,
                multiline=True,
            ),
        }
        if len(self.reading.faults) > faults:
            return
        if tier is None:
            tier = catalog.create_tier(code=named, actor=self.actor, **described)
        else:
            catalog.update_tier(tier_id=tier.pk, changes=described, actor=self.actor)
        where = join(path, "versions")
        for index, version in enumerate(listed(given.get("versions", []), where, self.reading, at_most=ENTRIES_MAX)):
            self._attempt(self._version, version, f"{where}.{index}", tier)

    def _version(self, entry: object, path: str, tier: Tier) -> None:
        if not isinstance(entry, Mapping):
            self.reading.fault(path, "not_an_object", "must be an object: a version's number, and its document")
            return
        faults = len(self.reading.faults)
        number = whole(entry.get("number"), join(path, "number"), self.reading, at_least=1, at_most=NUMBER_MAX)
        publications = self._publications(entry.get("publications", []), join(path, "publications"))
        if len(self.reading.faults) > faults:
            return
        terms = {name: value for name, value in entry.items() if name not in _BESIDE_TERMS}
        stored = with_parts(tier.versions.filter(number=number)).first()
        if stored is not None and stored.is_published:
            self._check_final(stored, terms, publications, path)
            return
        version = self._draft(tier, number, stored, terms, path)
        if version is None:
            return
        for cohort, effective_at in publications:
            catalog.publish(
                version_id=version.pk, now=self.now, actor=self.actor, cohort=cohort, effective_at=effective_at
            )

    def _draft(
        self, tier: Tier, number: int, stored: TierVersion | None, terms: Mapping[str, Any], path: str
    ) -> TierVersion | None:
        """Make or replace a draft, and return it; None where the number leaves a gap."""
        if stored is not None:
            if _same_terms(stored, terms):
                return stored
            return catalog.save_draft(
                version_id=stored.pk, document=terms, expected_revision=stored.revision, actor=self.actor
            )
        newest = tier.versions.order_by("-number").values_list("number", flat=True).first() or 0
        if number != newest + 1:
            self.reading.fault(join(path, "number"), "not_next", f"must be {newest + 1}, the next of the tier {tier}")
            return None
        return catalog.create_version(tier=tier, document=terms, actor=self.actor)

    def _check_final(
        self, stored: TierVersion, terms: Mapping[str, Any], publications: Sequence[tuple[str, datetime]], path: str
    ) -> None:
        if not _same_terms(stored, terms):
            found = "; ".join(differences(_terms_of(stored), dict(terms)))
            message = f"{stored} is published and final; give what should change the next number ({found})"
            self.reading.fault(path, "published", message)
        elif sorted(publications) != sorted(_standing(stored)):
            message = f"{stored} is published already, otherwise; publish it to others, or undo what is to come, apart"
            self.reading.fault(join(path, "publications"), "published", message)

    def _publications(self, value: object, path: str) -> list[tuple[str, datetime]]:
        """Read to which cohorts a version is published, and since when; each once."""
        found: list[tuple[str, datetime]] = []
        for index, entry in enumerate(listed(value, path, self.reading, at_most=PUBLICATIONS_MAX)):
            where = f"{path}.{index}"
            given = self.reading.members(entry, path=where, known=("cohort", "effective_at"))
            if given is None:
                continue
            cohort = self._choice(given.get("cohort"), f"{where}.cohort", Publication.Cohort.values)
            if cohort in [earlier for earlier, _ in found]:
                self.reading.fault(f"{where}.cohort", "duplicate", "is the cohort of an earlier one")
            try:
                found.append((cohort, parse_timestamp(given.get("effective_at", ""))))
            except ValueError as error:
                self.reading.fault(f"{where}.effective_at", "invalid", str(error))
        return found

    def _choice(self, value: object, path: str, choices: Sequence[str]) -> str:
        if value not in choices:
            self.reading.fault(path, "unknown_choice", f"must be one of {', '.join(choices)}")
        return str(value)


def _left_out(entry: object, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored of the members that an entry does not have, not even as null."""
    return {name: value for name, value in stored.items() if not isinstance(entry, Mapping) or name not in entry}


def _same_terms(stored: TierVersion, terms: Mapping[str, Any]) -> bool:
    """Whether a document says what a version says, however it writes it."""
    ours, theirs = read_version(_terms_of(stored)), read_version(terms)
    return ours == theirs and _json(ours.features) == _json(theirs.features)


def _terms_of(stored: TierVersion) -> dict[str, Any]:
    return {name: value for name, value in stored_version(stored).items() if name not in _BESIDE_TERMS}


def _standing(stored: TierVersion) -> list[tuple[str, datetime]]:
    return [(one.cohort, one.effective_at) for one in stored.publications.all() if one.undone_at is None]


def _json(value: object) -> str:
    """Return a text that tells apart what Python takes for equal, such as true and 1."""
    return json.dumps(value, sort_keys=True)
