"""Which period of a tenant is billed next: what `upcoming-invoice` previews."""

from datetime import datetime

from billing_site.http.problems import DomainError
from subscriptions.models import BillingPeriod, Tenant


class NoRunningPeriod(DomainError):
    """The tenant has no billing period that is still to be closed, so nothing is to come."""

    status = 404
    code = "no_period"
    title = "There is no running period"


def running_period(tenant: Tenant, *, now: datetime) -> BillingPeriod:
    """
    Return the period that the next closing bills. Raises NoRunningPeriod (404).

    Within the grace after a boundary that is the old one: its invoice comes first, with the new period's fee on it.
    """
    open_periods = BillingPeriod.objects.filter(tenant=tenant, closed_at__isnull=True, starts_at__lte=now)
    period = open_periods.order_by("starts_at").first()
    if period is None:
        raise NoRunningPeriod(f"{tenant.code} has no billing period to be closed at {now:%Y-%m-%dT%H:%M:%SZ}.")
    return period
