"""Finding tenants."""

from billing_site.http.problems import DomainError
from subscriptions.models import Tenant


class TenantNotFound(DomainError):
    """No tenant has this id."""

    status = 404
    code = "not_found"
    title = "There is no such tenant"


def get_tenant(code: str) -> Tenant:
    """Return the tenant with the operator's id, its test clock loaded. Raises TenantNotFound (404)."""
    tenant = Tenant.objects.select_related("test_clock").filter(code=code).first()
    if tenant is None:
        raise TenantNotFound(f"There is no tenant {code}.")
    return tenant
