"""The second pair of eyes: that somebody else agrees to a version as it is. What needs it is said by `guards`."""

from datetime import datetime

from django.db import transaction

from billing_site.http.problems import DomainError
from subscriptions.models import Approval
from subscriptions.selectors.guards import ACTOR_MAX, clearance_of
from subscriptions.services import audit, catalog


class OwnVersion(DomainError):
    """Who saved a version last does not approve it, too."""

    code = "own_version"
    title = "It takes somebody else to approve the version"


@transaction.atomic
def approve(*, version_id: int, expected_revision: int | None, now: datetime, actor: str, note: str = "") -> Approval:
    """
    Agree to a version as it is at its present revision; saved again, it needs another approval. `now` is wall time.

    Approving again returns the first approval, unless a backtest broke a guard since. Raises OwnVersion (409), StaleRevision (412) where it
    was saved since it was read.
    """
    version = catalog.locked_version(version_id, expected_revision)
    clearance = clearance_of(version)
    if not clearance.may_be_approved_by(actor):
        raise OwnVersion(f"Version {version.number} of {version.tier.code} was saved last by who approves it.")
    for approval in clearance.valid_approvals:
        if approval.approved_by == actor[:ACTOR_MAX]:
            return approval
    approval = Approval.objects.create(
        version=version, revision=version.revision, approved_by=actor[:ACTOR_MAX], approved_at=now, note=note
    )
    audit.record(actor=actor, action="approve", instance=version, after={"revision": version.revision}, reason=note)
    return approval
