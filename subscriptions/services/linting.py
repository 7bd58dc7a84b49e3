"""The linter as a gate: what is certainly wrong is not published."""

from billing_site.http.problems import Invalid
from subscriptions.core.linting import Severity
from subscriptions.models import TierVersion
from subscriptions.selectors.findings import findings_of


class BlockedByLinter(Invalid):
    """The draft has prices that nobody can mean; `errors` names each by its path, its rule and a sentence."""

    code = "blocked_by_linter"
    title = "The linter found prices that cannot be meant"


def check_lint(version: TierVersion) -> None:
    """Refuse a version with blocking findings. Load it with its parts. Raises BlockedByLinter (422)."""
    blocking = [finding for finding in findings_of(version) if finding.severity == Severity.BLOCKING]
    if blocking:
        errors = [(finding.path, finding.rule.value, finding.message) for finding in blocking]
        raise BlockedByLinter(" ".join(finding.message for finding in blocking[:3]), errors=errors)
