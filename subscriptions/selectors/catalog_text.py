"""The catalogue as one document, and as the text that people keep, compare and import."""

from typing import Any

from billing_site.http.wire import timestamp
from subscriptions.core.yaml_documents import write_yaml
from subscriptions.models import Meter, Tier, TierVersion
from subscriptions.selectors.catalog import ANSWERED_MEMBERS, version_document, with_parts

METER_MEMBERS = (
    "code",
    "name",
    "event_type",
    "aggregation",
    "value_property",
    "filters",
    "dimensions",
    "unit",
    "precision",
    "late_policy",
    "window_days",
)


def catalog_text() -> str:
    """Return the catalogue as YAML: what `services.catalog_text.import_catalog` takes."""
    return write_yaml(catalog_document())


def catalog_document() -> dict[str, Any]:
    """Return all meters and tiers by their codes, and each tier's versions by number. A fixed number of queries."""
    versions: dict[int, list[dict[str, Any]]] = {}
    for version in with_parts(TierVersion.objects.order_by("tier_id", "number")):
        versions.setdefault(version.tier_id, []).append(stored_version(version))
    return {
        "meters": [meter_document(meter) for meter in Meter.objects.order_by("code")],
        "tiers": [
            {
                "code": tier.code,
                "name": tier.name,
                "description": tier.description,
                "versions": versions.get(tier.pk, []),
            }
            for tier in Tier.objects.order_by("code")
        ],
    }


def meter_document(meter: Meter) -> dict[str, Any]:
    """Return a meter as the text has it."""
    return {name: getattr(meter, name) for name in METER_MEMBERS}


def stored_version(version: TierVersion) -> dict[str, Any]:
    """Return a version as the text has it: its number, since when it is live and for whom, and its document."""
    publications = [
        {"cohort": one.cohort, "effective_at": timestamp(one.effective_at)}
        for one in sorted(version.publications.all(), key=lambda one: one.cohort)
        if one.undone_at is None
    ]
    document = {name: value for name, value in version_document(version).items() if name not in ANSWERED_MEMBERS}
    return {"number": version.number, "publications": publications, **document}
