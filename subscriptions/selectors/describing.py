"""Versions in words, for people who set prices: one whole, two side by side, and what changes from one to the other."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from subscriptions.core.describing import ComparedTerm, MeterWords, Term, compared, described
from subscriptions.models import Meter, TierVersion
from subscriptions.selectors.catalog import version_document

VersionOrDocument = TierVersion | Mapping[str, Any]


def version_in_words(version: VersionOrDocument) -> list[Term]:
    """Return the terms of a version (load it `with_parts`), or of a document that may not be stored."""
    document = _document(version)
    return described(document, _meters(document))


def versions_side_by_side(left: VersionOrDocument, right: VersionOrDocument) -> list[ComparedTerm]:
    """Return all terms of two versions, also those that are alike."""
    left, right = _document(left), _document(right)
    meters = _meters(left, right)
    return compared(described(left, meters), described(right, meters))


def version_changes_in_words(left: VersionOrDocument, right: VersionOrDocument) -> list[str]:
    """Return what changes from `left` to `right`: "Overage of Tokens: $0.0002 → $0.00018 per token"; nothing where they say the same."""
    return [term.in_words for term in versions_side_by_side(left, right) if term.is_changed]


def _document(version: VersionOrDocument) -> Mapping[str, Any]:
    return version_document(version) if isinstance(version, TierVersion) else version


def _meters(*documents: Mapping[str, Any]) -> dict[str, MeterWords]:
    charges = [charge for document in documents for charge in document.get("charges") or ()]
    codes = {str(charge["meter"]) for charge in charges if charge.get("meter")}
    meters = Meter.objects.filter(code__in=codes)
    names = Counter(meter.name for meter in meters)
    return {
        # Terms are told apart by what they are called: meters of one name are called by their codes, too.
        meter.code: MeterWords(
            meter.name if names[meter.name] == 1 else f"{meter.name} [{meter.code}]",
            meter.unit,
        )
        for meter in meters
    }
