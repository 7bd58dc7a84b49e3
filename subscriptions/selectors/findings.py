"""What the linter finds in a version, stored or not, and how a finding is shown."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from subscriptions.core.linting import Finding, LintedCharge, Rule, Severity, lint
from subscriptions.core.money import plain
from subscriptions.models import TierVersion
from subscriptions.selectors.catalog import UsageCharge, VersionTerms, version_terms

# `finding_document` as the published schema describes it, for the doors of any app.
FINDINGS_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["rule", "severity", "path", "message", "range"],
        "properties": {
            "rule": {"type": "string", "enum": [rule.value for rule in Rule]},
            "severity": {"type": "string", "enum": [severity.value for severity in Severity]},
            "path": {"type": "string", "description": "Its place in the version's document."},
            "message": {"type": "string", "description": "A sentence for who sets the price."},
            "range": {
                "type": "object",
                "nullable": True,
                "description": "The units beyond the allowance between which it shows; null where it shows whatever is used.",
                "properties": {
                    "from": {"type": "string", "format": "decimal"},
                    "to": {"type": "string", "format": "decimal", "nullable": True, "description": "Null: no end."},
                },
            },
        },
    },
}


def findings_of(version: TierVersion) -> list[Finding]:
    """Return what the rules find that need no usage. Load the version `with_parts`."""
    return findings_in(version_terms(version))


def findings_in(terms: VersionTerms) -> list[Finding]:
    """Return the same of terms that may not be stored."""
    linted = [_linted(charge, terms.charges) for charge in terms.charges]
    return lint(currency=terms.currency, fee=Fraction(terms.fee) / terms.fee_every, charges=linted)


def finding_document(finding: Finding) -> dict[str, Any]:
    """Return a finding as the API shows it; `range` is null where it shows whatever is used."""
    stretch = {"from": _text(finding.from_units), "to": _text(finding.to_units)}
    return {
        "rule": finding.rule.value,
        "severity": finding.severity.value,
        "path": finding.path,
        "message": finding.message,
        "range": None if finding.from_units is None else stretch,
    }


def _linted(charge: UsageCharge, charges: Sequence[UsageCharge]) -> LintedCharge:
    """The gate asks the charge that a pool belongs to: a charge for some dimension values without terms of its own has the meter's."""
    is_apart = charge.included is not None or charge.overage_quantity_max is not None or charge.limits
    gate: UsageCharge | None = charge
    if charge.dimensions and not is_apart:
        gate = next((one for one in charges if one.meter_id == charge.meter_id and not one.dimensions), None)
    return LintedCharge(
        path=f"charges.{charge.position}",
        price=charge.price,
        included=charge.included or Decimal(0),
        ends_at_allowance=gate is not None and gate.at_limit == "deny",
        overage_quantity_max=gate.overage_quantity_max if gate is not None else None,
    )


def _text(units: Decimal | None) -> str | None:
    return None if units is None else plain(units)
