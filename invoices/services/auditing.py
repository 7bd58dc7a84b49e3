"""
Audits the books, keeps what was found, and parks each tenant whose books do not balance.

What must hold is said by `selectors.books`. What concerns no tenant (a gap in the numbers, a trigger that is off) parks nobody: it is in
the log, in the metrics and on the staff page of audit runs.
"""

import logging
from collections import Counter
from time import monotonic

from invoices.models import AuditRun
from invoices.selectors.books import BrokenBooks, broken_books, refresh_statistics
from subscriptions.models import Tenant
from subscriptions.services import parking

logger = logging.getLogger(__name__)


def audit_books() -> AuditRun:
    """
    Run every invariant, park the tenants that break one, and return what was found.

    Safe to run at any time, also twice at once: a tenant is parked once, and each run is kept.
    """
    started = monotonic()
    refresh_statistics()
    found = broken_books()
    parked = _park(found)
    broken: Counter[str] = Counter()
    for one in found:
        logger.error("the books break %s, %d ×, e.g. %s", one.invariant, one.rows, one.example)
        broken[one.invariant] += one.rows
    return AuditRun.objects.create(
        milliseconds=round((monotonic() - started) * 1000), broken=dict(broken), parked=len(parked)
    )


def _park(found: list[BrokenBooks]) -> list[int]:
    """Park the tenants among what was found, each for all of its reasons; return those that were not parked before."""
    reasons: dict[int, list[str]] = {}
    for one in found:
        if one.tenant_id is not None:
            reasons.setdefault(one.tenant_id, []).append(f"{one.invariant}, {one.rows} ×, e.g. {one.example}")
    known = Tenant.objects.filter(pk__in=reasons).values_list("pk", flat=True)
    return [pk for pk in known if parking.park_tenant(tenant_id=pk, reason="; ".join(reasons[pk]))]
