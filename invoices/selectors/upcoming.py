"""What the tenant's running period would be billed if it closed now: the closing itself, rolled back."""

from datetime import datetime

from billing_site.http.problems import DomainError
from subscriptions.models import BillingPeriod, Tenant
from subscriptions.selectors.agreement import period_at


class NoRunningPeriod(DomainError):
    """The tenant has no billing period now, so nothing is to come."""

    status = 404
    code = "no_period"
    title = "There is no running period"


def running_period(tenant: Tenant, *, now: datetime) -> BillingPeriod:
    """Return the period that the next closing bills. Raises NoRunningPeriod (404)."""
    period = period_at(tenant, at=now)
    if period is None:
        raise NoRunningPeriod(f"{tenant.code} has no billing period at {now:%Y-%m-%dT%H:%M:%SZ}.")
    return period
