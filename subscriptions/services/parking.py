"""
Parks a tenant whose books do not balance, and releases it again.

A parked tenant is not booked, closed or charged (`selectors.tenants.refuse_parked`); its usage is recorded all the same. Rows of due work
are parked one by one, for another reason: their tries are used up (`invoices.services.due`).
"""

from django.db import transaction
from django.db.models.functions import Now

from billing_site.http.problems import DomainError
from subscriptions.models import Tenant
from subscriptions.services import audit


class TenantNotParked(DomainError):
    """The tenant does not wait for anybody."""

    code = "tenant_not_parked"
    title = "The tenant is not parked"


@transaction.atomic
def park_tenant(*, tenant_id: int, reason: str) -> bool:
    """Park the tenant; whether it was not parked before. The first reason stays until it is released."""
    tenant = _locked(tenant_id)
    if tenant.parked_at is not None:
        return False
    Tenant.objects.filter(pk=tenant_id).update(parked_at=Now(), parked_reason=reason)
    audit.record(actor=audit.ACTOR_SYSTEM, action="park", instance=tenant, reason=reason)
    return True


@transaction.atomic
def release_tenant(*, tenant_id: int, actor: str, reason: str) -> None:
    """
    Let the tenant be booked, closed and charged again; what fell due meanwhile is caught up.

    The next audit parks it again if its books are as they were. Raises TenantNotParked (409).
    """
    tenant = _locked(tenant_id)
    if tenant.parked_at is None:
        raise TenantNotParked(f"{tenant.code} is not parked.")
    before = {"parked_at": tenant.parked_at, "parked_reason": tenant.parked_reason}
    Tenant.objects.filter(pk=tenant_id).update(parked_at=None, parked_reason="")
    audit.record(actor=actor, action="release", instance=tenant, before=before, reason=reason)


def _locked(tenant_id: int) -> Tenant:
    return Tenant.objects.select_for_update(no_key=True, of=("self",)).get(pk=tenant_id)
