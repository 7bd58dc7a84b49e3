"""Finding tenants."""

from django.db.models import QuerySet

from billing_site.http.problems import DomainError
from subscriptions.models import Tenant


class TenantNotFound(DomainError):
    """No tenant has this id."""

    status = 404
    code = "not_found"
    title = "There is no such tenant"


class TenantParked(DomainError):
    """The audit has found that the tenant's books do not balance: nothing of it is charged until staff release it."""

    code = "tenant_parked"
    title = "The tenant is parked"


def get_tenant(code: str) -> Tenant:
    """Return the tenant with the operator's id, its test clock loaded. Raises TenantNotFound (404)."""
    tenant = Tenant.objects.select_related("test_clock").filter(code=code).first()
    if tenant is None:
        raise TenantNotFound(f"There is no tenant {code}.")
    return tenant


def parked_tenants() -> QuerySet[Tenant]:
    """Return the tenants that wait for staff because their books did not balance."""
    return Tenant.objects.filter(parked_at__isnull=False)


def refuse_parked(tenant: Tenant) -> None:
    """Raise TenantParked (409) when nothing of the tenant may be charged."""
    if tenant.parked_at is not None:
        raise TenantParked(
            f"{tenant.code} is parked since {tenant.parked_at:%Y-%m-%dT%H:%M:%SZ}: {tenant.parked_reason}"
        )
